"""HyperPyYAML files that start from others.

    base: ../../../hparams/fedenhance.yaml    # relative to this file
    n_clients: 64

is the base with another ``n_clients``. As on the command line, a mapping changes what
it names within the base's; one with a tag of its own, such as ``!new:``, replaces the
base's. Of several bases, ``base: [a.yaml, b.yaml]``, the later counts; a base may have
bases. HyperPyYAML, the command line and other processes see one text, as if it had
been written so.

A path that leads nowhere is looked for among the files that come with the package, such
as ``hparams/fedenhance.yaml``.
"""

import difflib
import io
import os
import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML, MappingNode, SequenceNode
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

NO_TAG = SimpleNamespace(value=None)
PACKAGE = Path(__file__).resolve().parent


def find(path):
    """Find a file where its path says or, if it is not there, in the package.

    Arguments
    ---------
    path : str or Path
        Relative to the working folder.

    Returns
    -------
    Path
        As given, where there is no such file at all.

    Example
    -------
    >>> find("hparams/models/dprnn.yaml").exists(), find("none.yaml").exists()
    (True, False)
    """
    path = Path(path)
    return path if path.exists() or not (PACKAGE / path).is_file() else PACKAGE / path


def open_hparams(path):
    """Open the text that a YAML file and its bases amount to.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    io.StringIO
        With the ``name`` of the file, to which its ``!include:`` are relative.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file does not exist, is no mapping, is based on itself, or has a key that
        looks like a misspelt one of its base.
    """
    if not find(path).is_file():
        places = Path(path).parent, PACKAGE / Path(path).parent
        others = {file.name for place in places for file in place.glob("*.yaml")}
        near = difflib.get_close_matches(Path(path).name, others, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(f"there is no {path}{hint}")
    path = find(path).resolve()
    text = path.read_text(encoding="utf-8")
    if not re.search("^base:", text, re.MULTILINE):
        return _named(well_formed(text), path)
    return _named(_amount(_layers(path)), path)


@lru_cache(maxsize=64)
def _amount(layers):
    """Return the text that the files of :func:`_layers` amount to."""
    (_, tree), *others = ((file, _mapping(text, file)) for file, text in layers)
    added = []
    for file, layer in others:
        added += [(file, key, [*tree]) for key in layer if key not in tree]
        _check_within(layer, tree, file)
        _update(tree, layer)
    merged = io.StringIO()
    YAML().dump(tree, merged)
    for file, key, keys in added:
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.85)
        if near and not re.search(rf"<{re.escape(key)}[>\[]", merged.getvalue()):
            raise ValueError(
                f"{file}: its base has no key {key}, and nothing refers to it; did you "
                f"mean {near[0]}?"
            )
    return well_formed(merged.getvalue())


def well_formed(text):
    """Write otherwise what HyperPyYAML would misread: tags in lists of one line.

    A tag would take a bracket after it for a part of its name, and the mapping of
    ``[!name:a.b {c: 1}]`` would lose its tag.

    Arguments
    ---------
    text : str
        YAML.

    Returns
    -------
    str
        As given, where there is no such thing.

    Example
    -------
    >>> well_formed("live: [!name:a.TensorBoard]")
    'live: [!name:a.TensorBoard ]'
    >>> print(well_formed("live: [!name:a.WandB {project: mine}]"), end="")
    live:
    - !name:a.WandB
      project: mine
    """
    text = re.sub(r"(![a-z]+:[^\s,\[\]{}<>]+)(?=[\],}])", r"\1 ", text)
    if not re.search(r"[\[,]\s*![a-z]+:[\w.]+\s*\{", text):
        return text
    tree = YAML().load(text)
    _spread(tree)
    stream = io.StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()


def _spread(node):
    """Give each element a line of its own."""
    if isinstance(node, dict | list):
        node.fa.set_block_style()
        for part in node.values() if isinstance(node, dict) else node:
            _spread(part)


def load_hparams(path, overrides=""):
    """Load a YAML file; complain about an override of a key that it does not have.

    Arguments
    ---------
    path : str or Path
    overrides : str
        YAML, as ``speechbrain.parse_arguments`` returns it.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        Naming the unknown key.
    """
    check_overrides(path, overrides)
    try:
        return load_hyperpyyaml(open_hparams(path), well_formed(overrides))
    except TypeError as error:  # of what YAML makes
        raise ValueError(f"{path}: {': '.join(map(str, error.args))}") from error
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error


def check_overrides(path, overrides):
    """Read overrides; complain about a key that a YAML file does not have.

    Arguments
    ---------
    path, overrides
        As for :func:`load_hparams`.

    Returns
    -------
    dict
        As of :func:`read_values`.

    Raises
    ------
    ValueError
        Naming the unknown key, or saying what is no YAML.
    """
    try:
        text = open_hparams(path)
        values = _values(text.getvalue(), text.name)
        given = _plain(well_formed(overrides)) or {}
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        named = mark and mark.name.startswith("/")  # else it is text of our own
        where = (
            f"{mark.name}, line {mark.line + 1},"
            if named
            else f"{path}, or the command line,"
        )
        problem = getattr(error, "problem", error)
        raise ValueError(f"{where} is no YAML: {problem}") from error
    for key in given:
        if key not in values:
            near = difflib.get_close_matches(key, values, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{path} has no key {key}{hint}")
    _check_within(given, values, path)
    return given


def read_values(path, overrides=""):
    """Read what YAML says, bases and references resolved, and make no object of it.

    Arguments
    ---------
    path, overrides
        As for :func:`load_hparams`. A ``!PLACEHOLDER`` counts as null.

    Returns
    -------
    dict
        Plain values. Where there is a tag, a mapping has it under ``"!"``, a sequence
        as its first element, and text begins with it.
    """
    text = open_hparams(path).getvalue().replace("!PLACEHOLDER", "null")
    try:
        named = _named(text, find(path).resolve())
        resolved = resolve_references(named, well_formed(overrides))
    except ValueError as error:
        if not isinstance(error.__context__, TypeError):
            raise
        raise ValueError(
            f"{path} has another structure than the command line: "
            f"{error.__context__}; a new mapping goes into a YAML file that has this "
            "one as its base"
        ) from error
    return _plain(resolved)


def sources_of(path):
    """List a YAML file and its bases, those of a base before it."""
    return [*dict.fromkeys(str(file) for file, _ in _layers(find(path).resolve()))]


def save_hparams(path, overrides, folder):
    """Write ``hyperparams.yaml``, references and bases resolved.

    Arguments
    ---------
    path, overrides
        As for :func:`load_hparams`.
    folder : str or Path
        Of the experiment.
    """
    text = resolve_references(open_hparams(path), well_formed(overrides)).getvalue()
    header = f"# Generated {date.today()} from:\n# {os.path.abspath(find(path))}\n"
    file = Path(folder) / "hyperparams.yaml"
    aside = file.with_name(f".{os.getpid()}.yaml")
    aside.write_text(f"{header}# yamllint disable\n{text}", encoding="utf-8")
    aside.replace(file)  # whole, whoever reads it meanwhile


def _layers(path, above=()):
    """List the files that a file amounts to, itself last, with their texts.

    They include other files by paths relative to the first of those ``above`` it, which
    are based on it.
    """
    top = (*above, path)[0].parent

    def relocate(tag):
        return "!include:" + os.path.relpath(path.parent / tag[1], top)

    text = re.sub(r"!include:([^\s,\]}]+)", relocate, path.read_text(encoding="utf-8"))
    layers = ()
    for base in _bases(text, path):
        file = _base(path, base)
        if file in (*above, path):
            raise ValueError(f"{path}: its base {base} is based on it")
        if not file.is_file():
            raise FileNotFoundError(f"{path}: there is no base {base}")
        layers += _layers(file, (*above, path))
    return (*layers, (path, text))


@lru_cache(maxsize=64)
def _bases(text, path):
    """Read which files a text has as its bases: recipes may have another ``base``."""
    if not re.search("^base:", text, re.MULTILINE):
        return ()
    tree = YAML().load(_named(text, path))
    bases = tree.get("base") if isinstance(tree, dict) else None
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(str(b).endswith(".yaml") for b in bases):
        return ()
    return tuple(bases)


def _mapping(text, path):
    """Load a layer with ruamel, without its bases."""
    tree = YAML().load(_named(text, path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path} is no YAML mapping")
    if _bases(text, path):
        del tree["base"]
    return tree


def _check_within(own, base, file):
    """Raise ValueError for a key within a mapping that is one letter off a base's.

    There anything may be added, such as a group of clients, and misspelt.
    """
    for name, value in own.items():
        inner = base.get(name)
        mappings = isinstance(value, dict) and isinstance(inner, dict)
        if not mappings or "!" in value or getattr(value, "tag", NO_TAG).value:
            continue
        for key in value.keys() - inner.keys():
            for known in inner:
                if _is_slip(str(key), str(known)):
                    raise ValueError(
                        f"{file}: {name} has no key {key}; did you mean {known}?"
                    )
        _check_within(value, inner, file)


def _is_slip(word, other):
    """Whether one letter is wrong, too much or missing, or two are swapped.

    Example
    -------
    >>> _is_slip("unsupervized", "unsupervised"), _is_slip("btach", "batch")
    (True, True)
    >>> _is_slip("unsupervised", "supervised"), _is_slip("layer1", "layer2")
    (False, False)
    """
    if min(len(word), len(other)) < 5:
        return False
    start = len(os.path.commonprefix([word, other]))
    one, two = word[start:], other[start:]
    end = len(os.path.commonprefix([one[::-1], two[::-1]]))
    one, two = one[: len(one) - end], two[: len(two) - end]
    swapped = len(one) == 2 and one == two[::-1]
    return swapped or (max(len(one), len(two)) == 1 and (one + two).isalpha())


def _base(path, base):
    """Where a base lies: relative to the file that names it, or in the package."""
    file = path.parent / base
    return (file if file.exists() else find(base)).resolve()


def _update(tree, own):
    """Put the values of a file over those of its base."""
    for key, value in own.items():
        inner = tree.get(key)
        within = isinstance(value, dict) and isinstance(inner, dict)
        if within and not value.tag.value:
            _update(inner, value)
        else:
            tree[key] = value


def _plain(text):
    """Load YAML as plain values, see :func:`read_values`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Tagged
    return yaml.load(text)


@lru_cache(maxsize=64)
def _values(text, path):
    """Load the text of a file as plain values, which are not to be changed."""
    return _plain(_named(text, path))


class _Tagged(SafeConstructor):
    """Makes values, and keeps tags beside them."""


def _keep_tag(constructor, suffix, node):
    if isinstance(node, MappingNode):
        return {
            "!": suffix,
            **SafeConstructor.construct_mapping(constructor, node, True),
        }
    if isinstance(node, SequenceNode):
        return [f"!{suffix}", *constructor.construct_sequence(node, True)]
    return f"!{suffix} {node.value}".rstrip()


_Tagged.add_multi_constructor("!", _keep_tag)


def _named(text, path):
    """Make a stream of a text, which HyperPyYAML takes for the file."""
    stream = io.StringIO(text)
    stream.name = str(path)
    return stream


def build(hparams, run_opts=None, **options):
    """Build the Brain that YAML names.

    Arguments
    ---------
    hparams : dict
        With ``brain`` and ``modules``; where it has them, ``opt_class`` and
        ``checkpointer``.
    run_opts : dict
        Of ``speechbrain.parse_arguments``.
    **options
        Of the Brain, in place of those.

    Raises
    ------
    ValueError
        Naming the key that is missing.
    """
    for key in ("brain", "modules"):
        if key not in hparams:
            raise ValueError(f"The YAML of a Brain needs the key '{key}'.")
    given = {name: hparams.get(name) for name in ("opt_class", "checkpointer")}
    given |= {"modules": hparams["modules"], "hparams": hparams, "run_opts": run_opts}
    return hparams["brain"](**given | options)
