"""Reading parts of audio files."""

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.data.audio import Segment, noise_files, read_segment
from fedenhance.data.opening import DamagedAudioError


@pytest.fixture
def ramp(tmp_path):
    """A file of 100 samples, sample n being n / 128."""
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(100) / 128, 1000, subtype="FLOAT")
    return path


def read(path, start=0, stop=0, num_samples=4, **options):
    return read_segment(path, start, stop, 1000, num_samples, **options)


def test_reads_from_start_to_stop(ramp):
    assert read(ramp, 10, 14).tolist() == [10 / 128, 11 / 128, 12 / 128, 13 / 128]


@pytest.mark.parametrize(("position", "first"), [(0, 10), (0.5, 13), (1, 16)])
def test_position_moves_the_crop_inside_the_segment(ramp, position, first):
    assert read(ramp, 10, 20, position=position)[0] == first / 128


def test_shorter_segments_are_padded(ramp):
    assert read(ramp, 98, 100).tolist() == [98 / 128, 99 / 128, 0, 0]


def test_shorter_segments_are_looped_on_demand(ramp):
    expected = [98 / 128, 99 / 128, 98 / 128, 99 / 128]
    assert read(ramp, 98, 100, loop=True).tolist() == expected


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", [[0.5, 0.25]] * 4, 1000)
    assert read(tmp_path / "stereo.wav").tolist() == [0.375] * 4


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "tone.wav", tone, rate)
    got = read_segment(tmp_path / "tone.wav", 0, 0, 16000, 16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    middle = slice(1000, -1000)
    assert np.abs(got.numpy() - expected)[middle].max() < 0.01


def test_packed_audio_is_int16_at_16_khz(tmp_path):
    np.save(tmp_path / "packed.npy", np.array([0, 16384, -32768, 0], dtype=np.int16))
    got = read_segment(tmp_path / "packed.npy", 1, 3, 16000, 2)
    assert got.tolist() == [0.5, -1.0]


def test_damaged_files_are_named(tmp_path, ramp):
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "empty.flac").write_bytes(b"")
    soundfile.write(tmp_path / "silent.wav", [], 1000)
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("text.wav", "empty.flac", "silent.wav", "missing.wav", "empty.npy"):
        with pytest.raises(DamagedAudioError, match=name):
            read(tmp_path / name)
    with pytest.raises(DamagedAudioError, match=r"ramp\.wav: has 100 frames"):
        read(ramp, 90, 110, num_samples=20)


def test_a_truncated_flac_is_damaged(tmp_path):
    path = tmp_path / "speech.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(path, noise, 16000)
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(DamagedAudioError, match="speech.flac"):
        read_segment(path, 12000, 16000, 16000, 4000)


def test_noise_files_are_in_a_stable_order(tmp_path):
    for name in ("b.wav", "a.flac", "notes.txt"):
        (tmp_path / name).touch()
    names = [segment.path.rsplit("/", 1)[1] for segment in noise_files(tmp_path)]
    assert names == ["a.flac", "b.wav"]
    assert noise_files(None) == []


def test_an_empty_noise_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        noise_files(tmp_path)


def test_segments_unpack_into_read_segment(ramp):
    segment = Segment(ramp, 0, 2)
    assert torch.equal(read_segment(*segment, 1000, 2), torch.tensor([0, 1 / 128]))
