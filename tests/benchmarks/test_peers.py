"""Peers are scored on the same mixtures, whatever they delay."""

import csv

import numpy as np
import pytest
import torch

from benchmarks import peers
from fedenhance.data.manifests import load_manifest, take_isolated_noises
from fedenhance.data.mixing import MixtureOfMixtures, fixed_mixtures

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("lag", [-20, 0, 37])
def test_what_is_late_or_early_is_aligned(lag):
    mixture = RNG.standard_normal(1000).astype(np.float32)
    given = np.pad(mixture, (lag, 0)) if lag >= 0 else mixture[-lag:]
    found = peers.aligned(given, mixture, most=50)
    assert found.shape == mixture.shape
    assert np.array_equal(found[:900], mixture[:900]) == (lag >= 0)
    assert np.array_equal(found[20:900], mixture[20:900])


def test_frames_hold_the_whole_signal_and_silence():
    frames = peers.in_frames(np.arange(1.0, 11.0), 4)
    assert frames.ravel().tolist() == [*range(1, 11), 0, 0, 0, 0, 0, 0]


def test_resampling_there_and_back_changes_little():
    time = np.arange(4000, dtype=np.float32) / 16000
    tone = np.sin(2 * np.pi * 440 * time)
    back = peers.from_48_khz(peers.at_48_khz(tone), 4000)
    assert np.abs(back - tone)[200:-200].max() < 1e-2


def test_a_package_that_is_missing_is_told_by_name(capsys, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    args = peers.parse(["--data_folder", "x", "--only", "nothing", "gtcrn"])
    assert [name for name, *_ in peers.enhancers(args)] == ["nothing"]
    assert "gtcrn is left out: No module named 'fasr" in capsys.readouterr().out


def test_the_table_has_one_and_two_noises_and_bins(tmp_path, tiny_corpus, monkeypatch):
    halves = {"halves": (lambda: lambda mixture: mixture / 2, 7)}
    monkeypatch.setattr(peers, "PEERS", halves)
    monkeypatch.setattr(peers, "RATE", 8000)

    def mixtures(args, folder, snr):
        mixing = MixtureOfMixtures(8000, 0.5)
        rows = load_manifest(f"{tiny_corpus}/test.csv", tiny_corpus)
        fixed = fixed_mixtures(take_isolated_noises(rows, 0.5), mixing)
        return fixed, {"loop_noise": False}

    monkeypatch.setattr(peers, "mixtures_of", mixtures)
    path = tmp_path / "peers.csv"
    peers.main(
        ["--data_folder", "x", "--csv", str(path), "--processes", "1", "--metrics"]
    )
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["n_noises"] for row in rows[:2]] == ["1", "2"]
    assert rows[0]["parameters"] == "7" and float(rows[0]["worse"]) <= 1
    # half a mixture is as good as the whole
    assert all(abs(float(row["si_sdri"])) < 1e-3 for row in rows)
    assert sum(int(row["n"]) for row in rows[2:]) == sum(int(r["n"]) for r in rows[:2])


def test_an_enhancer_of_ours_is_called_as_peers_are():
    def trained(mixture):
        return torch.stack([mixture, 0 * mixture], dim=1)

    signal = RNG.standard_normal(10).astype(np.float32)
    assert np.array_equal(peers.first_source(trained, signal), signal)
