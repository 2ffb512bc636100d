"""The list of objectives names what exists, and every experiment has its options."""

from pathlib import Path

import pytest

from benchmarks.page_tables import OBJECTIVES
from fedenhance.based_yaml import load_hparams
from fedenhance.commands.experiments import command_of, read_list
from fedenhance.training.settings import read_command

LISTED = read_list("benchmarks/objectives.yaml")


def test_the_table_shows_what_is_listed():
    assert OBJECTIVES.keys() <= LISTED.keys()


@pytest.mark.parametrize("name", LISTED)
def test_every_experiment_can_be_loaded(name, tmp_path):
    hparams_file, options, _ = LISTED[name]
    folder = Path(tmp_path, name, "1")
    words = command_of(hparams_file, options, folder, 1, [])
    command = read_command(words[words.index("train") + 1 :])
    hparams = load_hparams(command.hparams_file, command.overrides)
    group = "self-training" if name == "remixit" else "unsupervised"
    assert callable(hparams["objectives"][group])
    assert hparams["client_groups"].get("self-training", 0) == (name == "remixit")
    if "initial_model" in options:
        start = Path(hparams["initial_model"])
        assert start == Path(tmp_path, "constrained_mixit", "1")
