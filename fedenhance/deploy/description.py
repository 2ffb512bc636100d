"""What a model's YAML may name, and whose it is: folders may come from strangers.

A model is tensors and a description of the network. To make what the description names
is to run code, so that names other than our networks and objectives, and the classes of
SpeechBrain and PyTorch of which our architectures are made, are only made for who
trained the model on this machine, or says ``--trust``.
"""

import hashlib
import hmac
import os
import re
import secrets
from importlib import import_module
from pathlib import Path

MARK = ".origin"
"""File in a run's folder that says that it was made here."""

ROOMS = ("networks", "objectives", "recipes", "data.mixing", "deploy.sepformer_adapter")
"""Parts of fedenhance that a description may name anything of, but for ``READERS``."""

READERS = ("fedenhance.networks.authors", "fedenhance.networks.gtcrn_authors")
"""What reads files that the description would choose."""

OTHERS = (
    "speechbrain.lobes.models.conv_tasnet.",
    "speechbrain.lobes.models.dual_path.",
    "torch.nn.modules.activation.",
    "torch.nn.modules.normalization.",
)
"""Where the classes of others are defined that a description may name."""

PLAIN_TAGS = {
    *("!ref", "!copy", "!tuple"),
    "!apply:fedenhance.networks.filterbank.start_as_fourier",
}


class UntrustedError(ValueError):
    """A description names what runs code of others."""


def check_names(description, folder):
    """See that a description names nothing but what is ours.

    Arguments
    ---------
    description : dict
        Of :func:`fedenhance.deploy.trained.read_experiment`; nothing of it is made.
    folder : Path
        Named in the message.

    Raises
    ------
    UntrustedError
        Naming what is not.
    """
    foreign = sorted({tag for tag in tags_in(description) if not is_known(tag)})
    if foreign:
        raise UntrustedError(
            f"{folder} names {', '.join(foreign)}, which is not of fedenhance: to load "
            "it is to run that code. If you know whose it is, say --trust "
            "(trust=True in Python)"
        )


def tags_in(value):
    """Yield the tags of a value that ruamel read, and of all that it holds."""
    tag = getattr(getattr(value, "tag", None), "value", None)
    if tag:
        yield str(tag)
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    else:
        parts = value if isinstance(value, list | tuple | set) else ()
    for part in parts:
        yield from tags_in(part)


def is_known(tag):
    """Tell whether a tag makes what is ours, defined where its name says.

    Example
    -------
    >>> is_known("!new:fedenhance.networks.separator.Separator")
    True
    >>> is_known("!name:fedenhance.networks.separator.torch.load"), is_known("!apply:a")
    (False, False)
    """
    if tag in PLAIN_TAGS or tag.startswith("tag:yaml.org,2002:"):
        return "python" not in tag
    way, _, name = tag.partition(":")
    if way not in ("!new", "!name") or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return False
    module, _, attribute = name.rpartition(".")
    ours = any(f"{module}.".startswith(f"fedenhance.{room}.") for room in ROOMS)
    if not (ours or name.startswith(("torch.nn.", "speechbrain.lobes.models."))):
        return False
    try:
        defined = getattr(import_module(module), attribute).__module__
    except (AttributeError, ImportError):
        return False
    if ours:
        return defined == module and module not in READERS
    return f"{defined}.".startswith(OTHERS)


def vouch(folder):
    """Mark a folder as made here; where no key can be kept, it is not marked.

    Arguments
    ---------
    folder : str or Path
        With ``hyperparams.yaml``; one that has none, as that of a server of real
        machines at first, is not marked.
    """
    described = (Path(folder) / "hyperparams.yaml").exists()
    if described and (key := own_key()):
        (Path(folder) / MARK).write_text(seal(folder, key), encoding="utf-8")


def is_own(folder):
    """Tell whether a folder was made here, and its YAML is as it was."""
    path, key = Path(folder) / MARK, own_key()
    if not key or not path.is_file():
        return False
    return hmac.compare_digest(path.read_bytes(), seal(folder, key).encode())


def seal(folder, key):
    """Sign the YAML of a folder."""
    text = (Path(folder) / "hyperparams.yaml").read_bytes()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def own_key():
    """Read the user's key, which nobody else can; make it first. None: it cannot be."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(home) / "fedenhance" / "key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            aside = path.with_name(f".{os.getpid()}")
            with open(os.open(aside, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            aside.replace(path)
        return path.read_bytes()
    except OSError:
        return None
