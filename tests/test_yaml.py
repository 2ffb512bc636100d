"""Every YAML loads, every key of it is used, and none is a copy of another."""

import ast
import functools
import itertools
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from speechbrain.utils.run_opts import RunOptions

from fedenhance.based_yaml import PACKAGE, load_hparams, open_hparams

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(
    [*PACKAGE.glob("hparams/*.yaml"), *PACKAGE.glob("recipes/**/hparams/*.yaml")]
)
# Of which experiments are made: they do not stand alone.
BASES = sorted(
    [
        *PACKAGE.glob("hparams/bases/*.yaml"),
        *PACKAGE.glob("recipes/**/hparams/bases/*.yaml"),
    ]
)
MODELS = sorted(
    [*PACKAGE.glob("hparams/models/*.yaml"), *PACKAGE.glob("recipes/**/models/*.yaml")]
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


class Names(yaml.SafeLoader):
    """Reads the keys and scalars of HyperPyYAML; tags mean nothing to it."""


def plain(loader, _, node):
    if node.tag.startswith("!apply:"):
        return node.tag
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return f"{node.tag} {node.value}"


Names.add_multi_constructor("!", plain)


@functools.cache
def top_level(path):
    return yaml.load(open_hparams(path).getvalue(), Names)


def own_keys(path):
    """The keys that a file itself has."""
    return {k: v for k, v in yaml.load(path.read_text(), Names).items() if k != "base"}


def references(path):
    """Collects what <key> and <key[inner]> name, comments aside."""
    uncommented = re.sub(r"(^|\s)#.*", "", open_hparams(path).getvalue())
    names = re.findall(r"<([^<>\s]+)>", uncommented)
    return {part for name in names for part in re.findall(r"[\w-]+", name)}


def pattern(node):
    """Makes a regular expression of an f-string: hparams[f"{split}_size"]."""
    return "".join(
        re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+"
        for part in node.values
    )


@functools.cache
def names_in_code():
    """Collects what the code may look a key up by, as one regular expression.

    String literals, attributes of hparams, and f-strings that index hparams.
    """
    names = set()
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("tests", "tools", ".venv"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Constant(value=str(text)):
                    names.add(re.escape(text))
                case ast.Attribute(value=owner) if "hparams" in ast.unparse(owner):
                    names.add(node.attr)
                case ast.Subscript(slice=ast.JoinedStr()):
                    if "hparams" in ast.unparse(node.value):
                        names.add(pattern(node.slice))
    return re.compile("|".join(sorted(names)))


def placeholders(path, folder):
    """Fills the keys that a user must give; a model to start from is loaded."""
    start = Path(__file__).parent / "fixtures" / "older_run"
    return {
        key: str(start if key == "start" else folder / key)
        for key, value in top_level(path).items()
        if isinstance(value, str) and value.startswith("!PLACEHOLDER")
    }


@pytest.mark.parametrize("path", EXPERIMENTS + MODELS, ids=name_of)
def test_yaml_loads(path, tmp_path):
    load(path, tmp_path)


def load(path, folder):
    overrides = placeholders(path, folder)
    if "output_folder" in top_level(path):
        overrides["output_folder"] = str(folder / "output")
    text = "\n".join(f"{key}: {value}" for key, value in overrides.items())
    hparams = load_hparams(path, text)
    assert hparams.keys() >= overrides.keys()
    return hparams


@pytest.mark.parametrize("path", EXPERIMENTS + BASES + MODELS, ids=name_of)
def test_every_key_is_used(path):
    """By a !ref, by our code, by SpeechBrain's Brain, or by its effect (!apply)."""
    keys = own_keys(path)
    used = set(RunOptions.__dataclass_fields__)
    # A model's keys are also used by the experiments: !ref <models[separator]>.
    for reader in [path, *(EXPERIMENTS if path not in EXPERIMENTS else [])]:
        used |= references(reader)
    unused = [
        key
        for key, value in keys.items()
        if not (
            key in used
            or names_in_code().fullmatch(key)
            or str(value).startswith("!apply:")
        )
    ]
    assert not unused, f"{name_of(path)} has keys that nothing reads: {unused}"


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_a_model_is_self_contained(path):
    """Only then does --models '!include:models/x.yaml' work on the command line."""
    assert "!PLACEHOLDER" not in path.read_text()
    if path.is_relative_to(PACKAGE / "hparams"):
        assert {"separator", "num_sources"} <= top_level(path).keys()


def test_there_are_experiments_and_models():
    assert EXPERIMENTS and BASES and MODELS


def lines_of(path):
    """Counts the lines of a file, without indentation, blanks and comments."""
    lines = (re.sub(r"(^|\s)#.*", "", x).strip() for x in path.read_text().splitlines())
    return Counter(line for line in lines if line)


def test_no_experiment_is_a_copy_of_another():
    files = [*EXPERIMENTS, *BASES, *sorted(ROOT.glob("benchmarks/*.yaml"))]
    for one, other in itertools.combinations(files, 2):
        shared = (lines_of(one) & lines_of(other)).total()
        pair = f"{name_of(one)} and {name_of(other)}"
        assert shared <= 25, f"{pair} share {shared} lines: make one the other's base"


CENTRAL = [path for path in EXPERIMENTS if top_level(path)["federation"] is None]


@pytest.mark.parametrize("path", CENTRAL, ids=name_of)
def test_central_training_needs_no_federation(path, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] in ("fed", "flwr")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fed", None)  # it cannot be imported
    assert load(path, tmp_path)["federation"] is None


def test_an_unused_key_is_noticed(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("used: 1\nagain: !ref <used>\nforgotten_key: 2 # <forgotten_key>\n")
    assert references(path) == {"used"}
    assert top_level(path).keys() == {"used", "again", "forgotten_key"}
