"""Every YAML loads, and every key of it is used."""

import ast
import functools
import re
from pathlib import Path

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(
    [*ROOT.glob("hparams/*.yaml"), *ROOT.glob("recipes/**/hparams/*.yaml")]
)
MODELS = sorted(
    [*ROOT.glob("hparams/models/*.yaml"), *ROOT.glob("recipes/**/models/*.yaml")]
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


def top_level(path):
    return yaml.load(path.read_text(), Names)


def references(path):
    """Collects what <key> and <key[inner]> name, comments aside."""
    uncommented = re.sub(r"(^|\s)#.*", "", path.read_text())
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
    """Fills the keys that a user must give."""
    return {
        key: str(folder / key)
        for key, value in top_level(path).items()
        if isinstance(value, str) and value.startswith("!PLACEHOLDER")
    }


@pytest.mark.parametrize("path", EXPERIMENTS + MODELS, ids=name_of)
def test_yaml_loads(path, tmp_path):
    overrides = placeholders(path, tmp_path)
    if "output_folder" in top_level(path):
        overrides["output_folder"] = str(tmp_path / "output")
    with path.open(encoding="utf-8") as file:
        assert load_hyperpyyaml(file, overrides).keys() >= overrides.keys()


@pytest.mark.parametrize("path", EXPERIMENTS + MODELS, ids=name_of)
def test_every_key_is_used(path):
    """By a !ref, by our code, by SpeechBrain's Brain, or by its effect (!apply)."""
    keys = top_level(path)
    used = set(RunOptions.__dataclass_fields__)
    # A model's keys are also used by the experiments: !ref <models[separator]>.
    for reader in [path, *(EXPERIMENTS if path in MODELS else [])]:
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
    if path.is_relative_to(ROOT / "hparams"):
        assert {"separator", "num_sources"} <= top_level(path).keys()


def test_there_are_experiments_and_models():
    assert EXPERIMENTS and MODELS


def test_an_unused_key_is_noticed(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("used: 1\nagain: !ref <used>\nforgotten_key: 2 # <forgotten_key>\n")
    assert references(path) == {"used"}
    assert top_level(path).keys() == {"used", "again", "forgotten_key"}
