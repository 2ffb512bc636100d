"""Rows that were measured are kept, whoever else writes."""

from benchmarks.kept import Kept
from fedenhance.data.tables import read_table


def test_rows_of_a_table_that_is_there_are_kept_and_known(tmp_path):
    path = tmp_path / "all.csv"
    for value in (1.23456, 2.0):
        kept = Kept(path, ["seed"])
        if kept.lacks(int(value)):
            kept.add({"seed": int(value), "value": value})
    assert path.read_text() == "seed,value\n1,1.235\n2,2\n"
    kept = Kept(path, ["seed"])
    assert not kept.lacks(1) and not kept.lacks(2) and kept.lacks(3)
    assert Kept(path, ["seed"], restart=True).lacks(1)
    assert kept.lacks(0.0)
    kept.add({"seed": 0.0, "value": 0.5})  # written as 0
    assert not Kept(path, ["seed"]).lacks(0.0)


def test_two_that_measure_at_once_keep_the_rows_of_both(tmp_path):
    path = tmp_path / "a.csv"
    Kept(path, ["seed"]).add({"seed": 0, "code": "old"})
    one, other = (Kept(path, ["seed"], code="new") for _ in range(2))
    one.add({"seed": 1, "code": "new", "note": None})
    other.add({"seed": 2, "code": "new"})
    one.add({"seed": 3, "code": "new"})
    assert [row["seed"] for row in read_table(path)] == ["1", "2", "3"]
