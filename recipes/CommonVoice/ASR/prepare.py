"""Prepare Common Voice for speech recognition.

From the root of the repository::

    python -m recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests
    python -m recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests \
        --train validated.tsv --valid null --test null
"""

import csv
import functools
from pathlib import Path

from fedenhance.data.tables import read_table
from recipes import preparation, transcribed
from recipes.audio_files import Skipped, hash_order

NEEDED = ("client_id", "path", "sentence")
SUFFIXES = ("", ".mp3", ".wav", ".flac")


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
    tables were prepared with the same options.

    Arguments
    ---------
    data_folder : str
        Of one language: holds the tables, and ``clips/`` with mp3, wav or flac.
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
        Of :func:`recipes.transcribed.prepare`, such as ``case`` and ``max_duration``.

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
    details = {
        "tables": {split: path.name for split, path in tables.items()},
        "held_out": held_out,
        "seed": seed,
    }
    listing = functools.partial(list_utterances, data_folder, tables, held_out, seed)
    return transcribed.prepare(
        save_folder, listing, data_folder, files, details, **options
    )


def list_utterances(data_folder, tables, held_out, seed):
    """List all rows by split; no clip and no speaker is in two of them.

    Returns
    -------
    dict of list of dict
        As recipes.transcribed takes them.
    list of Skipped
    """
    listed = {split: list_table(path, data_folder) for split, path in tables.items()}
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
    left_out = {path for path, _ in skipped}
    rows = [row for row in listed["train"] if row["path"] not in left_out]
    held = {split: found for split, found in listed.items() if split != "train"}
    for split in ("valid", "test"):
        if split not in held and held_out:
            speakers = hash_order({row["spk_id"] for row in rows}, seed, split)
            chosen = set(speakers[: max(1, round(held_out * len(speakers)))])
            held[split] = [row for row in rows if row["spk_id"] in chosen]
            rows = [row for row in rows if row["spk_id"] not in chosen]
    return {"train": rows, **held}, skipped


def list_table(path, data_folder):
    """List the rows of one of Common Voice's tables.

    Raises
    ------
    ValueError
        When it lacks a column.
    """
    comma = path.suffix.lower() == ".csv"
    style = {} if comma else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return [
        {
            "ID": Path(line["path"] or "").stem,
            "wav": find_clip(data_folder, line["path"] or ""),
            "spk_id": line["client_id"] or "unknown",
            "wrd": line["sentence"] or "",
            "path": line["path"] or "",
        }
        for line in read_table(path, NEEDED, **style)
    ]


def find_clip(data_folder, clip):
    """Find a clip below ``clips/`` or the data folder, with its suffix or without.

    Returns
    -------
    str or None
        Relative to the data folder.
    """
    for folder in ("clips", "."):
        for suffix in SUFFIXES:
            path = Path(folder) / f"{clip}{suffix}"
            if clip and (data_folder / path).is_file():
                return path.as_posix()
    return None


if __name__ == "__main__":
    preparation.main(prepare, transcribed.prepare)
