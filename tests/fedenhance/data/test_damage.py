"""Damage is named, whoever reads; what is only unusual is read."""

import pickle

import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader

from fedenhance.data.audio import Segment, read_segment, seconds_of
from fedenhance.data.datasets import collate, evaluation_set, training_set
from fedenhance.data.mixing import MixtureOfMixtures, fixed_mixtures
from fedenhance.data.opening import DamagedAudioError, open_audio, read_header
from tests import damage
from tests.damage import RATE


def read(path, num_samples=8000, **options):
    return read_segment(path, 0, 0, RATE, num_samples, **options)


@pytest.mark.parametrize("name", damage.DAMAGED | damage.ARRAYS)
def test_a_damaged_file_is_named(name, tmp_path):
    (path,) = damage.write(tmp_path, [name])
    with pytest.raises(DamagedAudioError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).count(name) == 1, "it is named once"
    assert "None" not in error.value.reason
    # As it comes from a reading process.
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_file_that_does_not_know_its_length_is_read_to_its_end(tmp_path):
    wave = damage.noise(2.0)
    soundfile.write(tmp_path / "known.flac", wave, RATE)
    path = damage.stream(tmp_path / "stream.flac", wave)
    for position in (0, 0.3, 1):
        expected = read(tmp_path / "known.flac", position=position)
        assert torch.equal(read(path, position=position), expected)
    assert read_header(path) == (32000, RATE, 1) and seconds_of(path, 0, 0) == 2.0
    with pytest.raises(DamagedAudioError, match="has 32000 frames"):
        read_segment(path, 0, 40000, RATE, 8000)


def test_a_recorder_that_writes_a_pipe_leaves_a_size_that_is_none(tmp_path):
    path = tmp_path / "pipe.wav"
    data = damage.save(path)
    data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    with open_audio(path) as file:
        assert file.frames == 8000


def test_audio_of_any_sound_kind_is_not_damaged(tmp_path):
    for suffix, subtype in damage.KINDS:
        if suffix != "npy":
            path = tmp_path / f"{subtype}.{suffix}"
            damage.save(path, subtype=subtype)
            read(path)


def recording(path):
    return {
        "spk_id": "p",
        "duration": 0.5,
        "speech": None,
        "noise": None,
        "noisy": Segment(str(path), 0, 0),
        "client": "7",
        "group": "unsupervised",
    }


@pytest.fixture
def folder(tmp_path):
    """One sound file among all kinds of damage."""
    damage.write(tmp_path)
    damage.save(tmp_path / "sound.wav")
    return tmp_path


MIXING = MixtureOfMixtures(sample_rate=RATE, segment=0.5)


def test_damaged_recordings_are_skipped_and_counted(folder, caplog):
    paths = sorted(folder.iterdir())
    rows = {path.name: recording(path) for path in paths}
    rows["alone"] = recording("") | {
        "noisy": None,
        "noise": Segment(str(folder / "sound.wav"), 0, 0),
    }
    data = training_set(rows, MIXING)
    mixtures = fixed_mixtures(rows, MIXING)
    for dataset in (data, evaluation_set(mixtures, RATE)):
        loader = make_dataloader(dataset, batch_size=4, collate_fn=collate)
        batches = list(loader)
        read = [key for batch in batches for key in batch.id]
        skipped = [key for batch in batches for key in batch.skipped]
        assert [key.removesuffix("-2") for key in read] == ["sound.wav"]
        assert len(skipped) == len(paths) - 1
    for path in paths:
        assert path.name == "sound.wav" or str(path) in caplog.text


@pytest.mark.parametrize("snr_range", [None, (0, 5)])
def test_damaged_noises_of_a_folder_are_passed_over(folder, snr_range, caplog):
    rows = {f"r{i}": recording(folder / "sound.wav") for i in range(20)}
    mixing = MixtureOfMixtures(sample_rate=RATE, segment=0.5, snr_range=snr_range)
    names = [*damage.DAMAGED, *["sound.wav"] * 20]
    noises = [Segment(str(folder / name), 0, 0) for name in names]
    mixtures = fixed_mixtures(rows, mixing, noises=noises)
    assert {row["extra"].path for row in mixtures.values()} == {noises[-1].path}
    assert "a noise is passed over" in caplog.text
    data = training_set(rows, mixing, folder)
    assert sum(item["sources"] is not None for item in data) >= 5
    with pytest.raises(ValueError, match="no isolated noises to add"):
        fixed_mixtures(rows, mixing, noises=noises[:3])


def test_recordings_of_unequal_length_are_evaluated_each_at_its_own(tmp_path):
    lengths = [4000, 8000, 4000]
    mixtures = {}
    for i, length in enumerate(lengths):
        damage.save(tmp_path / f"{i}.wav", damage.noise(length / RATE, seed=i))
        segment = Segment(str(tmp_path / f"{i}.wav"), 0, 0)
        mixtures[str(i)] = {
            **recording(""),
            **{"duration": length / RATE, "noisy": segment, "extra": segment},
            **{"n_noises": 2, "noise_class": ""},
        }
    batch = collate(list(evaluation_set(mixtures, RATE)))
    assert len(batch) == 3 and batch.id == ["0", "2", "1"] and batch.skipped == []
    shapes = [part.sources.data.shape for part in batch.to("cpu").parts]
    assert shapes == [(2, 3, 4000), (1, 3, 8000)]
