"""The model that comes along."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fedenhance
from fedenhance.data.tables import read_table
from fedenhance.deploy import trained
from fedenhance.deploy.streaming import StreamingSeparator

FOLDER = Path(fedenhance.__file__).parent / "pretrained" / "gtcrn"
NEARLY_CLEAN = FOLDER.parents[2] / "benchmarks/results/peers_nearly_clean.csv"
SCORES = FOLDER.parents[1] / "recipes/PackagedRecordings/results/pretrained.csv"


@pytest.fixture(scope="module")
def model():
    return fedenhance.load()


def test_it_is_small_and_the_one_taken_by_default(model):
    assert trained.shipped() == ["gtcrn"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2**20
    assert sum(w.numel() for w in model.separator.parameters()) == 23_669


def test_it_takes_noise_away_and_leaves_a_voice(model):
    rate, rng = 16000, np.random.default_rng(0)
    time = np.arange(3 * rate) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(n * phase) / n for n in range(1, 25))
    voice = (voice * (np.sin(2 * np.pi * 3 * time) > -0.3)).astype(np.float32)
    noise = 0.3 * rng.standard_normal(len(time)).astype(np.float32)
    left = model.enhance(noise, rate)
    assert 10 * np.log10(np.square(left).mean() / np.square(noise).mean()) < -15
    heard = model.enhance(voice + noise, rate)
    before, after = np.square(noise).mean(), np.square(heard - voice).mean()
    assert 10 * np.log10(before / after) > 3
    assert not model.enhance(np.zeros(rate, np.float32), rate).any()


def test_it_runs_on_a_stream(model):
    signal = 0.1 * torch.randn(1, 16000)
    stream = StreamingSeparator(model.separator)
    blocks = [stream.push(block) for block in signal.split(256, dim=-1)]
    streamed = torch.cat([*blocks, stream.flush()], dim=-1)[..., : signal.shape[-1]]
    assert streamed == pytest.approx(model(signal), abs=1e-5)


def test_every_part_of_the_test_set_gains():
    rows = {
        (r["group"], r["metric"]): float(r["mean"])
        for r in read_table(SCORES)
        if r["grouping"] in ("n_noises", "input_snr")
    }
    assert {"1", "2", "-10 to -5", "10 to 15"} <= {group for group, _ in rows}
    assert all(
        rows[part, name] > 0 for part, _ in rows for name in ("si_sdri", "estoii")
    )


def test_nearly_clean_recordings_are_left_as_they_are():
    gains = {
        (r["enhancer"], int(r["noise_db"]), r["n_noises"]): float(r["si_sdri"])
        for r in read_table(NEARLY_CLEAN)
    }
    for snr in range(-5, 35, 5):
        for count in "12":
            gain = gains["pretrained", snr, count]
            assert gain > -0.3
            if snr <= 15:
                assert gain > gains["pretrained without limit", snr, count] - 0.2


def test_enhance_takes_it_when_no_model_is_named(tmp_path):
    from fedenhance.commands import enhance

    noisy = 0.1 * np.random.default_rng(0).standard_normal(24000)
    soundfile.write(tmp_path / "noisy.wav", noisy, 24000)
    enhance.main([str(tmp_path / "noisy.wav"), "--out", str(tmp_path / "clean")])
    clean, rate = soundfile.read(tmp_path / "clean" / "noisy.wav")
    assert (rate, clean.shape) == (24000, noisy.shape)
    assert np.square(clean).mean() < 0.05 * np.square(noisy).mean()
