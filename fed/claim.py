"""Whose output folder it is, where a command of ``fed`` trains a recipe."""

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml.error import YAMLError
from speechbrain.utils.logger import get_logger

from fed.loading import rows_of
from fedenhance.based_yaml import read_values
from fedenhance.run_folder import commands
from fedenhance.run_folder.record import claimed

logger = get_logger(__name__)

ROOT = Path(__file__).resolve().parents[1]
CLAIMS_ITSELF = (ROOT / "train.py",)
"""Scripts that hold their folder themselves."""


@dataclass
class Command(commands.Command):
    """A command of ``python -m fed``, or of ``flwr run``.

    Attributes
    ----------
    save : str
        Its folder of checkpoints, relative to the output folder.
    """

    save: str = "save"

    @property
    def traces(self):
        """What a federation goes on from."""
        return [f"{self.save}/{name}federation.pt" for name in ("", "federated/")]

    @property
    def written(self):
        """What a federation leaves; the recipe's own checkpoints stay."""
        tables = ["rounds.csv", "clients.csv", "clients_data.csv", "personal.csv"]
        kept = [f"{self.save}/{name}" for name in ("clients", "federated", "personal")]
        return [*tables, *kept, f"{self.save}/federation.pt", "run.json"]


@contextmanager
def held(words, federation=None, restart=False, folder=None):
    """Hold the output folder that a command's YAML names, while it trains.

    Arguments
    ---------
    words : list of str
        A script, which may be left out, a YAML file and overrides.
    federation : str
        Another YAML file, with the key ``federation``.
    restart : bool
        Whether what a federation left in the folder goes.
    folder : Path
        Where the results go, if YAML does not say it.

    Yields
    ------
    fedenhance.run_folder.record.Claim or None
        None where nothing says what the experiment is, or the script sees to it.

    Raises
    ------
    ValueError
        When the folder holds another experiment, or another process trains there.
    """
    script = Path(words[0]).resolve() if words[0].endswith(".py") else None
    command = None
    if folder or script not in CLAIMS_ITSELF:
        command = read(words[1:] if script else words, federation, restart, folder)
    if command is None:
        yield None
    else:
        with claimed(command) as claim:
            yield claim


def read(words, federation=None, restart=False, folder=None):
    """Read a command; arguments as of :func:`held`, without a script.

    Returns
    -------
    Command or None
        None where there is no YAML file that can be read, with an output folder.
    """
    try:
        file, run_opts, overrides = commands.parse_words(words)
        values = read_values(file, overrides)
        if federation:
            values["federation"] = read_values(federation)["federation"]
        save = None if folder else values.get("save_folder")
        folder = Path(folder or values["output_folder"])
    except (KeyError, OSError, TypeError, ValueError, YAMLError) as error:
        logger.warning("No record is kept of this run: %s", error)
        return None
    others = [str(Path(federation).resolve())] if federation else []
    values.setdefault("output_folder", str(folder))
    save = os.path.relpath(save, folder) if save else "save"
    return Command(file, overrides, run_opts, restart, values, folder, others, save)


def fingerprint(site):
    """Digest the rows that clients hold, and who holds them.

    Arguments
    ---------
    site : fed.site.Site

    Returns
    -------
    dict
        Name -> digest. Where files lie does not matter.
    """
    if site.train_set is None:
        return {}
    rows = {
        str(key): {n: v for n, v in row.items() if is_content(v)}
        for key, row in rows_of(site.train_set).items()
    }
    parts = {"rows": rows, "clients": site.partition}
    return {
        name: hashlib.sha256(json.dumps(part, default=str).encode()).hexdigest()[:16]
        for name, part in parts.items()
    }


def is_content(value):
    """Tell whether a cell is a number, or text that is no path.

    Example
    -------
    >>> is_content(2.5), is_content("a fox"), is_content("/data/a.wav")
    (True, True, False)
    """
    return isinstance(value, (int, float)) or (
        isinstance(value, str) and "/" not in value
    )
