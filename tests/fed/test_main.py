"""The command that federates a recipe."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from fed.command import run
from tests.fed import recipe
from tests.fed.conftest import YAML

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_trains_and_leaves_results(tmp_path):
    command = [sys.executable, "-m", "fed", YAML, "--device", "cpu"]
    options = ["--rounds", "2", "--output_folder", tmp_path]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=120)
    with open(tmp_path / "rounds.csv", newline="", encoding="utf-8") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["1", "2"]
    assert (tmp_path / "hyperparams.yaml").exists()
    assert list((tmp_path / "save").glob("CKPT+*/model.ckpt"))


def test_a_run_builds_its_brain_and_its_datasets_once(tmp_path, monkeypatch):
    built = []

    def count(owner, name):
        wrapped = getattr(owner, name)

        def counting(*args, **kwargs):
            built.append(name)
            return wrapped(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(recipe, "datasets")
    count(recipe.Regression, "__init__")
    run([str(YAML), "--rounds", "1", f"--output_folder={tmp_path}"])
    assert sorted(built) == ["__init__", "datasets"]


def test_a_file_without_a_federation_is_refused(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("output_folder: results\n")
    with pytest.raises(ValueError, match=r"train\.yaml.*federation"):
        run([str(path)])
