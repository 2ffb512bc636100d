"""One client with all data is central training; a kill changes nothing."""

import numpy as np
import pytest

from benchmarks import recipes_exact
from benchmarks.recipes import table
from tests.benchmarks.test_recipes import checkout

__all__ = ["checkout"]


@pytest.mark.slow
def test_a_recipe_is_compared_with_itself(checkout, tmp_path):
    yaml = checkout / "recipes/Line/line.yaml"
    seed = "__set_seed: !apply:speechbrain.utils.seed_everything [7]\n"
    yaml.write_text(seed + yaml.read_text())
    script = checkout / "recipes/Line/train.py"
    script.write_text(script.read_text().replace("range(1, 10)", "range(1, 4)"))
    out = tmp_path / "exact.csv"
    command = ["--speechbrain", str(checkout), "--only", "Line_row_02"]
    recipes_exact.main([*command, "--out", str(out)])
    (row,) = table(out)
    assert float(row["difference"]) <= 1e-6
    assert row["resumed"] == "identical"


def test_differences_are_the_largest_and_names_must_agree():
    one = {"a": np.float32([1, 2]), "n": np.array(7), "empty": np.zeros(0)}
    other = {"a": np.float32([1, 2.5]), "n": np.array(7), "empty": np.zeros(0)}
    assert recipes_exact.difference(one, other) == 0.5
    with pytest.raises(ValueError, match="'b'"):
        recipes_exact.difference(one, {**other, "b": np.zeros(1)})


def test_the_tables_recipes_equal_central_training_and_resume_to_the_bit():
    rows = table(recipes_exact.OUT)
    assert rows
    for row in rows:
        assert float(row["difference"]) <= 1e-6, row["recipe"]
        assert row["resumed"] == "identical", row["recipe"]
