"""What the benchmarks share measures what it says."""

import csv
import os
import pickle
import time

import pytest
import torch

from benchmarks import measuring

MODULES = ["__main__", "gpu", "measuring", "loops", "rounds", "start"]


def take(megabytes):
    """Fill memory, for long enough to be seen."""
    held = torch.ones(megabytes * 2**18)
    time.sleep(0.5)
    del held


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


def test_the_first_turns_warm_up():
    ticks = iter([0, 9, 10, 11, 20, 23])  # calls of 9, 1 and 3
    found = measuring.median_seconds(
        {"call": lambda: None}, 2, lambda: next(ticks), warm_up=1
    )
    assert found == {"call": 2}


def test_a_section_gives_the_rows_that_it_returns(tmp_path):
    sections = {"some": lambda *_: [{"a": 1}], "none": lambda *_: None}
    argv = ["--out", str(tmp_path), "--quick"]
    args = measuring.parse(measuring.parser("doc", sections), argv, sections)
    assert measuring.run_sections(args, sections) == [{"a": 1}]
    assert pickle.loads(pickle.dumps(args)) == args  # for fresh processes


def test_a_trial_takes_its_own_options():
    made = measuring.parser("doc")
    assert measuring.parse(made, ["--quick"], quick={"threads": 7}).threads == 7
    assert measuring.parse(made, [], quick={"threads": 7}).threads == 1


@pytest.mark.skipif(not measuring.family_memory(os.getpid()), reason="needs Linux")
def test_peak_memory_is_what_a_call_adds():
    peak = measuring.peak_memory(take, 200)
    assert 180 <= peak < 260
