"""Prepare Common Voice for speech recognition.

From the root of the repository::

    python -m fedenhance.recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests
    python -m fedenhance.recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests \
        --train validated.tsv --valid null --test null
"""

import csv
import functools
import posixpath
from pathlib import Path

from fedenhance.data.folders import Skipped, find_files
from fedenhance.data.tables import read_table
from fedenhance.recipes import preparation, transcribed
from fedenhance.recipes.audio_files import hash_order

NEEDED = ("client_id", "path", "sentence")
SUFFIXES = ("", ".mp3", ".wav", ".flac", ".m4a", ".webm", ".ogg", ".opus")


def prepare(
    data_folder,
    save_folder="manifests",
    train="train.tsv",
    valid="dev.tsv",
    test="test.tsv",
    held_out=0.1,
    seed=1234,
    **options,
):
    """Write ``train.csv``, ``valid.csv`` and ``test.csv``: ID,duration,wav,spk_id,wrd.

    ``skipped.csv`` names what was left out, and why. Nothing is done when the same
    tables and clips were prepared with the same options.

    Arguments
    ---------
    data_folder : str
        Of one language: holds the tables, and ``clips/`` with mp3, wav or flac, or
        whatever else can be read.
    save_folder : str
        Where the manifests go.
    train, valid, test : str
        Tables with the columns ``client_id``, ``path`` and ``sentence``: tab-separated,
        or ``.csv`` with commas; relative to the data folder. Rows of ``train`` whose
        clip or speaker is in another table are left out, so that ``validated.tsv``
        serves. Without ``valid`` or ``test``, speakers are taken from ``train``.
    held_out : float
        Share of the speakers of ``train`` that each of these takes, at least one. 0:
        there is none, as on a client's own machine.
    seed : int
        Decides which speakers are held out.
    **options
        Of :func:`fedenhance.recipes.transcribed.prepare`, such as ``case``.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps.

    Raises
    ------
    FileNotFoundError, ValueError
        When a table is missing, lacks a column, or has no usable utterance.
    """
    data_folder = Path(data_folder)
    tables = {"train": train, "valid": valid, "test": test}
    tables = {k: data_folder / name for k, name in tables.items() if name}
    for path in tables.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path}: data_folder must hold Common Voice's tables of "
                "one language, and clips/"
            )
    status = {str(path.resolve()): path.stat() for path in tables.values()}
    files = {path: [s.st_size, s.st_mtime_ns] for path, s in status.items()}
    clips, left_out = find_files(data_folder)
    details = {
        "tables": {split: path.name for split, path in tables.items()},
        "held_out": held_out,
        "seed": seed,
    }
    listing = functools.partial(
        list_utterances, tables, held_out, seed, clips, left_out
    )
    files |= clips | dict(left_out)
    return transcribed.prepare(
        save_folder, listing, data_folder, files, details, **options
    )


def list_utterances(tables, held_out, seed, clips, left_out=()):
    """List all rows by split; no clip and no speaker is in two of them.

    Arguments
    ---------
    tables : dict
        Split -> path.
    held_out, seed : float, int
        As :func:`prepare` takes them.
    clips, left_out : iterable of str, list of Skipped
        Of the data folder, as :func:`fedenhance.data.folders.find_files` finds them.

    Returns
    -------
    dict of list of dict
        As recipes.transcribed takes them.
    list of Skipped
    """
    clips = {*clips, *(path for path, _ in left_out)}  # each with its own fault
    listed = {split: list_table(path, clips) for split, path in tables.items()}
    named = {row["wav"] for rows in listed.values() for row in rows}
    taken = {
        row[key]
        for split in ("valid", "test")
        for row in listed.get(split, ())
        for key in ("ID", "spk_id")
    }
    skipped = [
        Skipped(row["path"], "its clip or speaker is in another table")
        for row in listed["train"]
        if row["ID"] in taken or row["spk_id"] in taken
    ]
    apart = {path for path, _ in skipped}
    rows = [row for row in listed["train"] if row["path"] not in apart]
    skipped += [file for file in left_out if file.path not in named]
    held = {split: found for split, found in listed.items() if split != "train"}
    for split in ("valid", "test"):
        if split not in held and held_out:
            speakers = hash_order({row["spk_id"] for row in rows}, seed, split)
            chosen = set(speakers[: max(1, round(held_out * len(speakers)))])
            held[split] = [row for row in rows if row["spk_id"] in chosen]
            rows = [row for row in rows if row["spk_id"] not in chosen]
    return {"train": rows, **held}, skipped


def list_table(path, clips):
    """List the rows of one of Common Voice's tables, with their clips among those.

    Raises
    ------
    ValueError
        When it lacks a column.
    """
    comma = path.suffix.lower() == ".csv"
    style = {} if comma else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return [
        {
            "ID": Path(line["path"]).stem,
            "wav": find_clip(clips, line["path"]),
            "spk_id": line["client_id"] or "unknown",
            "wrd": line["sentence"],
            "path": line["path"],
        }
        for line in read_table(path, NEEDED, **style)
    ]


def find_clip(clips, name):
    """Find a clip below ``clips/`` or the data folder, with its suffix or without.

    Returns
    -------
    str or None
        Relative to the data folder.

    Example
    -------
    >>> find_clip({"clips/a.mp3", "b.wav"}, "a"), find_clip({"clips/a.mp3"}, "b.wav")
    ('clips/a.mp3', None)
    """
    for folder in ("clips", "."):
        for suffix in SUFFIXES:
            path = posixpath.normpath(f"{folder}/{name}{suffix}".replace("\\", "/"))
            if path in clips:
                return path
    return None


if __name__ == "__main__":
    preparation.main(prepare, transcribed.prepare)
