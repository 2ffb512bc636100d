"""Laws of the WHAM recipe."""

import csv

import pytest

from fedenhance.recipes.LibriFSD50K.corpora import LayoutError
from fedenhance.recipes.WHAM import prepare
from tests.fedenhance.recipes.conftest import write

NOISES = {
    "tr": ("40na010x_1.9857_01xo031a_-1.9857", "40na010x_0.5_02ao0301_-0.5"),
    "cv": ("40nc020a_0.1_01xo031a_-0.1",),
    "tt": ("050a0501_0.2_440o0301_-0.2", "999a0101_1_050a0501_-1"),
}


@pytest.fixture
def wham(tmp_path):
    for folder, names in NOISES.items():
        for name in names:
            write(tmp_path / f"wham_noise/{folder}/{name}.wav", 9.0, 16000, channels=2)
    for name in (
        "si_tr_s/40n/40na010x",
        "si_tr_s/40n/40nc020a",
        "si_dt_05/050/050a0501",
    ):
        write(tmp_path / f"wsj0/{name}.wav", 8.5, 16000)
    return tmp_path


def rows(folder, split):
    with open(folder / f"{split}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_noises_meet_the_first_speaker_of_their_names(wham, tmp_path):
    prepare.prepare(wham, tmp_path / "m")
    train = rows(tmp_path / "m", "train")
    assert len(train) == 4  # two mixtures of two whole chunks
    assert len({row["ID"] for row in train}) == 4
    for split in ("train", "valid", "test"):
        for row in rows(tmp_path / "m", split):
            assert row["noise_id"].split("_")[0] in row["speech"]
            assert row["spk_id"] == row["noise_id"][:3]


def test_utterances_that_are_not_there_are_named(wham, tmp_path):
    record = prepare.prepare(wham, tmp_path / "m")
    (row,) = rows(tmp_path / "m", "skipped")
    assert row["reason"] == "no utterance 999a0101 in wsj0"
    assert record["counts"]["test"]["utterances"] == 1


def test_librispeech_takes_the_place_of_wsj0(wham, tmp_path):
    for subset, speaker in (
        ("train-clean-100", 19),
        ("dev-clean", 84),
        ("test-clean", 61),
    ):
        for number in range(3):
            name = f"LibriSpeech/{subset}/{speaker}/7/{speaker}-7-{number:04d}.flac"
            write(wham / name, 9.0, 16000)
    prepare.prepare(wham, tmp_path / "a", speech="librispeech")
    prepare.prepare(wham, tmp_path / "b", speech="librispeech", storage="packed")
    counts = [len(rows(tmp_path / "a", s)) for s in ("train", "valid", "test")]
    assert counts == [4, 2, 4]  # two chunks of each noise
    assert {row["spk_id"] for row in rows(tmp_path / "a", "train")} == {"19"}
    assert rows(tmp_path / "b", "train")[0]["speech"].endswith("train_speech.npy")


def test_what_is_missing_is_named(wham, tmp_path):
    with pytest.raises(LayoutError, match="has no LibriSpeech; expected"):
        prepare.prepare(wham, tmp_path / "m", speech="librispeech")
    with pytest.raises(ValueError, match="speech must be one of wsj0, librispeech"):
        prepare.prepare(wham, tmp_path / "m", speech="timit")


def test_changed_audio_is_prepared_again(wham, tmp_path):
    before = prepare.prepare(wham, tmp_path / "m")
    assert prepare.prepare(wham, tmp_path / "m") == before
    write(wham / "wsj0/si_tr_s/40n/40na010x.wav", 4.5, 16000)
    after = prepare.prepare(wham, tmp_path / "m")
    assert after["counts"]["train"]["chunks"] < before["counts"]["train"]["chunks"]
