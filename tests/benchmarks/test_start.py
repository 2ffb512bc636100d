"""The start is timed, and a start that fails is no start."""

import argparse
import sys

import pytest

from benchmarks import start


def test_the_command_names_the_corpus_and_the_network():
    args = argparse.Namespace(data_folder="data/d", model="gtcrn")
    words = start.command(args, "out")
    assert words[words.index("--data_folder") + 1] == "data/d"
    assert words[words.index("--models") + 1] == "!include:models/gtcrn.yaml"


def test_the_last_line_that_a_program_prints_has_its_marks():
    seconds, marks = start.timed([sys.executable, "-c", "print('x'); print('[1]')"])
    assert marks == [1] and 0 < seconds < 600


def test_what_is_timed_beside_it_runs(tmp_path):
    for words in start.others(tmp_path).values():
        assert start.timed([sys.executable, *words], marks=False)[0] > 0
    assert (tmp_path / "clean" / "noisy.wav").exists()


def test_what_failed_is_said_with_its_reason():
    with pytest.raises(RuntimeError, match="no luck"):
        start.timed([sys.executable, "-c", "raise SystemExit('no luck')"])
