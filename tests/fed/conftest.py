"""A small federation to train in tests."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

import fed
from fed.brain import join
from fed.command import Process, flags
from fed.recipe import build
from fed.recipe import train as train_recipe
from tests.fed import recipe

YAML = Path(__file__).parent / "regression.yaml"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def load(**overrides):
    """Load the regression's YAML."""
    with open(YAML, encoding="utf-8") as file:
        return load_hyperpyyaml(file, {"output_folder": "unused", **overrides})


def joined(brain_class=None, **run_opts):
    """Make a Brain, by default the regression's, as it serves in a federation."""
    hparams = load()
    hparams["brain"] = brain_class or hparams["brain"]
    brain = build(hparams, {"device": "cpu", **run_opts})
    join(brain)
    return brain


@pytest.fixture
def brain():
    """Make the regression's Brain as it serves in a federation."""
    return joined()


@pytest.fixture
def train(tmp_path, monkeypatch):
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
        monkeypatch.setattr(Process, "command", [str(YAML), *flags(overrides)])
        return train_recipe(hparams, {"device": "cpu"})

    return train


@pytest.fixture
def read(tmp_path):
    """Read a csv file of an experiment's output folder."""
    import csv

    def read(name, folder="out"):
        with open(tmp_path / folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read
