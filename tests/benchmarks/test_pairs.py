"""Two experiments in one folder leave the one or the other, never a mixture."""

import shutil

import pytest

from benchmarks import pairs
from fedenhance.data.tables import read_table
from tests.conftest import RATE


@pytest.fixture
def tried(tiny_corpus, tmp_path, monkeypatch):
    """Try some pairs on the tiny corpus; return the exit code and the table."""
    small = {"prepare": "null", "sample_rate": RATE, "batch_size": 2}
    for key, value in {**small, "local_epoch_p": 1}.items():
        monkeypatch.setitem(pairs.COMMON, key, value)
    for key, values in {"batch_size": [2, 1], "local_epoch_p": [1, 2]}.items():
        monkeypatch.setitem(pairs.CHOICES, key, values)
    (tmp_path / "work").mkdir()
    shutil.copytree(tiny_corpus, tmp_path / "work/manifests")

    def run(number):
        words = ["--pairs", number, "--out", tmp_path / "pairs.csv"]
        words += ["--work", tmp_path / "work", "--data_folder", tiny_corpus]
        with pytest.raises(SystemExit) as end:
            pairs.main([str(word) for word in words])
        return end.value.code, read_table(tmp_path / "pairs.csv")

    return run


def test_pairs_are_refused_or_go_on_as_if_alone(tried):
    code, rows = tried(4)
    assert code == 0
    assert {row["outcome"] for row in rows} == {"refused", "the second's"}
    assert {row["interrupted"] != "" for row in rows} == {True, False}


def test_a_mixture_is_found(tried, monkeypatch):
    """Of a resume that does not look at what the folder holds."""
    monkeypatch.setattr("fedenhance.run_folder.record.check", lambda *_: None)
    seeds = iter([1, 2])
    monkeypatch.setattr(pairs, "draw", lambda _: {"seed": next(seeds)})
    code, rows = tried(1)
    assert code == 1
    assert rows[0]["outcome"].startswith("mixed: ")
