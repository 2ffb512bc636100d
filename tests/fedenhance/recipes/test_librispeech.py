"""From LibriSpeech's folders and transcripts to manifests."""

import pytest

from fedenhance.data.tables import read_table
from fedenhance.recipes import preparation, transcribed
from fedenhance.recipes.LibriSpeech.ASR import prepare as librispeech
from tests.fedenhance.recipes.conftest import write


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "data"
    for subset, speaker in (
        ("train-clean-100", 19),
        ("train-clean-360", 103),
        ("dev-clean", 84),
        ("test-clean", 61),
    ):
        folder = root / "LibriSpeech" / subset / str(speaker) / "7"
        names = [f"{speaker}-7-{number:04d}" for number in range(2)]
        for name in names:
            write(folder / f"{name}.flac", 1.0, 16000)
        lines = [f"{name} THE FOX SLEPT" for name in names]
        (folder / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return root


def test_each_utterance_becomes_a_row(corpus, tmp_path):
    record = librispeech.prepare(corpus, tmp_path / "out")
    assert {k: c["utterances"] for k, c in record["counts"].items()} == {
        "train": 2,
        "valid": 2,
        "test": 2,
    }
    row = read_table(tmp_path / "out/train.csv")[0]
    place = "LibriSpeech/train-clean-100/19/7/19-7-0000.flac"
    assert row == {
        "ID": "19-7-0000",
        "duration": "1.0",
        "wav": f"$data_root/{place}",
        "spk_id": "19",
        "wrd": "THE FOX SLEPT",
    }


def test_subsets_add_up(corpus, tmp_path):
    subsets = ["train-clean-100", "train-clean-360"]
    librispeech.prepare(corpus, tmp_path / "out", train=subsets, clients=2)
    assert {r["spk_id"] for r in read_table(tmp_path / "out/train.csv")} == {
        "19",
        "103",
    }
    assert {r["spk_id"] for r in read_table(tmp_path / "out/client1.csv")} == {"103"}


def test_an_utterance_without_words_or_sound_is_named(corpus, tmp_path):
    folder = corpus / "LibriSpeech/train-clean-100/19/7"
    (folder / "19-7.trans.txt").write_text("19-7-0000 A FOX\n19-7-0009 A DOG\n")
    librispeech.prepare(corpus, tmp_path / "out")
    skipped = {
        row["path"]: row["reason"] for row in read_table(tmp_path / "out/skipped.csv")
    }
    assert skipped == {
        "19-7-0009": "missing file",
        "LibriSpeech/train-clean-100/19/7/19-7-0001.flac": "no transcript",
    }


def test_a_missing_subset_is_named(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="train-other-500"):
        librispeech.prepare(corpus, tmp_path / "out", train=["train-other-500"])


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="LibriSpeech"):
        librispeech.prepare(tmp_path, tmp_path / "out")


def test_the_command_line(corpus, tmp_path):
    options = ["--clients", "1", "--train", "train-clean-100", "train-clean-360"]
    folders = [str(corpus), str(tmp_path / "out")]
    preparation.main(librispeech.prepare, transcribed.prepare, [*folders, *options])
    assert len(read_table(tmp_path / "out/client0.csv")) == 4


def test_changed_audio_is_prepared_again(corpus, tmp_path):
    before = librispeech.prepare(corpus, tmp_path / "out")
    assert librispeech.prepare(corpus, tmp_path / "out") == before
    chapter = corpus / "LibriSpeech/train-clean-100/19/7"
    write(chapter / "19-7-0000.flac", 2.0, 16000)
    after = librispeech.prepare(corpus, tmp_path / "out")
    assert after["counts"]["train"]["hours"] > before["counts"]["train"]["hours"]
