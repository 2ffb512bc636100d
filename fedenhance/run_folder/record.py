"""A folder belongs to one experiment and, at a time, to one process.

``run.json`` says what the run in a folder is; a lock says who is at it. Processes that
train for another one, with ``FED_WORKER`` in their environment, leave both to it.
"""

import csv
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import speechbrain
import torch

from fedenhance.based_yaml import read_values
from fedenhance.run_folder.commands import GROWING, flat, of_now
from fedenhance.run_folder.files import sizes, sweep, whole_file

logger = logging.getLogger(__name__)

RECORD, LOCK = "run.json", ".lock"
AUDIO = "audio"  # its name among the data of a record
WORKER, SERVER = "FED_WORKER", "FED_SERVER"


class Claim:
    """The record of a run that is under way.

    Arguments
    ---------
    command : fedenhance.run_folder.commands.Command
    record : dict
    before : dict
        The record that was there.

    Attributes
    ----------
    trained : bool
        Whether something was trained in the folder, on data that are known.
    """

    def __init__(self, command, record, before=None):
        self.before = before
        self.command, self.folder, self.record = command, command.folder, record
        self.trained = bool(record.get("data")) and is_used(command)

    def write(self, **news):
        """Write the record, with what is new in it."""
        self.record |= news
        with whole_file(self.folder / RECORD) as partial:
            text = json.dumps(self.record, indent=1, sort_keys=True)
            partial.write_text(f"{text}\n", encoding="utf-8")

    def check_data(self, data, place):
        """Record what is trained on; raise ValueError if it was something else.

        Arguments
        ---------
        data : dict
            Name -> digest. Older versions did not record what is named by a path, nor
            ``audio``.
        place : str
            Where they are, for the message.
        """
        known = self.record["data"]
        own = {n: data[n] for n in data if "/" not in n and n != AUDIO}
        changed = sorted(f for f in {**own, **known} if known.get(f) != data.get(f))
        if self.trained and changed:
            inside = ", ".join(name for name in changed if "/" not in name)
            told = [f"{inside} in {place}"] if inside else []
            told += [name for name in changed if "/" in name]
            self.refuse(f"{', '.join(told)} is not what it was")
        self.write(data=data)

    def refuse(self, reason):
        """Raise the ValueError that says why the folder cannot be used."""
        self.write(**self.before)
        raise refusal(self.command, reason)

    def check_splits(self, datasets):
        """Raise ValueError for what the whole of an experiment does not do without."""
        missing = [s for s in ("train", "valid", "test") if s not in datasets]
        if missing and not os.environ.get(SERVER):
            raise ValueError(
                f"{missing[0]}_csv is null: only machines of a federation "
                "(docs/real-machines.md) do without"
            )


class Worker(Claim):
    """Stands for a claim in processes that train for another one."""

    def write(self, **news):
        """Leave it to the process whose folder it is."""

    def check_data(self, data, place):
        """Likewise."""

    def check_splits(self, datasets):
        """Likewise."""


@contextmanager
def claimed(command):
    """Hold the folder of a command while it trains.

    Arguments
    ---------
    command : fedenhance.run_folder.commands.Command

    Yields
    ------
    Claim
        Finished when the block ends without an error.

    Raises
    ------
    ValueError
        When the folder holds another experiment, naming what differs, or another
        process trains there. Nothing is changed then.
    """
    folder = command.folder
    if os.environ.get(WORKER) or os.environ.get("RANK", "0") != "0":
        yield Worker(command, {})
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        sweep(folder)
        known, used = read_record(folder), is_used(command)
        if used and not (command.restart or command.debug):
            check(known, command)
        elif used or (folder / RECORD).exists():
            clear(command)
            known = None
        claim = Claim(command, describe(command, known or {}), known)
        claim.write()
        command.write_hparams()
        with as_worker():
            yield claim
        trained = not command.run_opts.get("test_only")
        claim.write(finished=trained or is_whole(known, command))


def as_worker():
    """Let what is called or started within leave claims to this process."""
    return told(WORKER)


def as_server():
    """Let what is called within do without data that the machines of others hold."""
    return told(SERVER)


@contextmanager
def told(name):
    """Set a variable of the environment."""
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def describe(command, known):
    """Say what a run is.

    Arguments
    ---------
    command : fedenhance.run_folder.commands.Command
    known : dict
        The record that it goes on with, or an empty one.

    Returns
    -------
    dict
        ``sources``, the YAML files; ``settings``; ``metric``, by which the best model
        is chosen; ``data``, digests of manifests; ``code``, of all versions that
        trained it; ``debug``; ``finished``.
    """
    settings, code, now = command.settings, known.get("code", []), version()
    if code and now != code[-1]:
        logger.warning("Going on with other code: %s, then %s", code[-1], now)
    ways = ("maximize", "minimize", "federation.maximize", "federation.minimize")
    named = [f"{way} {settings[way]}" for way in ways if settings.get(way)]
    return {
        "sources": command.sources,
        "settings": settings,
        "metric": named[0] if named else "minimize loss",
        "data": known.get("data", {}),
        "code": code if now in code[-1:] else [*code, now],
        "debug": command.debug,
        "finished": False,
    }


def read_record(folder):
    """Read the record of a folder; None if nothing says what is there.

    Of a run that is older than records, ``hyperparams.yaml`` says it.
    """
    path, older = Path(folder) / RECORD, Path(folder) / "hyperparams.yaml"
    if path.exists():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return {**record, "settings": of_now(record["settings"])}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); remove {folder}") from error
    if not older.exists():
        return None
    values = read_values(older)
    settings = flat(values, str(values.get("output_folder", "")))
    sources = [str(older)]
    return {"settings": of_now(settings), "sources": sources, "finished": False}


def is_finished(command):
    """Whether the run of a command is finished.

    Raises
    ------
    ValueError
        When its folder holds another experiment.
    """
    known = read_record(command.folder)
    if command.restart or command.debug or not known or not is_used(command):
        return False
    check(known, command)
    return is_whole(known, command)


def is_whole(known, command):
    """Whether a record is of all that a command asks for, finished."""
    return bool(known and known["finished"] and known["settings"] == command.settings)


def check(known, command):
    """Raise ValueError if a folder holds another experiment than a command's."""
    if not known:
        raise refusal(command, f"it holds a model, and no {RECORD} says of what")
    new, old = command.settings, known["settings"]
    differing = {
        key: (old.get(key, "absent"), new.get(key, "absent"))
        for key in sorted({**old, **new}, key=lambda key: (key.count("."), key))
    }
    differing = {k: pair for k, pair in differing.items() if differs(k, *pair)}
    # What refers to a key of the top level is not named beside it.
    causes = [repr(pair) for key, pair in differing.items() if "." not in key]
    told = [
        f"{key} is {pair[0]!r} there, not {pair[1]!r}"
        for key, pair in differing.items()
        if "." not in key or repr(pair) not in causes
    ]
    if len(told) > 6:
        told[6:] = [f"and {len(told) - 6} more"]
    if told:
        raise refusal(command, f"{'; '.join(told)} (of {known['sources'][-1]})")


def differs(key, old, new):
    """Whether a setting makes another experiment; a run may go on for longer.

    Example
    -------
    >>> differs("rounds", 30, 60), differs("rounds", 60, 30), differs("seed", 1, 1)
    (False, True, False)
    """
    longer = key in GROWING and isinstance(old, int) and isinstance(new, int)
    return new < old if longer else new != old


def refusal(command, reason):
    """Make the error that says why a folder cannot be used, and what can be done."""
    told = f"{command.folder} holds another experiment: {reason}. {command.ways}"
    return ValueError(told)


def is_used(command):
    """Whether something was trained in a command's folder that a run can go on from."""
    return any(any(command.folder.glob(pattern)) for pattern in command.traces)


def clear(command):
    """Remove what a run left in its folder, the record last."""
    for path in (command.folder / name for name in command.written):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder):
    """Be the one process that trains in a folder; a lock dies with its process.

    It belongs to the process alone: children that a killed one leaves do not hold it.

    Raises
    ------
    ValueError
        Naming the folder, and the process that is there.
    """
    with open(Path(folder) / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use: process {file.read().strip()} trains there. Wait "
                "for it, or give another --output_folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def digests(hparams):
    """Digest what is trained on, as far as that is quick.

    Arguments
    ---------
    hparams : dict
        With ``manifest_folder``, ``data_folder``, ``noise_folder`` and ``*_csv``, or
        without.

    Returns
    -------
    dict
        Name of each manifest, or path where it is not in the manifest folder ->
        digest of what it says; ``audio`` -> digest of how long the files are that
        manifests name; path of the noise folder -> digest of what its files are
        called and how long they are.
    """
    folder, noises = hparams.get("manifest_folder"), hparams.get("noise_folder")
    tables = {*Path(folder).glob("*.csv")} if folder else set()
    given = [value for key, value in hparams.items() if key.endswith("_csv") and value]
    lists = (value if isinstance(value, list) else [value] for value in given)
    tables |= {Path(table) for value in lists for table in value}
    found, named = {}, []
    for path in sorted(tables):
        if path.name != "skipped.csv" and path.is_file():
            inside = folder and path.parent == Path(folder)
            text = path.read_bytes()
            found[path.name if inside else str(path.absolute())] = digest_of(text)
            named += paths_in(text, str(hparams.get("data_folder")))
    if lengths := sizes(named):
        found[AUDIO] = digest_of(repr([*lengths.values()]).encode())
    if noises:
        lengths = sizes(map(str, sorted(Path(noises).rglob("*"))))
        pairs = [(str(Path(f).relative_to(noises)), n) for f, n in lengths.items()]
        found[str(Path(noises).absolute())] = digest_of(repr(pairs).encode())
    return found


def paths_in(table, data_root):
    r"""List the cells of a table that may be paths.

    Arguments
    ---------
    table : bytes
        As :func:`fedenhance.data.tables.read_table` reads it, or anything else.
    data_root : str
        Replaces ``$data_root``.

    Returns
    -------
    list of str

    Example
    -------
    >>> paths_in(b"ID;noisy\na;$data_root/a.wav\n", "/data")
    ['/data/a.wav']
    """
    lines = table.decode("utf-8", "replace").splitlines()
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    try:
        cells = [cell for row in csv.reader(lines, delimiter=delimiter) for cell in row]
    except csv.Error:
        return []  # who reads it says why
    paths = (cell.strip().replace("\\", "/") for cell in cells)
    return [path.replace("$data_root", data_root) for path in paths if "/" in path]


def digest_of(data):
    """Digest bytes, in 16 letters."""
    return hashlib.sha256(data).hexdigest()[:16]


def version():
    """Digest the project's code, with what it runs on."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("fed", "fedenhance"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{digest.hexdigest()[:12]}, Python {python}, PyTorch {torch.__version__}, "
        f"SpeechBrain {speechbrain.__version__}"
    )
