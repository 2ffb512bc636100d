"""What the benchmarks share measures what it says."""

import csv
import doctest
import importlib
import time

import pytest
import torch

from benchmarks import measuring

MODULES = ["__main__", "gpu", "measuring", "loops", "rounds", "scale", "profiling"]


def take(megabytes):
    """Fill memory, for long enough to be seen."""
    held = torch.ones(megabytes * 2**18)
    time.sleep(0.5)
    del held


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name):
    module = importlib.import_module(f"benchmarks.{name}")
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


def test_cost_in_proportion_has_exponent_one_and_constant_cost_zero():
    assert measuring.fit([1, 10, 100], [2, 20, 200])["exponent"] == pytest.approx(1)
    assert measuring.fit([1, 10, 100], [2, 2, 2])["exponent"] == pytest.approx(0)


def test_calls_take_turns():
    order = []
    calls = {name: lambda n=name: order.append(n) for name in "ab"}
    measuring.alternate(calls, repeats=2)
    assert order == ["a", "b", "a", "b"]


def test_a_table_on_disk_names_the_machine(tmp_path, capsys):
    args = measuring.parser("doc").parse_args(["--out", str(tmp_path)])
    measuring.report(args, "costs", [{"code": "bare", "seconds": 0.5}, {"code": "x"}])
    assert "bare      0.5" in capsys.readouterr().out
    with open(tmp_path / "costs.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["seconds"] == "0.5" and second["seconds"] == ""
    assert "threads: 1, cpu clock, PyTorch" in first["machine"]


@pytest.mark.skipif(not measuring.anonymous_memory("self")[0], reason="needs Linux")
def test_peak_memory_is_what_a_call_adds():
    peak = measuring.peak_memory(take, 200)
    assert 180 <= peak < 260
