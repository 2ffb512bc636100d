"""A folder belongs to one experiment and, at a time, to one process.

``run.json`` says what the run in a folder is; a lock says who is at it. Processes that
train for another one, with ``FED_WORKER`` in their environment, leave both to it.
"""

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

from based_yaml import read_values, sources_of
from fedenhance.data.tables import write_json
from fedenhance.training.settings import GROWING, flat

logger = logging.getLogger(__name__)

RECORD, LOCK = "run.json", ".lock"
WORKER = "FED_WORKER"
WRITTEN = (
    *("hyperparams.yaml", "env.log", "log.txt", "train.py", "train_log.txt"),
    *("rounds.csv", "clients.csv", "clients_data.csv", "wer_test.txt"),
    *("valid_mixtures.csv", "test_mixtures.csv", "test_metrics.csv", "report.html"),
    *("save", "figures", "audio", "package", "evaluation", "tensorboard", "wandb"),
    *("debug", RECORD),
)
"""What a run leaves in its folder. Manifests stay: preparing finds out what is new."""


class Claim:
    """The record of a run that is under way.

    Arguments
    ---------
    folder : Path
    record : dict
    """

    def __init__(self, folder, record):
        self.folder, self.record = folder, record

    def write(self, **news):
        """Write the record, with what is new in it."""
        self.record |= news
        write_json(self.folder / RECORD, self.record)

    def check_data(self, manifest_folder):
        """Record the manifests; raise ValueError if others were trained on before."""
        data = digests(manifest_folder)
        known = self.record["data"]
        changed = [f for f in {**known, **data} if known.get(f) != data.get(f)]
        if known and changed and is_used(self.folder):
            told = f"{', '.join(changed)} in {manifest_folder} is not what it was"
            raise refusal(self.folder, told)
        self.write(data=data)


class Worker(Claim):
    """Stands for a claim in processes that train for another one."""

    def write(self, **news):
        """Leave it to the process whose folder it is."""

    def check_data(self, manifest_folder):
        """Likewise."""


@contextmanager
def claimed(command):
    """Hold the folder of a command while it trains.

    Arguments
    ---------
    command : fedenhance.training.settings.Command

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
        yield Worker(folder, {})
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        known, used = read_record(folder), is_used(folder)
        if used and not (command.restart or command.debug):
            check(folder, known, command)
        elif used or (folder / RECORD).exists():
            clear(folder)
            known = None
        claim = Claim(folder, describe(command, known or {}))
        claim.write()
        os.environ[WORKER] = "1"
        try:
            yield claim
        finally:
            del os.environ[WORKER]
        claim.write(finished=True)


def describe(command, known):
    """Say what a run is.

    Arguments
    ---------
    command : fedenhance.training.settings.Command
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
        "sources": sources_of(command.hparams_file),
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
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); remove {folder}") from error
    if not older.exists():
        return None
    values = read_values(older)
    settings = flat(values, str(values.get("output_folder", "")))
    return {"settings": settings, "sources": [str(older)], "finished": False}


def is_finished(command):
    """Whether the run of a command is finished.

    Raises
    ------
    ValueError
        When its folder holds another experiment.
    """
    known = read_record(command.folder)
    if command.restart or command.debug or not known or not is_used(command.folder):
        return False
    check(command.folder, known, command)
    return known["finished"] and known["settings"] == command.settings


def check(folder, known, command):
    """Raise ValueError if a folder holds another experiment than a command's."""
    if not known:
        raise refusal(folder, f"it holds a model, and no {RECORD} says of what")
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
        raise refusal(folder, f"{'; '.join(told)} (of {known['sources'][-1]})")


def differs(key, old, new):
    """Whether a setting makes another experiment; a run may go on for longer.

    Example
    -------
    >>> differs("rounds", 30, 60), differs("rounds", 60, 30), differs("seed", 1, 1)
    (False, True, False)
    """
    longer = key in GROWING and isinstance(old, int) and isinstance(new, int)
    return new < old if longer else new != old


def refusal(folder, reason):
    """Make the error that says why a folder cannot be used, and what can be done."""
    return ValueError(
        f"{folder} holds another experiment: {reason}. Give another --output_folder, "
        "or --restart to remove what is there"
    )


def is_used(folder):
    """Whether something was trained in a folder that a run can go on from."""
    save = Path(folder) / "save"
    return any(any(save.glob(pattern)) for pattern in ("federation*", "CKPT*"))


def clear(folder):
    """Remove what a run left in its folder, the record last."""
    for path in (Path(folder) / name for name in WRITTEN):
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


def digests(manifest_folder):
    """Digest the manifests of a folder, by name; there may be none."""
    tables = sorted(Path(manifest_folder).glob("*.csv")) if manifest_folder else []
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in tables
        if path.name != "skipped.csv"
    }


def version():
    """Digest the project's code, with what it runs on."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for place in (".", "fed", "fedenhance", "recipes", "run_folder"):
        found = (root / place).glob("*.py" if place == "." else "**/*.py")
        for path in sorted(found):
            digest.update(path.read_bytes())
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{digest.hexdigest()[:12]}, Python {python}, PyTorch {torch.__version__}, "
        f"SpeechBrain {speechbrain.__version__}"
    )
