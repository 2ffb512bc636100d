"""Tables are read as they were written, and no file is ever seen half written."""

import json

import pytest

from fedenhance.data.tables import read_table, whole_file, write_json, write_table


def test_rows_come_back_as_text(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    write_table(path, [{"a": 1.5, "b": "x, y"}, {"a": None, "c": "ü"}])
    assert path.read_bytes().decode() == 'a,b,c\n1.5,"x, y",\n,,ü\n'
    assert read_table(path) == [
        {"a": "1.5", "b": "x, y", "c": ""},
        {"a": "", "b": "", "c": "ü"},
    ]


def test_named_columns_alone_are_written_even_without_rows(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [{"a": 1, "_b": 2}], ["c", "a"])
    assert path.read_text() == "c,a\n,1\n"
    write_table(path, [], ["c", "a"])
    assert path.read_text() == "c,a\n" and read_table(path, ["a"]) == []


def test_lacking_columns_are_named(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("\ufeffa\tb\n1\t2\n", encoding="utf-8")
    assert read_table(path, ("a", "b"), delimiter="\t") == [{"a": "1", "b": "2"}]
    with pytest.raises(ValueError, match=r"table.tsv lacks the columns \['c'\]"):
        read_table(path, ("a", "c"), delimiter="\t")


def test_json_is_sorted_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "record.json", {"b": 1, "a": [2]})
    text = (tmp_path / "record.json").read_text()
    assert json.loads(text) == {"a": [2], "b": 1}
    assert text.startswith('{\n "a"') and text.endswith("}\n")


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "folder" / "sound.wav"
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert partial.suffix == ".wav" and not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_old_file_remains_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, rows())
    with pytest.raises(OSError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("full")
    assert path.read_text() == "a\n1\n" and list(tmp_path.iterdir()) == [path]


def test_text_of_strangers_is_no_formula(tmp_path):
    rows = [
        {"name": "=cmd|' /C calc'!A0", "value": "-5 to 0"},
        {"name": "'s", "value": -1},
    ]
    write_table(tmp_path / "a.csv", rows)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[1:] == ["'=cmd|' /C calc'!A0,-5 to 0", "'s,-1"]
    read = read_table(tmp_path / "a.csv")
    assert [row["name"] for row in read] == [row["name"] for row in rows]
