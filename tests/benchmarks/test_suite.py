"""One command runs all benchmarks."""

import importlib
import subprocess
from pathlib import Path

import pytest

from benchmarks import __main__ as suite

HERE = Path(suite.__file__).parent
SHARED = """
    __init__ __main__ findings flower_stock kept left loops measuring models original
    page_tables stand_ins tables transducer
"""
BY_THEMSELVES = """
    adaptation attacks bare_folder compression deployed enhancement experiments
    first_step from_scratch gpu kills live pairs peers personal pfl_research privacy
    recipes recipes_exact recognition self_training udase
"""
NO_PART = {*SHARED.split(), *BY_THEMSELVES.split()}


@pytest.fixture
def outcomes(monkeypatch):
    """Replace programs by the exit codes that a dict gives to their names."""
    codes = {}

    def run(words, **options):
        code = codes.get(words[2].removeprefix("benchmarks."), 0)
        if code is None:
            raise subprocess.TimeoutExpired(words, options["timeout"])
        return subprocess.CompletedProcess(words, code)

    monkeypatch.setattr(subprocess, "run", run)
    return codes


def test_a_benchmark_that_fails_does_not_stop_the_others(outcomes, capsys):
    outcomes |= {"networks": 1, "rounds": None}
    with pytest.raises(SystemExit) as end:
        suite.main(["--quick"])
    printed = capsys.readouterr().out
    assert end.value.code == 1
    assert "networks: failed (1)" in printed and "rounds: stopped after" in printed
    assert "data: done" in printed and "start: done" in printed


def test_all_well_ends_with_zero(outcomes):
    with pytest.raises(SystemExit) as end:
        suite.main([])
    assert not end.value.code


def test_the_limits_add_up_to_40_minutes_at_most():
    assert sum(suite.MINUTES.get(name, 5) for name in suite.WHOLE) <= 40


def test_tables_are_put_where_the_committed_ones_are():
    for name, table in suite.TABLES.items():
        assert suite.command(name, suite.parse(["--out", "o"]))[-1] == f"o/{table}"
        assert (HERE / "results" / table).exists()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", suite.WHOLE)
def test_every_command_is_understood(name, quick, monkeypatch, tmp_path):
    argv = ["--out", str(tmp_path), *(["--quick"] if quick else [])]
    words = suite.command(name, suite.parse(argv))
    module = importlib.import_module(words[2])
    module.parse(words[3:])


def test_no_benchmark_is_forgotten():
    there = {path.stem for path in HERE.glob("*.py")}
    assert there - NO_PART <= set(suite.WHOLE)
