"""What every preparation of a corpus shares: done once, checked, and written whole.

A preparation is a function ``prepare(data_folder, save_folder, ...)`` that YAML names.
It makes rows of manifests, in which ``$data_root`` stands for the data folder, and
returns the record that declares them finished. :func:`main` gives it a command line.
"""

import argparse
import hashlib
import inspect
import json
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fedenhance.data.folders import Skipped, count_reasons
from fedenhance.data.tables import write_json, write_table

RECORD = "prepare.json"

logger = get_logger(__name__)


def parser_of(prepare, shared):
    """Make the command line of a preparation from the signature of the function.

    The two folders are positional, the second with its default; all else is an option:
    ``--name/--no-name`` for a bool, several values for a tuple; ``null`` stands for
    None.

    Arguments
    ---------
    prepare : callable
        ``prepare(data_folder, save_folder, ..., **options)``; what has None as its
        default is annotated with its type.
    shared : callable
        Takes the ``**options``, as arguments with keywords alone.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(prepare),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own, others = (inspect.signature(f).parameters for f in (prepare, shared))
    parameters = {n: p for n, p in own.items() if p.kind is not p.VAR_KEYWORD}
    parameters |= {n: p for n, p in others.items() if p.kind is p.KEYWORD_ONLY}
    for name, parameter in parameters.items():
        default = parameter.default
        kind = type(default) if default is not None else parameter.annotation
        if name in ("data_folder", "save_folder"):
            optional = {} if default is None else {"nargs": "?", "default": default}
            parser.add_argument(name, **optional)
        elif kind is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(f"--{name}", action=action, default=default)
        elif kind is tuple:
            parser.add_argument(f"--{name}", nargs="+", default=default)
        else:
            parser.add_argument(f"--{name}", type=_or_none(kind), default=default)
    return parser


def _or_none(kind):
    def convert(text):
        return None if text == "null" else kind(text)

    convert.__name__ = kind.__name__  # what argparse calls it in errors
    return convert


def tell(prepare, arguments):
    """Prepare, and print the counts, or end with one line that says what is wrong.

    Arguments
    ---------
    prepare : callable
    arguments : dict
    """
    try:
        record = prepare(**arguments)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    tqdm.write(json.dumps(record["counts"], indent=1))


def main(prepare, shared, argv=None):
    """Prepare from the command line; arguments as those of :func:`parser_of`."""
    tell(prepare, vars(parser_of(prepare, shared).parse_args(argv)))


def fingerprint_of(*facts):
    """Digest of all that manifests depend on, such as options and files with times."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def file_digest(path):
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def fixed(refuse):
    """Prepare nothing anew within, as a model was trained on what is prepared.

    Arguments
    ---------
    refuse : callable or None
        Called with what is to be said, instead of preparing anew; it must raise.
    """
    token = _refuse.set(refuse)
    try:
        yield
    finally:
        _refuse.reset(token)


_refuse = ContextVar("refuse", default=None)


def finished(save_folder, fingerprint):
    """Find the record of an earlier preparation of the same files and options.

    Arguments
    ---------
    save_folder : pathlib.Path
        Holds the manifests.
    fingerprint : str
        Of files and options.

    Returns
    -------
    dict or None
        None when there is no such record, or a manifest is not what it was.
    """
    try:
        record = json.loads((save_folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    same = (
        record.get("fingerprint") == fingerprint
        and (not record.get("stored_in") or Path(record["stored_in"]).is_dir())
        and all(
            (save_folder / name).exists() and file_digest(save_folder / name) == digest
            for name, digest in record["manifests"].items()
        )
    )
    if refuse := _refuse.get():
        if record.get("fingerprint") != fingerprint:
            refuse(
                f"{save_folder} was prepared from other files, or otherwise (--prepare "
                "null goes on with what is prepared)"
            )
    if same:
        logger.info(f"{save_folder} is prepared already.")
    return record if same else None


def hours_of(rows):
    """Hours of audio in the rows of a split."""
    return round(sum(row["duration"] for row in rows) / 3600, 4)


def shared_values(tables, columns):
    """Find what two splits share, though they must not.

    Arguments
    ---------
    tables : dict
        Split -> rows.
    columns : sequence of str
        Where to look.

    Yields
    ------
    (column, value, split, other split)

    Example
    -------
    >>> train, test = [{"spk_id": "a"}], [{"spk_id": "b"}, {"spk_id": "a"}]
    >>> list(shared_values({"train": train, "test": test}, ["spk_id"]))
    [('spk_id', 'a', 'test', 'train')]
    """
    for column in columns:
        owner = {}
        for split, rows in tables.items():
            for value in dict.fromkeys(row[column] for row in rows):
                if owner.setdefault(value, split) != split:
                    yield column, value, split, owner[value]


def check_tables(tables, skipped, apart=()):
    """Raise ValueError when a split is empty, or shares something with another.

    Arguments
    ---------
    tables : dict
        Split -> rows.
    skipped : list of Skipped
        Told as reasons of emptiness.
    apart : sequence of str
        Columns of which no value may be in two splits.
    """
    for split, rows in tables.items():
        if not rows:
            reasons = sorted({f"{path}: {reason}" for path, reason in skipped})[:3]
            raise ValueError(f"Split {split} has no usable recording. {reasons}")
    for column, value, split, other in shared_values(tables, apart):
        raise ValueError(
            f"{column} {value} is both in {other} and in {split}: the splits must not "
            "share speakers or clips."
        )


def write_manifests(save_folder, tables, columns, skipped, count, **record):
    """Write manifests and skipped.csv, then the record that declares them finished.

    Arguments
    ---------
    save_folder : pathlib.Path
        Where they go.
    tables : dict
        Split -> rows.
    columns : list of str
        What of the rows is written.
    skipped : list of Skipped
        Files that were left out.
    count : callable
        Rows -> dict of the numbers to tell of a split.
    **record
        What the record holds as well: options, fingerprint, ``stored_in`` where audio
        was written.

    Returns
    -------
    dict
        The record.
    """
    skipped = sorted(set(skipped))
    save_folder.mkdir(parents=True, exist_ok=True)
    (save_folder / RECORD).unlink(missing_ok=True)
    left_out = [file._asdict() for file in skipped]
    write_table(save_folder / "skipped.csv", left_out, Skipped._fields)
    for split, rows in tables.items():
        write_table(save_folder / f"{split}.csv", rows, columns)
    names = [f"{split}.csv" for split in tables]
    record |= {
        "counts": {split: count(rows) for split, rows in tables.items()},
        "skipped": len(skipped),
        "manifests": {name: file_digest(save_folder / name) for name in names},
    }
    write_json(save_folder / RECORD, record)
    for split, counts in record["counts"].items():
        told = (f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
        logger.info(f"{split}: {', '.join(told)}.")
    for path, reason in skipped[:10]:
        logger.warning(f"Skipped {path}: {reason}.")
    if skipped:
        told = count_reasons(skipped)
        logger.warning(f"{told}; see {save_folder / 'skipped.csv'}.")
    return record
