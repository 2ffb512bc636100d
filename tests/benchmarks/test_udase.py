"""Silence stands for CHiME-5: its headers are right, and it takes no room."""

import numpy as np

from benchmarks import udase
from fedenhance.data.opening import read_header
from fedenhance.recipes.UDASE import segments
from tests.fedenhance.recipes.test_udase import data  # noqa: F401, a fixture


def test_silence_is_a_recording_of_its_length(tmp_path):
    udase.silence(tmp_path / "a.wav", 10 * 3600 * 16000, channels=2)
    assert read_header(tmp_path / "a.wav") == (10 * 3600 * 16000, 16000, 2)
    assert (tmp_path / "a.wav").stat().st_blocks < 100


def test_what_stands_in_is_cut_like_the_corpus(data, tmp_path):  # noqa: F811
    expected = [segment[1:] for segment in segments.plan(data)]
    (data / "CHiME5").rename(data / "gone")
    for path in (data / segments.TABLES).glob("*/*_P10_0.json"):
        path.unlink()
    number = udase.stand_in(data / segments.TABLES, data / "CHiME5/audio")
    assert number == 4
    found = [segment[1:] for segment in segments.plan(data)]
    assert np.array_equal(found, expected)
