"""What code a machine of a federation has."""

from pathlib import Path

from fed import installed
from tests.fed.conftest import YAML


def test_packages_and_what_lies_beside_the_experiment_count():
    code = installed.digests([YAML])
    assert {"fed/client.py", "fedenhance/hparams/fedenhance.yaml"} <= code.keys()
    assert {"tests/fed/regression.yaml", "tests/fed/recipe.py"} <= code.keys()


def test_what_else_lies_in_the_repository_does_not():
    code = installed.digests(installed.ROOT / n for n in ("train.py", YAML))
    names = {Path(name).parts[0] for name in code}
    assert names == {"fed", "fedenhance", "tests", "train.py"}
    assert not [name for name in code if name.startswith("tests/benchmarks")]


def test_bases_of_a_yaml_file_elsewhere_count(tmp_path):
    (tmp_path / "base.yaml").write_text("rounds: 1\n")
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.yaml").write_text("base: ../base.yaml\nlr: 1\n")
    before = installed.digests([own / "a.yaml"])
    (tmp_path / "base.yaml").write_text("rounds: 2\n")
    after = installed.digests([own / "a.yaml"])
    assert [Path(n).name for n in before if before[n] != after[n]] == ["base.yaml"]
