"""What `pip install` puts where: two packages, complete, and the commands."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import RATE

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fed", "fedenhance")
DATA = (".py", ".yaml", ".csv", ".j2")
BUILD = "import setuptools.build_meta as build; build.build_wheel('.')"


def run(*command, **where):
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, unpacked as an installer would."""
    tree = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run(sys.executable, "-c", BUILD, cwd=tree)
    (file,) = tree.glob("*.whl")
    site = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(site)
    return site


def test_site_packages_gets_two_names(wheel):
    names = {path.name for path in wheel.iterdir()}
    assert {n for n in names if not n.endswith(".dist-info")} == set(PACKAGES)


def test_whatever_the_packages_need_is_there(wheel):
    def files(root):
        found = (p for package in PACKAGES for p in (root / package).rglob("*.*"))
        return {p.relative_to(root) for p in found if p.suffix in DATA}

    assert files(wheel) == files(ROOT)
    (license_file,) = wheel.glob("*.dist-info/licenses/LICENSE")
    assert license_file.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_commands_are_there(wheel):
    (declared,) = wheel.glob("*.dist-info/entry_points.txt")
    lines = [line for line in declared.read_text().splitlines() if "=" in line]
    assert lines == ["fed = fed.__main__:main", "fedenhance = fedenhance.__main__:main"]


def test_an_installed_experiment_trains_and_enhances(wheel, tiny_corpus, tmp_path):
    """In an empty folder, by a path that is the package's."""
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    settings = {
        "prepare": "null",
        "data_folder": tiny_corpus,
        "manifest_folder": tiny_corpus,
        "sample_rate": RATE,
        "segment": 0.5,
        "n_clients": 4,
        "rounds": 1,
    }
    words = [f"--{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "fedenhance"]
    where = {"cwd": tmp_path, "env": environment}
    run(*command, "train", "hparams/fedenhance.yaml", *words, **where)
    (folder,) = tmp_path.glob("results/fedenhance/*")
    noisy = tiny_corpus / "f0_speech.wav"
    run(*command, "enhance", folder, noisy, "--out", "clean", **where)
    assert (tmp_path / "clean/f0_speech.wav").stat().st_size == noisy.stat().st_size
    assert (folder / "package/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    card = (folder / "package/README.md").read_text(encoding="utf-8")
    assert "fedenhance train hparams/fedenhance.yaml" in card
