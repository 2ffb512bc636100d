"""What cannot be learnt from is left out, and counted."""

import logging
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import soundfile
import torch

from fedenhance.recognition import transcripts
from tests.fedenhance.recognition.conftest import LINES


def rows(folder, **words):
    """A second of silence for each transcript."""
    soundfile.write(folder / "one.wav", [0.0] * 8000, 8000)
    row = {"wav": str(folder / "one.wav"), "duration": 1.0, "spk_id": "a"}
    return {key: {**row, "wrd": value} for key, value in words.items()}


def items(folder, tokenizer, shift=0.01, **words):
    return transcripts.transcribed_set(rows(folder, **words), tokenizer, 8000, shift)


def test_an_unknown_character_is_left_out_of_training_alone(tokenizer, tmp_path):
    dataset = items(tmp_path, tokenizer, good="A FOX", bad="A FÖX")
    examples = [dataset[0], dataset[1]]
    batch = transcripts.collate_for_training(examples)
    assert (batch.id, batch.skipped) == (["good"], ["bad"])
    assert "'Ö'" in examples[1]["fault"]
    assert transcripts.collate(examples).id == ["good", "bad"]
    assert 0 not in examples[1]["tokens"]


def test_audio_shorter_than_its_label_is_left_out_of_training(tokenizer, tmp_path):
    dataset = items(tmp_path, tokenizer, shift=0.1, good="A", long=" ".join(LINES[:3]))
    batch = transcripts.collate_for_training([dataset[0], dataset[1]])
    assert (batch.id, batch.skipped) == (["good"], ["long"])
    assert "too short" in dataset[1]["fault"]


def test_nothing_is_lost_when_nothing_can_be_learnt(tokenizer, tmp_path):
    dataset = items(tmp_path, tokenizer, bad="Ö")
    batch = transcripts.collate_for_training([dataset[0]])
    assert (len(batch), batch.id, batch.skipped) == (0, [], ["bad"])


def test_damaged_audio_is_left_out(tokenizer, tmp_path):
    dataset = items(tmp_path, tokenizer, good="A", bad="FOX")
    (tmp_path / "broken.wav").write_text("no audio")
    dataset.data["bad"]["wav"] = str(tmp_path / "broken.wav")
    batch = transcripts.collate([dataset[0], dataset[1]])
    assert (batch.id, batch.skipped) == (["good"], ["bad"])


def test_processes_of_any_kind_read_and_encode(tokenizer, tmp_path):
    dataset = items(tmp_path, tokenizer, good="A FOX", bad="Ö")
    there = pickle.loads(ForkingPickler.dumps(dataset))
    for index in (0, 1):
        expected, item = dataset[index], there[index]
        for key in ("sig", "tokens"):
            assert torch.equal(item.pop(key), expected.pop(key))
        assert item == expected


def test_audio_is_resampled(tokenizer, tmp_path):
    dataset = transcripts.transcribed_set(
        rows(tmp_path, a="A"), tokenizer, sample_rate=16000, frame_shift=0.01
    )
    assert dataset[0]["sig"].shape == (16000,)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Of a manifest, beside recordings that it may name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    return tmp_path / "m.csv"


def test_empty_transcripts_are_counted(path, caplog):
    lines = ["ID,duration,wav,spk_id,wrd", "a,1,a.wav,x,FOX", "b,1,b.wav,x, "]
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert list(transcripts.load_transcripts(path, ".")) == ["a"]
    assert "1 empty transcripts" in caplog.text


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ("ID,duration,wav\na,1,a.wav", "wrd"),
        ("ID,duration,wav,wrd\na,x,a.wav,FOX", "line 2, column duration: 'x'"),
        ("ID,duration,wav,wrd\na,1,a.wav,", "no transcripts"),
    ],
)
def test_a_bad_manifest_is_named(content, culprit, path):
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"m\.csv.*{culprit}"):
        transcripts.load_transcripts(path, ".")
