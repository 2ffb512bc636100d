"""The benchmark names objectives that exist and averages over seeds."""

import importlib

import pytest
from hyperpyyaml import load_hyperpyyaml

from benchmarks.objectives import RUNS, parse, tabulate


def test_mean_and_deviation_over_seeds_by_hand():
    rows = [
        {"objective": "mixit", "seed": seed, "si_sdri": value}
        | {"si_sdri_1": 1.0, "si_sdri_2": -value}
        for seed, value in enumerate((1.0, 3.0))
    ]
    # Mean 2, standard deviation sqrt(2).
    assert "| mixit | 2 | 2.00 ± 1.41 | 1.00 ± 0.00 | -2.00 ± 1.41 |" in tabulate(rows)


@pytest.mark.parametrize("name", RUNS)
def test_every_run_can_be_asked_for(name):
    start, arguments = RUNS[name]
    assert start is None or start in RUNS
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    for objective in load_hyperpyyaml(options.get("--objectives", "{}")).values():
        assert callable(objective)
    if "--brain" in options:
        module, _, brain = options["--brain"].removeprefix("!name:").rpartition(".")
        assert hasattr(importlib.import_module(module), brain)
    assert parse(["--objectives", name]).objectives == [name]
