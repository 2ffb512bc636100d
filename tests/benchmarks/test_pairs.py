"""Two experiments in one folder leave the one or the other, never a mixture."""

import shutil
import subprocess
import sys

import pytest

from fedenhance.data.tables import read_table
from tests.conftest import RATE

SMALL = f"""
from benchmarks import pairs
from fedenhance.run_folder import record
pairs.COMMON |= {{"prepare": "null", "sample_rate": {RATE}, "local_epoch_p": 1}}
pairs.COMMON["batch_size"] = 2
pairs.CHOICES |= {{"batch_size": [2, 1], "local_epoch_p": [1, 2]}}
"""


@pytest.fixture
def tried(tiny_corpus, tmp_path):
    """Try some pairs on the tiny corpus; return the exit code and the table.

    In a process of its own: what interrupts a training stays in one for good.
    """
    (tmp_path / "work").mkdir()
    shutil.copytree(tiny_corpus, tmp_path / "work/manifests")

    def run(number, *changes):
        words = ["--pairs", str(number), "--out", str(tmp_path / "pairs.csv")]
        words += ["--work", str(tmp_path / "work"), "--data_folder", str(tiny_corpus)]
        code = "\n".join([SMALL, *changes, f"pairs.main({words!r})"])
        done = subprocess.run([sys.executable, "-c", code], timeout=250)
        return done.returncode, read_table(tmp_path / "pairs.csv")

    return run


def test_pairs_are_refused_or_go_on_as_if_alone(tried):
    code, rows = tried(4)
    assert code == 0
    assert {row["outcome"] for row in rows} == {"refused", "the second's"}
    assert {row["interrupted"] != "" for row in rows} == {True, False}


def test_a_mixture_is_found(tried):
    """Of a resume that does not look at what the folder holds."""
    code, rows = tried(
        1,
        "record.check = lambda *_: None",
        "seeds = iter([1, 2])",
        "pairs.draw = lambda _: {'seed': next(seeds)}",
    )
    assert code == 1
    assert rows[0]["outcome"].startswith("mixed: ")
