"""The findings of the paper, on runs whose numbers are chosen."""

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
