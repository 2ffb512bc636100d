"""Metrics are those of their libraries, and failures are not zeros."""

import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_distortion_ratio,
)

from fedenhance.reports import metrics
from fedenhance.reports.metrics import (
    METRICS,
    WITHOUT_REFERENCE,
    check_metrics,
    measure,
    measure_utterances,
)

RATE = 16000
# The packages of requirements-extra.txt may be missing.
INSTALLED = [
    name
    for name in METRICS
    if all(find_spec(p.replace("-", "_")) for p in metrics.PACKAGES.get(name, []))
]
WITH_REFERENCE = [name for name in INSTALLED if name not in WITHOUT_REFERENCE]


def skip_without(name):
    if name not in INSTALLED:
        pytest.skip(f"{name} needs {metrics.PACKAGES[name]}")


def speechlike(seconds=1.0, seed=0):
    """Noise with the syllabic rhythm that PESQ and STOI look for."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    time = np.arange(len(samples)) / RATE
    rhythm = np.clip(np.sin(2 * np.pi * 4 * time), 0.01, 1)
    return (0.1 * rhythm * samples).astype(np.float32)


def noisy(target, snr_db, seed=1):
    noise = np.random.default_rng(seed).standard_normal(len(target))
    noise *= np.linalg.norm(target) / np.linalg.norm(noise) * 10 ** (-snr_db / 20)
    return (target + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("si_sdr", scale_invariant_signal_distortion_ratio),
        ("sdr", signal_distortion_ratio),
    ],
)
@pytest.mark.parametrize("snr_db", [-10, 5, 30])
def test_sdrs_are_those_of_torchmetrics(name, reference, snr_db):
    target = speechlike()
    estimate = noisy(target, snr_db)
    expected = float(reference(*map(torch.tensor, (estimate, target))))
    assert METRICS[name](estimate, target, RATE) == pytest.approx(expected, abs=1e-3)


def test_sdr_forgives_a_short_filter_and_si_sdr_does_not():
    target = speechlike()
    delayed = np.concatenate([[0, 0, 0], target[:-3]]).astype(np.float32)
    assert METRICS["sdr"](delayed, target, RATE) > 40
    assert METRICS["si_sdr"](delayed, target, RATE) < 10


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_less_noise_scores_higher(name):
    target = speechlike(1.5)
    bad, good = (METRICS[name](noisy(target, snr), target, RATE) for snr in (0, 20))
    assert good > bad
    perfect = METRICS[name](target, target, RATE)
    assert perfect > good
    assert math.isfinite(perfect)


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_silent_target_is_a_failure_and_not_a_score(name):
    target = np.zeros(RATE, np.float32)
    values, failures = measure(speechlike(), target, RATE, [name])
    assert math.isnan(values[name])
    assert failures == {name: "the target is silent"}


@pytest.mark.parametrize("name", ["sdr", "pesq"])
def test_silent_estimate_is_undefined(name):
    skip_without(name)
    values, failures = measure(np.zeros(RATE, np.float32), speechlike(), RATE, [name])
    assert math.isnan(values[name])
    assert failures == {name: "the estimate is silent"}


def test_silent_estimate_has_the_worst_si_sdr():
    values, _ = measure(np.zeros(RATE, np.float32), speechlike(), RATE, ["si_sdr"])
    assert values["si_sdr"] < -100


@pytest.mark.parametrize("name", ["pesq", "estoi"])
def test_too_short_is_a_failure(name):
    skip_without(name)
    target = speechlike(0.1)
    values, failures = measure(target, target, RATE, [name])
    assert math.isnan(values[name])
    assert name in failures


def test_without_a_reference_there_is_only_dnsmos():
    values, failures = measure(speechlike(), None, RATE, WITH_REFERENCE)
    assert all(math.isnan(value) for value in values.values())
    assert set(failures.values()) == {"there is no clean reference"}


def test_dnsmos_is_asked_once_and_not_about_silence(monkeypatch):
    calls = []

    def score(signals, rate):
        calls.append(rate)
        return [{"sig": 1.0, "bak": 2.0, "ovrl": 3.0} for _ in signals]

    monkeypatch.setattr(metrics.dnsmos, "dnsmos", score)
    names = ["dnsmos", "dnsmos_sig", "dnsmos_bak"]
    estimate = speechlike(seed=77)
    values, failures = measure(estimate, None, RATE, names)
    assert (list(values.values()), failures) == ([3.0, 1.0, 2.0], {})
    assert calls == [RATE]
    _, failures = measure(0 * estimate, None, RATE, ["dnsmos"])
    assert failures == {"dnsmos": "the estimate is silent"}


@pytest.mark.slow
def test_dnsmos_runs():
    skip_without("dnsmos")
    assert 0.5 < METRICS["dnsmos"](speechlike(), None, RATE) < 5


NISQA = {
    **{f"cnn_c_out_{i}": 4 for i in (1, 2, 3)},
    **{"cnn_pool_1": [24, 7], "cnn_pool_2": [12, 5], "cnn_pool_3": [6, 3]},
    **{"cnn_kernel_size": (3, 3), "cnn_dropout": 0.2, "td_sa_dropout": 0.1},
    **{"td_sa_d_model": 8, "td_sa_nhead": 1, "td_sa_h": 8, "td_sa_num_layers": 1},
    **{"pool_att_h": 8, "pool_att_dropout": 0.1, "ms_fmax": 20000, "ms_n_mels": 48},
    **{"ms_n_fft": 4096, "ms_hop_length": 0.01, "ms_win_length": 0.02},
    **{"ms_seg_length": 15, "ms_seg_hop_length": 4, "ms_max_segments": 1300},
}
"""A smaller one, of the published form."""


def test_nisqa_is_taken_where_its_weights_are(monkeypatch, tmp_path):
    skip_without("nisqa")
    import requests
    from torchmetrics.functional.audio import nisqa

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        nisqa, "_load_nisqa_model", inspect.unwrap(nisqa._load_nisqa_model)
    )
    monkeypatch.setattr(requests, "get", Mock(side_effect=requests.ConnectionError))
    assert not metrics.is_installed("nisqa")
    with pytest.raises(ImportError, match=r"put nisqa.tar, .* to ~/.torchmetrics/NISQ"):
        METRICS["nisqa"](speechlike(), None, RATE)
    model = nisqa._NISQADIM(NISQA)
    path = tmp_path / ".torchmetrics/NISQA/nisqa.tar"
    torch.save({"args": NISQA, "model_state_dict": model.state_dict()}, path)
    assert metrics.is_installed("nisqa")
    values, failures = measure(speechlike(), None, RATE, ["nisqa"])
    assert math.isfinite(values["nisqa"]) and not failures


def test_diverged_model_is_a_failure():
    estimate = speechlike()
    estimate[7] = np.nan
    values, failures = measure(estimate, speechlike(), RATE, ["si_sdr"])
    assert math.isnan(values["si_sdr"])
    assert failures == {"si_sdr": "the estimate is not finite"}


def test_pesq_wide_band_has_one_sample_rate():
    skip_without("pesq")
    with pytest.raises(ValueError, match="16000"):
        METRICS["pesq"](speechlike(), speechlike(), 8000)


def utterances(count):
    for i in range(count):
        target = speechlike(1.0, seed=i)
        silent = i == 1
        yield (
            {"id": f"u{i}"},
            noisy(target, 20),
            noisy(target, 10),
            0 * target if silent else target,
        )


def test_improvement_is_after_minus_before():
    rows = measure_utterances(utterances(1), RATE, ["si_sdr"], processes=1)
    (row,) = rows
    assert row["si_sdr_in"] == pytest.approx(10, abs=0.5)
    assert row["si_sdr"] == pytest.approx(20, abs=0.5)
    assert row["si_sdri"] == pytest.approx(row["si_sdr"] - row["si_sdr_in"])
    assert row["failures"] == ""


def test_processes_change_nothing_and_failures_are_counted(caplog):
    skip_without("estoi")
    options = {"sample_rate": RATE, "metrics": ["si_sdr", "estoi"]}
    alone = measure_utterances(utterances(9), processes=1, **options)
    together = measure_utterances(utterances(9), processes=2, **options)
    np.testing.assert_equal(together, alone)
    assert [row["id"] for row in alone] == [f"u{i}" for i in range(9)]
    assert "si_sdr is undefined for 1 of 9" in caplog.text
    assert "estoi is undefined for 1 of 9" in caplog.text
    assert "the target is silent" in alone[1]["failures"]


def test_utterances_are_read_no_further_than_needed(monkeypatch):
    def threads(processes, context, initializer, arguments):
        return ThreadPoolExecutor(processes)

    monkeypatch.setattr(metrics, "ProcessPoolExecutor", threads)
    taken = 0

    def counted():
        nonlocal taken
        for utterance in utterances(50):
            taken += 1
            yield utterance

    jobs = ((*utterance, RATE, ("si_sdr",)) for utterance in counted())
    results = metrics._map_ahead(1, metrics.measure_utterance, jobs)
    next(results)
    results.close()
    assert taken <= 5


def test_unknown_metrics_and_missing_packages_are_named(monkeypatch):
    with pytest.raises(ValueError, match="no metric visqol"):
        check_metrics(["visqol"])
    monkeypatch.setitem(metrics.PACKAGES, "pesq", ["no-such-package"])
    with pytest.raises(ImportError, match="pip install no-such-package"):
        check_metrics(["pesq"])


def test_lengths_must_match():
    with pytest.raises(ValueError, match=r"\(time,\)"):
        measure(np.zeros(3), np.zeros(4), RATE, ["si_sdr"])
