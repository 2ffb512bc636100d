"""The findings of the paper, on runs whose numbers are chosen."""

import math
from functools import partial

import pytest

from fedenhance.reports.findings import check_findings, findings_table
from fedenhance.reports.runs import find_runs
from tests.fedenhance import finished

CURVES = {
    "c4": ({"n_clients": 4}, (2.0, 4.0)),
    "c8": ({"n_clients": 8}, (1.0, 3.0)),
    "alone_0": ({"n_clients": 8, "selected_clients": "[0]"}, (0.0, 0.0)),
    "alone_4": ({"n_clients": 8, "selected_clients": "[4]"}, (0.0, 1.0)),
    "iid": ({"n_clients": 1}, (1.0, 3.5)),
    "started": ({"n_clients": 8, "initial_model": "x"}, (2.0, 3.25)),
    "half": ({"n_clients": 8, "p_supervised": 0.5}, (1.0, 4.0)),
    "all": ({"n_clients": 8, "p_supervised": 1.0}, (1.0, 5.0)),
    "ablation": ({"n_clients": 8, "local_epoch_p": 25}, (9.0, 9.0)),
}


@pytest.fixture
def results(tmp_path):
    """All experiments with two seeds; the second is a quarter dB better where C = 4."""
    for name, (settings, test) in CURVES.items():
        for seed in (1, 2):
            better = 0.25 * (seed == 2 and name == "c4")
            curve = [value + better for value in test]
            finished.write_run(tmp_path, name, seed, curve, **settings)
    return tmp_path


def test_each_finding_is_a_difference_seed_by_seed(results):
    found = {
        (row["finding"], row["case"]): row
        for row in check_findings(find_runs([results]))
        if row["noises"] == 1
    }
    means = {key: (row["mean"], row["holds"]) for key, row in found.items()}
    assert means == {
        ("federation beats individual clients", "C = 8"): (2.5, "yes"),
        ("fewer clients converge faster", "C = 4 and 8, first half"): (1.125, "yes"),
        ("pre-training starts higher", "C = 8, first evaluation"): (1.0, "yes"),
        ("pre-training stays higher", "C = 8, last quarter"): (0.25, "yes"),
        ("more supervised clients help", "C = 8, none to all, 3 shares"): (
            pytest.approx(2.0),
            "yes",
        ),
        ("IID is the upper bound", "C = 4"): (-0.625, "no"),
        ("IID is the upper bound", "C = 8"): (0.5, "yes"),
    }
    bound = found["IID is the upper bound", "C = 4"]
    assert (bound["lowest"], bound["highest"], bound["seeds"]) == (-0.75, -0.5, 2)


def test_one_seed_that_differs_refutes(tmp_path):
    write = partial(finished.write_run, tmp_path)
    for seed, level in ((1, 2.0), (2, 0.0)):
        write("together", seed, (level, level))
        write("alone", seed, (1.0, 1.0), selected_clients="[0]")
    rows = check_findings(find_runs([tmp_path]))
    assert [(row["mean"], row["holds"]) for row in rows] == [(0.0, "no")] * 2
    assert "| 0.00 ± 1.41 | -1.00 to 1.00 | 2 | no |" in findings_table(rows)


def test_without_anything_to_compare_it_says_so(tmp_path):
    finished.write_run(tmp_path, "lone")
    with pytest.raises(ValueError, match="none of the findings can be tested"):
        check_findings(find_runs([tmp_path]))


def found_in(results):
    """The findings with one noise: (finding, case) -> mean, seeds and verdict."""
    return {
        (row["finding"], row["case"]): (row["mean"], row["seeds"], row["holds"])
        for row in check_findings(find_runs([results]))
        if row["noises"] == 1
    }


def test_a_run_that_was_killed_is_left_out_and_named(results, caplog):
    before = found_in(results)
    for name in ("c8", "iid"):
        table = results / name / "2" / "rounds.csv"
        table.write_text("\n".join(table.read_text().splitlines()[:6]))
    begun = finished.write_run(results, "begun", 3, n_clients=8)
    (begun.folder / "rounds.csv").write_text("round,seconds\n")
    after = found_in(results)
    assert after.keys() == before.keys()
    bound = "IID is the upper bound", "C = 8"
    assert (before[bound][1:], after[bound][1:]) == ((2, "yes"), (1, "yes"))
    assert "iid/2 is not finished: round 5" in caplog.text
    assert "begun/3 is not finished: round 0" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        {"test_size": 40},
        {"rounds": 40},
        {"data_folder": "/other"},
        {"snr_range": "[0, 5]"},
        {"p_supervised": 1.0},
        {"models": "{channels: 4}"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_was_tested_or_trained_otherwise_is_not_compared(tmp_path, other, caplog):
    write = partial(finished.write_run, tmp_path, snr_range="[-5, 10]", test_size=24)
    write = partial(write, data_folder="/data", models="{channels: 16}")
    write("together", 1, (2.0, 2.0), n_clients=8)
    write("alone", 1, (1.0, 1.0), n_clients=8, selected_clients="[0]")
    same = found_in(tmp_path)
    write("iid", 1, (9.0, 9.0), n_clients=1, **other)
    write(
        "alone otherwise", 1, (9.0, 9.0), n_clients=8, selected_clients="[0]", **other
    )
    assert found_in(tmp_path) == same
    assert f"of {next(iter(other))} " in caplog.text


def test_a_result_that_is_not_known_is_no_finding(tmp_path):
    write = partial(finished.write_run, tmp_path)
    for seed in (1, 2):
        write("together", seed, (2.0, 2.0))
        lone = (math.nan, math.nan) if seed == 1 else (1.0, 1.0)
        write("alone", seed, lone, selected_clients="[0]")
    ((mean, seeds, holds),) = found_in(tmp_path).values()
    assert math.isnan(mean) and (seeds, holds) == (2, "no")
    for table in tmp_path.glob("alone/*/rounds.csv"):
        table.write_text(table.read_text().replace("si_sdri", "loss"))
    with pytest.raises(ValueError, match="none of the findings can be tested"):
        found_in(tmp_path)


def test_other_results_in_the_folder_do_no_harm(results):
    before = found_in(results)
    for name in ("asr", "lone_asr"):
        run = finished.write_run(results, name, rounds=3)
        kept = "rounds: 3\noutput_folder: x\n"
        kept += "selected_clients: [0]\n" if name == "lone_asr" else ""
        (run.folder / "hyperparams.yaml").write_text(kept)
    assert found_in(results) == before
