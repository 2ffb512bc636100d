"""Prepare Common Voice for speech recognition.

From the root of the repository::

    python -m recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests
    python -m recipes.CommonVoice.ASR.prepare /data/cv-corpus/fr manifests \
        --train validated.tsv --valid null --test null
"""

import argparse
import csv
from functools import partial
from pathlib import Path

from recipes import transcribed
from recipes.audio_files import Skipped, hash_order
from recipes.manifests import prepare_and_tell

NEEDED = ("client_id", "path", "sentence")
SUFFIXES = ("", ".mp3", ".wav", ".flac")


def prepare(
    data_folder,
    save_folder="manifests",
    train="train.tsv",
    valid="dev.tsv",
    test="test.tsv",
    held_out=0.1,
    case="upper",
    accents=True,
    alphabet=None,
    min_duration=0.3,
    max_duration=None,
    clients=0,
    seed=1234,
    jobs=None,
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
    case : str
        ``upper``, ``lower`` or ``keep``.
    accents : bool
        Keep them.
    alphabet : str, optional
        Utterances with other characters than these are left out.
    min_duration, max_duration : float
        In seconds; utterances beyond are left out. None: no limit.
    clients : int
        Deal the speakers of ``train.csv`` to this many, into ``client0.csv``, ...
    seed : int
        Decides which speakers are held out.
    jobs : int, optional
        Threads.

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
    options = {
        "tables": {split: path.name for split, path in tables.items()},
        "held_out": held_out,
        "seed": seed,
        "case": case,
        "accents": accents,
        "alphabet": alphabet,
        "min_duration": min_duration,
        "max_duration": max_duration,
    }
    status = {str(path.resolve()): path.stat() for path in tables.values()}
    files = {path: [s.st_size, s.st_mtime_ns] for path, s in status.items()}
    listing = partial(list_utterances, data_folder, tables, held_out, seed)
    return transcribed.prepare(
        save_folder, listing, data_folder, options, files, clients, jobs
    )


def list_utterances(data_folder, tables, held_out, seed):
    """List all rows by split; no clip and no speaker is in two of them.

    Returns
    -------
    dict of list of dict
        As recipes.transcribed takes them.
    list of Skipped
    """
    listed = {split: read_table(path, data_folder) for split, path in tables.items()}
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


def read_table(path, data_folder):
    """Read one of Common Voice's tables.

    Raises
    ------
    ValueError
        When it lacks a column.
    """
    comma = path.suffix.lower() == ".csv"
    style = {} if comma else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    rows = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, **style)
        lacking = [name for name in NEEDED if name not in (table.fieldnames or ())]
        if lacking:
            raise ValueError(f"{path} lacks the columns {lacking}: {table.fieldnames}")
        for line in table:
            clip = line["path"] or ""
            rows.append(
                {
                    "ID": Path(clip).stem,
                    "wav": find_clip(data_folder, clip),
                    "spk_id": line["client_id"] or "unknown",
                    "wrd": line["sentence"] or "",
                    "path": clip,
                }
            )
    return rows


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


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_folder", help="of one language: tables, and clips/")
    parser.add_argument("save_folder", help="where the manifests go")

    def table(name):
        return None if name == "null" else name

    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        parser.add_argument(f"--{split}", type=table, default=f"{name}.tsv")
    parser.add_argument("--held_out", type=float, default=0.1)
    parser.add_argument("--case", choices=("upper", "lower", "keep"), default="upper")
    parser.add_argument(
        "--accents", action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument("--alphabet", help="leave out what has other characters")
    parser.add_argument("--max_duration", type=float, help="in seconds")
    parser.add_argument(
        "--clients", type=int, default=0, help="also write client0.csv, ..."
    )
    parser.add_argument("--jobs", type=int)
    prepare_and_tell(prepare, vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
