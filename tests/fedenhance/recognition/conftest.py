"""A text to make a tokenizer of."""

import pytest

from fedenhance.recognition.tokenizer import Tokenizer

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
