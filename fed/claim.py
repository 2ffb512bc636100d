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
from fedenhance.run_folder.files import sizes
from fedenhance.run_folder.record import AUDIO, claimed, digest_of

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


class Unread(Command):
    """A script that has no YAML file, or reads one in a way of its own.

    Where its results go is known at ``fit()``; till then ``folder`` is None.
    """

    ways = "Let it write elsewhere, or give --restart to remove what is there"

    @property
    def settings(self):
        """Say what is run: the script by its digest, its arguments, the federation."""
        script = digest_of(Path(self.hparams_file).read_bytes())
        told = {"script": script, "arguments": self.overrides}
        return told | commands.flat(self.values)

    @property
    def sources(self):
        """The script, and the federation's YAML file."""
        return [str(Path(self.hparams_file).resolve()), *self.others]

    def write_hparams(self):
        """Leave it to the script."""


@contextmanager
def held(words, federation=None, restart=False):
    """Hold the output folder that a command's YAML names, while it trains.

    Arguments
    ---------
    words : list of str
        A script, which may be left out, a YAML file and overrides.
    federation : str
        Another YAML file, with the key ``federation``.
    restart : bool
        Whether what a federation left in the folder goes.

    Yields
    ------
    fedenhance.run_folder.record.Claim, Unread or None
        For :func:`held_at_fit`. None where nothing says what the experiment is, or the
        script sees to it.

    Raises
    ------
    ValueError
        When the folder holds another experiment, or another process trains there.
    """
    script = Path(words[0]).resolve() if words[0].endswith(".py") else None
    command = None
    if script not in CLAIMS_ITSELF:
        command = read(words, federation, restart)
    if command is None or isinstance(command, Unread):
        yield command
    else:
        with claimed(command) as claim:
            yield claim


def apart_if_debug(words):
    """Give a trial a folder of its own, in that of the experiment, which it must spare.

    Arguments
    ---------
    words : list of str
        As of :func:`held`.

    Returns
    -------
    list of str
        With another ``--output_folder`` if ``--debug`` is among them.
    """
    start = 2 if words[0].endswith(".py") else 1
    options = commands.grouped(words[start:])
    command = read(words) if "debug" in options else None
    if type(command) is not Command or Path(words[0]).resolve() in CLAIMS_ITSELF:
        return words
    options["output_folder"] = [f"--output_folder={command.folder}/debug"]
    return words[:start] + sum(options.values(), [])


@contextmanager
def held_at_fit(claim, site):
    """Hold the folder of a site, where nothing has named it before.

    Arguments
    ---------
    claim : fedenhance.run_folder.record.Claim, Unread or None
        Of :func:`held`.
    site : fed.site.Site

    Yields
    ------
    fedenhance.run_folder.record.Claim or None
    """
    if not isinstance(claim, Unread):
        yield claim
        return
    claim.folder = site.output_folder
    claim.save = os.path.relpath(site.save_folder, claim.folder)
    with claimed(claim) as held:
        yield held


def read(words, federation=None, restart=False):
    """Read a command; arguments as of :func:`held`.

    Returns
    -------
    Command or None
        Unread if there is no YAML file that can be read, with an output folder; None if
        there is no script either.
    """
    others = [str(Path(federation).resolve())] if federation else []
    added = read_values(federation).get("federation") if federation else None
    added = {"federation": added} if added else {}
    script = words[0].endswith(".py")
    try:
        file, run_opts, overrides = commands.parse_words(words[script:])
        values = read_values(file, overrides) | added
        folder, save = Path(values["output_folder"]), values.get("save_folder")
    except (KeyError, OSError, TypeError, ValueError, YAMLError) as error:
        if script:
            return Unread(words[0], words[1:], {}, restart, added, None, others)
        logger.warning("No record is kept of this run: %s", error)
        return None
    save = os.path.relpath(save, folder) if save else "save"
    return Command(file, overrides, run_opts, restart, values, folder, others, save)


def fingerprint(site):
    """Digest the rows that clients hold, how long their files are, and who holds them.

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
    table = rows_of(site.train_set)
    rows = {
        str(key): {n: v for n, v in row.items() if is_content(v)}
        for key, row in table.items()
    }
    named = (value for row in table.values() for value in row.values())
    lengths = sizes(v for v in named if isinstance(v, str) and not is_content(v))
    parts = {"rows": rows, "clients": site.partition}
    parts |= {AUDIO: [*lengths.values()]} if lengths else {}
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
