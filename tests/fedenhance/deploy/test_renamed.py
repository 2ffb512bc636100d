"""Runs and packages made before names changed load, and give what they gave.

``tests/fixtures/older_run`` was trained for a round when this was ``local_modules/``;
``expected.npy`` is what that code made of the mixture here.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.deploy.packaging import package
from fedenhance.deploy.renamed import RENAMED, current_names
from fedenhance.deploy.trained import include_network, load_trained
from fedenhance.networks.separator import Separator
from fedenhance.objectives.mixit import constrained_mixit
from fedenhance.training.separation import Separation

HPARAMS = Path(__file__).parents[3] / "fedenhance" / "hparams"
RUN = Path(__file__).parents[2] / "fixtures" / "older_run"
MIXTURE = torch.linspace(0, 60, 800).sin().unsqueeze(0)


@pytest.fixture
def expected():
    return torch.from_numpy(np.load(RUN / "expected.npy"))


@pytest.mark.parametrize("folder", [RUN, RUN / "package"], ids=["run", "package"])
def test_what_older_code_made_gives_the_same_estimates(folder, expected):
    torch.testing.assert_close(load_trained(folder)(MIXTURE), expected)


def test_a_package_of_an_older_run_has_todays_names(tmp_path, expected):
    out = package(RUN, tmp_path / "package")
    assert "local_modules" not in (out / "hyperparams.yaml").read_text()
    assert not (out / "fedenhance/deploy/renamed.py").exists()
    torch.testing.assert_close(load_trained(out)(MIXTURE), expected)


def test_no_older_name_is_left():
    text = (RUN / "hyperparams.yaml").read_text()
    assert "local_modules" in text
    assert "local_modules" not in current_names(text)


def test_an_older_experiment_can_be_converted_and_read_whole():
    command = [sys.executable, "-m", "fedenhance.deploy.renamed"]
    text = subprocess.check_output([*command, RUN / "hyperparams.yaml"], text=True)
    hparams = load_hyperpyyaml(text)
    assert hparams["brain"] is Separation
    assert hparams["objectives"]["unsupervised"] is constrained_mixit


@pytest.mark.parametrize(
    ("old", "sizes", "blocks"),
    [
        ("OriginalMaskNet", "", "NormalizedUConvBlock"),
        ("ImprovedMaskNet", "", "UConvBlock"),
        ("GroupCommMaskNet", "  num_groups: 2\n", "GroupCommBlock"),
        ("CausalMaskNet", "", "CausalUConvBlock"),
    ],
)
def test_a_mask_network_of_its_own_class_names_its_block(old, sizes, blocks):
    text = f"masknet: !new:local_modules.sudormrf.{old}\n"
    text += "  num_sources: 2\n  num_bases: 8\n  channels: 4\n  hidden_channels: 6\n"
    text += f"  num_blocks: 3\n  depth: 2\n{sizes}consistency: null\n"
    masknet = load_hyperpyyaml(current_names(text))["masknet"]
    assert [type(block).__name__ for block in masknet.blocks] == [blocks] * 3
    assert masknet(torch.randn(1, 8, 4)).shape == (2, 1, 8, 4)


def test_an_older_gtcrn_says_what_the_brain_says_now():
    text = (HPARAMS / "models/gtcrn.yaml").read_text()
    place = "        num_blocks: !ref <num_blocks>\n"
    old = text.replace(place, f"{place}        frozen_statistics: false\n")
    assert current_names(old) == text != old


def test_an_older_package_can_be_started_from(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    overrides = include_network(RUN)
    models = load_hyperpyyaml("{models: 0, sample_rate: 0}", overrides)["models"]
    assert type(models["separator"]) is Separator
    assert include_network(RUN) == overrides
    assert len([*tmp_path.rglob("*.yaml")]) == 1


@pytest.mark.parametrize("name", RENAMED.values())
def test_a_new_name_exists(name):
    """The beginning of a name: a room, a module, what begins one of its functions."""
    if name.endswith("."):
        assert Path(*name.split(".")).is_dir()
        return
    module, _, start = name.rpartition(".")
    path = Path(*name.split(".")).with_suffix(".py")
    assert path.is_file() or re.search(
        rf"(def|class) {start}", Path(*module.split(".")).with_suffix(".py").read_text()
    )
