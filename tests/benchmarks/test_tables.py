"""What pages say is what the CSVs hold."""

from itertools import chain

import pytest

from benchmarks import page_tables, tables
from benchmarks.tables import ROOT, Claim, Table


def test_pages_and_csvs_cannot_disagree():
    """The results page, the README's table, those of docs/, and quoted sentences."""
    for name, text in tables.pages(tables.claims(), page_tables.TABLES).items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, (
            f"{name}: run python -m benchmarks.tables"
        )
    assert tables.untrue(tables.claims()) == []


def test_what_a_claim_calls_is_there():
    for claim in chain(*tables.claims().values()):
        name = claim.command.split()[0]
        path = ROOT / name if "." in name else ROOT / "benchmarks" / f"{name}.py"
        assert path.exists(), claim.what


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "costs.csv").write_text("code,seconds,machine\nours,2,A\nbare,4,B\n")
    (tmp_path / "README.md").write_text(
        "It takes\n0.50 of the time.\n<!-- table costs -->\n<!-- end -->\nMore.\n"
    )
    return tmp_path


def cost(**options):
    given = {
        "what": "seconds",
        "csv": "costs.csv",
        "command": "costs",
        "rows": [{"code": "ours"}, {"code": "bare"}],
        "columns": ["seconds"],
        "ratio": True,
        "bar": "<= 0.45",
        "quoted": {"README.md": "It takes {:.2f} of the time"},
    }
    return Claim(**given | options)


def test_a_row_has_value_verdict_and_machine_and_what_is_missing_is_said(root):
    page = tables.page({"Costs": [cost(), cost(csv="lost.csv")]}, root)
    row = "| seconds | 0.50 | <= 0.45: missed | 1 | `costs.csv` | `costs` |"
    assert row in page and "1. A\n" in page
    assert "| seconds | not measured | <= 0.45 |  |  | `costs` |" in page


def test_a_sentence_with_another_number_is_found(root):
    assert tables.untrue({"Costs": [cost()]}, root) == []
    (root / "README.md").write_text("It takes 0.40 of the time.")
    (wrong,) = tables.untrue({"Costs": [cost()]}, root)
    assert wrong == "README.md should say: It takes 0.50 of the time"


def test_a_table_is_written_between_its_marks_again_and_again(root):
    def make(rows):
        return tables.cells(rows, ["code", "s"], ["code", ("seconds", "{:.1f}")])

    table = {"costs": Table("README.md", "costs.csv", make)}
    for _ in range(2):
        text = tables.pages({}, table, root)["README.md"]
        assert "-->\n\n| code | s |\n|---|---|\n| ours | 2.0 |" in text
        assert text.endswith("| bare | 4.0 |\n\n<!-- end -->\nMore.\n")
        (root / "README.md").write_text(text)
    table = {"costs": Table("README.md", "lost.csv", make)}
    assert "-->\n\nnot measured\n\n<!--" in tables.pages({}, table, root)["README.md"]
    with pytest.raises(ValueError, match="has 0 places for the table other"):
        tables.pages({}, {"other": Table("README.md", "costs.csv", make)}, root)


def test_rows_are_counted_or_averaged(root):
    counted = cost(rows=[{"code": "o*"}, {}], columns=[], ratio=False)
    assert counted.read(root) == ([1, 2], "A")
    mean = cost(rows=[{}], columns=["seconds"], ratio=False)
    assert mean.read(root) == ([3.0], "A")
    assert cost(rows=[{"code": "none"}]).read(root) == ([], "")


def test_the_command_says_what_differs(root, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", root)
    monkeypatch.setattr(
        tables, "pages", lambda *_: {"README.md": "It takes 0.50 of the time"}
    )
    monkeypatch.setattr(tables, "untrue", lambda *_: [])
    with pytest.raises(SystemExit) as end:
        tables.main(["--check"])
    assert end.value.code == 1 and "README.md is not what" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        tables.main([])
    assert end.value.code == 0
    assert (root / "README.md").read_text() == "It takes 0.50 of the time"
