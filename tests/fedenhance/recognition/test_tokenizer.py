"""The tokenizer travels with the weights."""

import pytest
import torch

from fedenhance.recognition.tokenizer import Tokenizer, train_tokenizer
from tests.fedenhance.recognition.conftest import LINES


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


def test_the_buffer_keeps_its_type():
    state = Tokenizer(vocab_size=4).state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "content": torch.uint8
    }
