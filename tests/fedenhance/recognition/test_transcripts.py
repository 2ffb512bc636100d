"""The tokenizer travels with the weights; what cannot be learnt from is left out."""

import logging

import pytest
import soundfile
import torch

from fedenhance.recognition import transcripts
from fedenhance.recognition.transcripts import Tokenizer, train_tokenizer

LINES = ["THE FOX SLEPT", "A QUIET RIVER", "THE BAKER SANG AT NOON"] * 5


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n\n")
    return str(path)


@pytest.fixture
def tokenizer(text):
    made = Tokenizer(vocab_size=40, text=text)
    made.prepare()
    return made


def rows(folder, **words):
    """A second of silence for each transcript."""
    soundfile.write(folder / "one.wav", [0.0] * 8000, 8000)
    row = {"wav": str(folder / "one.wav"), "duration": 1.0, "spk_id": "a"}
    return {key: {**row, "wrd": value} for key, value in words.items()}


def items(folder, tokenizer, shift=0.01, **words):
    return transcripts.transcribed_set(rows(folder, **words), tokenizer, 8000, shift)


def test_words_survive_the_tokenizer(tokenizer):
    assert tokenizer.decode([tokenizer.encode(LINES[0])]) == [LINES[0].split()]


def test_the_same_text_gives_the_same_bytes():
    assert train_tokenizer(LINES, 40) == train_tokenizer(LINES, 40)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_no_more_tokens_than_outputs(kind, text):
    made = Tokenizer(vocab_size=30, text=text, model_type=kind)
    made.prepare()
    assert max(made.encode(" ".join(LINES))) < made.pieces.vocab_size() <= 30


def test_an_output_without_a_token_is_no_word(tokenizer):
    ids = tokenizer.encode("A FOX")
    beyond = tokenizer.pieces.vocab_size()
    assert tokenizer.decode([[0, *ids, beyond]]) == [["A", "FOX"]]


def test_the_tokenizer_comes_with_the_weights(tokenizer):
    client = Tokenizer(vocab_size=40)
    client.prepare()
    client.load_state_dict(tokenizer.state_dict())
    client.refresh()
    assert client.digest == tokenizer.digest
    assert client.encode(LINES[1]) == tokenizer.encode(LINES[1])


def test_what_came_with_the_weights_is_not_trained_over(tokenizer, tmp_path):
    (tmp_path / "other.txt").write_text("SOME OTHER TEXT\n" * 5)
    client = Tokenizer(vocab_size=40, text=str(tmp_path / "other.txt"))
    client.load_state_dict(tokenizer.state_dict())
    client.prepare()
    client.refresh()
    assert client.digest == tokenizer.digest


def test_a_tokenizer_that_differs_is_refused(tokenizer, tmp_path):
    own = tmp_path / "own.model"
    own.write_bytes(train_tokenizer(["SOME OTHER TEXT"] * 5, 40))
    client = Tokenizer(vocab_size=40, file=str(own))
    client.prepare()
    client.load_state_dict(tokenizer.state_dict())
    with pytest.raises(ValueError, match=rf"own\.model.*{tokenizer.digest[:12]}"):
        client.refresh()


def test_the_same_file_is_accepted(tokenizer, text, tmp_path):
    Tokenizer(vocab_size=40, text=text).prepare(tmp_path / "save")
    client = Tokenizer(vocab_size=40, file=str(tmp_path / "save" / "tokenizer.model"))
    client.prepare()
    client.load_state_dict(tokenizer.state_dict())
    client.refresh()


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"file": "/none.model"}, "/none.model"),
        ({"text": "/none.txt"}, "/none.txt"),
        ({"vocab_size": 5, "text": True}, "output_neurons"),
        ({"capacity": 100, "text": True}, "tokenizer_capacity"),
    ],
)
def test_bad_input_names_the_culprit(arguments, culprit, text):
    if "text" in arguments and arguments["text"] is True:
        arguments = {**arguments, "text": text}
    with pytest.raises(ValueError, match=culprit):
        Tokenizer(**{"vocab_size": 40, **arguments}).prepare()


def test_a_file_that_is_no_tokenizer_is_refused(text):
    with pytest.raises(ValueError, match="no SentencePiece model"):
        Tokenizer(vocab_size=40, file=text).prepare()


def test_too_many_tokens_for_the_network_are_refused(tmp_path):
    (tmp_path / "big.model").write_bytes(train_tokenizer(LINES, 40))
    with pytest.raises(ValueError, match="output_neurons"):
        Tokenizer(vocab_size=20, file=str(tmp_path / "big.model")).prepare()


def test_nobody_without_a_tokenizer_trains():
    with pytest.raises(ValueError, match="tokenizer_text"):
        Tokenizer(vocab_size=40).refresh()


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


def test_audio_is_resampled(tokenizer, tmp_path):
    dataset = transcripts.transcribed_set(
        rows(tmp_path, a="A"), tokenizer, sample_rate=16000, frame_shift=0.01
    )
    assert dataset[0]["sig"].shape == (16000,)


def test_empty_transcripts_are_counted(tmp_path, caplog):
    path = tmp_path / "m.csv"
    lines = ["ID,duration,wav,spk_id,wrd", "a,1,a.wav,x,FOX", "b,1,b.wav,x, "]
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert list(transcripts.load_transcripts(path, ".")) == ["a"]
    assert "1 empty transcripts" in caplog.text


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ("ID,duration,wav\na,1,a.wav", "wrd"),
        ("ID,duration,wav,wrd\na,,a.wav,FOX", "needs ID and duration"),
        ("ID,duration,wav,wrd\na,1,a.wav,", "no transcripts"),
    ],
)
def test_a_bad_manifest_is_named(content, culprit, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"m\.csv.*{culprit}"):
        transcripts.load_transcripts(path, ".")


def test_the_buffer_keeps_its_type():
    state = Tokenizer(vocab_size=4).state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "content": torch.uint8
    }
