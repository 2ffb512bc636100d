"""SpeechBrain's checkpoints, which count when they are complete; damage is named."""

import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint, Checkpointer
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

ASIDE = ".saving"
"""Folder beside the checkpoints in which the next one is made."""


KEYS = {"max_keys", "min_keys"}
"""What SpeechBrain's ``save_and_keep_only`` is told of the best; noted in the meta."""


class DamagedFileError(ValueError):
    """A file that is not what was written; the message names it and says what to do.

    Arguments
    ---------
    path : str or Path
    reason, advice : str
    """

    def __init__(self, path, reason, advice):
        super().__init__(f"{path} is damaged ({reason}); {advice}")


class Checkpoints(Checkpointer):
    """SpeechBrain's Checkpointer, of which a kill leaves no half checkpoint.

    One is made aside and moved into its place. What is incomplete all the same, as
    older versions and other programs leave it, is passed over, and a warning names it.
    Arguments are SpeechBrain's.
    """

    def save_checkpoint(self, meta=None, end_of_epoch=True, name=None, **options):
        """Save as SpeechBrain does, whole or not at all.

        Returns
        -------
        Checkpoint
        """
        place = self.checkpoints_dir
        self.checkpoints_dir = place / ASIDE
        shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
        self.checkpoints_dir.mkdir()
        try:
            made = super().save_checkpoint(meta or {}, end_of_epoch, name, **options)
        finally:
            self.checkpoints_dir = place
        for file in made.path.iterdir():
            with open(file, "rb") as written:
                os.fsync(written.fileno())
        path = place / made.path.name
        if name is None:
            path = unused(path)
        shutil.rmtree(path, ignore_errors=True)  # of the same name, which was asked for
        made.path.replace(path)
        files = {key: path / file.name for key, file in made.paramfiles.items()}
        return Checkpoint(path, made.meta, files)

    def save_and_keep_only(self, meta=None, **options):
        """Save, and keep the best and the newest, as SpeechBrain does.

        What is best by is noted in the checkpoint's meta, under ``max_keys`` and
        ``min_keys``: for :meth:`find_best`, and for :meth:`tidy` after a kill.

        Arguments
        ---------
        meta : dict
        **options
            Of SpeechBrain.
        """
        rule = {key: list(options.get(key) or ()) for key in KEYS}
        noted = rule if options.keys() <= rule.keys() else {}
        options.setdefault("importance_keys", [])  # SpeechBrain's default grows
        super().save_and_keep_only({**(meta or {}), **noted}, **options)

    def recover_if_possible(self, *args, **kwargs):
        """Load the newest checkpoint, or the one asked for; tidy up before."""
        self.tidy()
        return super().recover_if_possible(*args, **kwargs)

    def tidy(self):
        """Remove what a kill between saving and removing, or within it, has left."""
        own = {f"{name}.ckpt" for name in self.recoverables}
        for path in self.checkpoints_dir.glob("CKPT+*"):
            files = {file.name for file in path.iterdir()} if path.is_dir() else {None}
            if files <= own:  # without CKPT.yaml
                shutil.rmtree(path)
        newest = self.find_checkpoint()
        if newest is not None and KEYS <= newest.meta.keys():
            self.delete_checkpoints(**{key: newest.meta[key] for key in KEYS})

    def find_best(self):
        """Find the best checkpoint, by what its run chose it by; None if none tells.

        Returns
        -------
        Checkpoint or None
        """
        newest = self.find_checkpoint()
        if newest is None or not KEYS <= newest.meta.keys():
            return None
        for kind, name in (("max_keys", "max_key"), ("min_keys", "min_key")):
            for key in newest.meta[kind]:
                return self.find_checkpoint(**{name: key})

    def list_checkpoints(self):
        """List those that are complete; name the others."""
        complete = []
        for path in self._list_checkpoint_dirs():
            if reason := lacking(path):
                logger.warning_once(
                    f"{path} is no complete checkpoint and is passed over ({reason}): "
                    "remove it"
                )
            else:
                complete.append(path)
        return self._construct_checkpoint_objects(complete)

    def load_checkpoint(self, checkpoint):
        """Load what was written, and nothing else.

        Raises
        ------
        DamagedFileError
            Naming a file that has changed since.
        """
        advice = f"put {checkpoint.path} back as it was, or start anew"
        check(checkpoint, advice)
        try:
            super().load_checkpoint(checkpoint)
        except (EOFError, ValueError) as error:
            raise DamagedFileError(checkpoint.path, error, advice) from error


def check_reported(metric, reported):
    """Raise ValueError if validation does not tell what the best model is chosen by.

    Arguments
    ---------
    metric : str
    reported : collection of str
        Names, or patterns such as ``si_sdri_*``.
    """
    if not any(fnmatchcase(metric, name) for name in reported):
        raise ValueError(
            f"The best model is to be chosen by '{metric}', but validation reports "
            f"{[*reported]}; set maximize or minimize to one of them."
        )


def unused(path):
    """Find the next name of a checkpoint that there is not.

    SpeechBrain's end in the second and a number.
    """
    start, _, number = path.name.rpartition("+")
    while path.exists():
        number = f"{int(number) + 1:02d}"
        path = path.with_name(f"{start}+{number}")
    return path


def lacking(path):
    """Say what a checkpoint lacks; nothing if it is complete.

    Arguments
    ---------
    path : Path
        Its folder.
    """
    try:
        text = (Path(path) / METAFNAME).read_text(encoding="utf-8")
        meta = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return f"{METAFNAME}: {str(error).splitlines()[0]}"
    whole = isinstance(meta, dict) and {"unixtime", "end-of-epoch"} <= meta.keys()
    if not (whole and text.endswith("\n")):
        return f"{METAFNAME} is {'cut short' if text else 'empty'}"
    for file in sorted(Path(path).glob("*.ckpt")):
        if not file.stat().st_size:
            return f"{file.name} is empty"
        if is_archive(file) and not zipfile.is_zipfile(file):
            return f"{file.name} is cut short"
    return None


def is_archive(file):
    """Tell whether a file begins as those of ``torch.save`` do."""
    with open(file, "rb") as opened:
        return opened.read(4) == b"PK\3\4"


def check(checkpoint, advice):
    """Raise DamagedFileError if a file of a checkpoint is not what was written."""
    for file in checkpoint.paramfiles.values():
        if is_archive(file):
            check_archive(file, advice)


def check_archive(path, advice):
    """See that a file of ``torch.save`` is what was written.

    It is a ZIP archive with a checksum (CRC-32) of each part, which ``torch.load``
    does not look at.

    Arguments
    ---------
    path : str or Path
    advice : str
        What to do about a damaged one.

    Raises
    ------
    FileNotFoundError
    DamagedFileError
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        with suppress(pickle.UnpicklingError):  # what its content may be, others say
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever its damaged parts are taken for
        reason = str(error).split(". ")[0]
        raise DamagedFileError(path, reason, advice) from error
    if damaged:
        raise DamagedFileError(path, f"the checksum of {damaged} differs", advice)
