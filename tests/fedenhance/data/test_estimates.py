"""Recordings become rows of estimated speech and of estimated noise."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from fedenhance.data import estimates
from fedenhance.data.audio import Segment, read_segment
from fedenhance.data.estimates import estimate_parts
from fedenhance.data.manifests import is_isolated_noise
from fedenhance.deploy.trained import Trained
from fedenhance.networks.scaling import RunningLevel

SECONDS = {"a/1": 1.0, "a/2": 0.5, "a/3": 0.75, "b/1": 0.6}
PERIOD = {"a/1": 2, "a/2": 20, "a/3": 5, "b/1": 4}
"""Peaks of speech; what is between them is the weaker, the longer it is."""


class Halves(nn.Module):
    """Speech is what is positive; it counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.share, self.calls = nn.Parameter(torch.ones(())), 0

    def forward(self, mixture):
        self.calls += 1
        return torch.stack([mixture.clamp(min=0), mixture.clamp(max=0)], dim=1)


@pytest.fixture
def rows(tmp_path):
    """Two clients; noise is below zero, and no recording has a mean."""
    found = {}
    for key, seconds in SECONDS.items():
        wave = np.full(round(16000 * seconds), -0.5 / (PERIOD[key] - 1))
        wave[:: PERIOD[key]] = 0.5
        path = tmp_path / f"{key.replace('/', '')}.wav"
        soundfile.write(path, wave, 16000)
        row = {"duration": seconds, "spk_id": key[0], "client": key[0]}
        signals = {"speech": None, "noise": None, "noisy": Segment(str(path), 0, 0)}
        found[key] = row | signals
    return found


def estimated(rows, folder, network=None, cleanest=0.5):
    model = Trained(network or Halves(), None, 16000, {})
    return estimate_parts(dict(rows), model, folder, cleanest)


def wave_of(row, name):
    length = round(16000 * row["duration"])
    return read_segment(*row[name], 16000, length).numpy()


def test_the_cleanest_of_each_client_give_speech_and_others_noise(rows, tmp_path):
    found = estimated(rows, tmp_path / "estimates")
    kinds = {"speech": {"a/2", "a/3", "b/1"}, "noise": {"a/1", "b/1"}}
    assert {key for key, row in found.items() if not is_isolated_noise(row)} == kinds[
        "speech"
    ]
    assert len(found) == 5
    for source, kind in enumerate(kinds):
        for key in kinds[kind]:
            recording = torch.from_numpy(wave_of(rows[key], "noisy"))
            expected = Trained(Halves(), None, 16000, {})(recording[None])[0, source]
            row = found[key if kind == "speech" else f"{key} noise"]
            np.testing.assert_allclose(wave_of(row, kind), expected, atol=1e-4)
            assert row["client"] == key[0] and row["duration"] == SECONDS[key]


def test_what_is_there_is_not_made_again_unless_model_or_audio_is_another(
    rows, tmp_path
):
    first, again, other, last = (Halves() for _ in range(4))
    with torch.no_grad():
        other.share.fill_(2.0)
    made = [
        estimated(rows, tmp_path / "estimates", network)
        for network in (first, again, other)
    ]
    assert made[0] == made[1] != made[2]
    assert [network.calls for network in (first, again, other)] == [8, 0, 8]
    path = rows["b/1"]["noisy"].path
    wave, rate = soundfile.read(path)
    soundfile.write(path, -wave, rate)
    assert estimated(rows, tmp_path / "estimates", last) != made[0] and last.calls == 2
    assert len([*(tmp_path / "estimates").iterdir()]) == 9


def test_an_offset_is_neither_speech_nor_noise(rows, tmp_path):
    """A network that follows the level by itself takes the recording as it is."""
    network = Halves()
    network.level = RunningLevel(num_frames=4)
    path = rows["b/1"]["noisy"].path
    wave, rate = soundfile.read(path)
    waves = []
    for offset in (0.0, 0.3):
        soundfile.write(path, wave + offset, rate)
        found = estimated(rows, tmp_path / "estimates", network)
        waves.append(wave_of(found["b/1 noise"], "noise"))
    np.testing.assert_allclose(waves[1], waves[0], atol=2e-4)


def test_long_recordings_are_heard_in_pieces(rows, tmp_path, monkeypatch):
    whole = estimated(rows, tmp_path / "whole")
    monkeypatch.setattr(estimates, "PIECE", 0.3)
    network = Halves()
    cut = estimated(rows, tmp_path / "cut", network)
    assert network.calls == 2 * (4 + 2 + 3 + 2)
    assert wave_of(cut["a/2"], "speech").shape == wave_of(whole["a/2"], "speech").shape


def test_known_parts_stay_and_a_damaged_recording_is_left_out(rows, tmp_path):
    known = {**rows["b/1"], "noisy": None, "speech": rows["b/1"]["noisy"]}
    alone = {**rows["b/1"], "noisy": None, "noise": rows["b/1"]["noisy"]}
    open(rows["a/1"]["noisy"].path, "w").close()
    found = estimated({**rows, "known": known, "alone": alone}, tmp_path / "estimates")
    assert found["known"] is known and found["alone"] is alone
    assert set(found) == {"known", "alone", "a/2", "a/3 noise", "b/1", "b/1 noise"}


def test_silence_is_neither_speech_nor_noise(rows, tmp_path):
    """Of a gated recording most rows are; they are not the cleanest."""
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(8000), 16000)
    gated = {
        f"a/s{n}": rows["a/2"] | {"noisy": Segment(str(silent), n, 0)} for n in (0, 1)
    }
    found = estimated({**rows, **gated}, tmp_path / "estimates")
    assert found == estimated(rows, tmp_path / "estimates")


def test_a_name_that_ends_in_noise_takes_no_row_from_another(rows, tmp_path):
    named = {"a/1": rows["a/1"], "a/1 noise": rows["a/2"]}
    found = estimated(named, tmp_path / "estimates")
    assert sorted(found) == ["a/1 noise", "a/1 noise'"]
    assert found["a/1 noise"]["speech"] and found["a/1 noise'"]["noise"]


def test_speech_that_is_known_beside_its_recording_is_not_estimated(rows, tmp_path):
    known = rows["a/1"] | {"speech": rows["a/2"]["noisy"]}
    found = estimated({**rows, "a/1": known}, tmp_path / "estimates")
    assert found["a/1"] is known and "a/1 noise" not in found


def test_a_damaged_estimate_and_what_a_kill_left_are_made_anew(rows, tmp_path):
    folder = tmp_path / "estimates"
    found, network = estimated(rows, folder), Halves()
    path = Path(found["b/1"]["speech"].path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    rest = folder / f".{2**30}.{path.name}"  # of a process that is no more
    rest.write_bytes(whole)
    assert estimated(rows, folder, network) == found and network.calls == 2
    assert path.read_bytes() == whole and not rest.exists()


def test_a_disk_that_takes_no_estimates_is_no_damage_of_recordings(rows, tmp_path):
    (tmp_path / "estimates").touch()
    with pytest.raises(OSError, match="estimates"):
        estimated(rows, tmp_path / "estimates")


@pytest.mark.parametrize("share", [0, 1.5, None])
def test_a_share_that_is_none(rows, tmp_path, share):
    with pytest.raises(ValueError, match="cleanest"):
        estimated(rows, tmp_path, cleanest=share)
