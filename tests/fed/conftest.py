"""A small federation to train in tests."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

import fed
from fed.brain import federate
from tests.fed import recipe

YAML = Path(__file__).parent / "regression.yaml"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def brain():
    """Make the regression's Brain as it serves in a federation."""
    with open(YAML, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, {"output_folder": "unused"})
    return federate(recipe.Regression, hparams, {"device": "cpu"})


@pytest.fixture
def train(tmp_path):
    """Train the regression with other arguments; return its Brain."""

    def train(folder="out", federation=None, **overrides):
        overrides = {"output_folder": tmp_path / folder, **overrides}
        overrides = "\n".join(f"{key}: {value}" for key, value in overrides.items())
        with open(YAML, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        if federation is not None:
            federation = {
                "datasets": recipe.datasets,
                "partition": fed.partition.by_column,
                "rounds": hparams["rounds"],
                **federation,
            }
            hparams["federation"] = fed.Federation(**federation)
        run_opts = RunOptions.from_dictionary({"device": "cpu"})
        return hparams["federation"].run(YAML, overrides, run_opts, hparams)

    return train


@pytest.fixture
def read(tmp_path):
    """Read a csv file of an experiment's output folder."""
    import csv

    def read(name, folder="out"):
        with open(tmp_path / folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read
