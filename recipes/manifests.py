"""What the recipes share: rows of chunks, and manifests that appear whole.

A row pairs a chunk of speech with a chunk of noise; positions are frames of the named
file, and ``$data_root`` stands for the data folder.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from recipes import storage
from recipes.audio_files import Skipped, file_digest, write_csv, write_json

COLUMNS = [
    "ID",
    "duration",
    "spk_id",
    "speech",
    "speech_start",
    "speech_stop",
    "noise",
    "noise_start",
    "noise_stop",
    "noise_class",
    "noise_id",
    "padded",
]
RECORD = "prepare.json"
SIDES = ("speech", "noise")

logger = get_logger(__name__)


def prepare_and_tell(prepare, arguments):
    """Prepare from the command line: print the counts, or end with what is wrong.

    Arguments
    ---------
    prepare : callable
        Of a recipe; returns its record.
    arguments : dict
        Its arguments.
    """
    try:
        record = prepare(**arguments)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    tqdm.write(json.dumps(record["counts"], indent=1))


def chunk_rows(speech, noise, headers, common, options):
    """Rows of one utterance with one noise.

    Both count as one chunk long at least; there are as many rows as the shorter has
    whole chunks, or, with ``loop_noise``, as the utterance has.

    Arguments
    ---------
    speech, noise : str
        Paths relative to the data folder.
    headers : dict
        Path -> recipes.audio_files.Header.
    common : dict
        Columns that all rows have: spk_id, noise_class, noise_id.
    options : dict
        chunk_seconds, loop_noise.

    Returns
    -------
    list of dict
        With the columns of a manifest; ``_speech_rate`` and ``_noise_rate``, in Hz,
        are for :mod:`recipes.storage`.

    Example
    -------
    >>> from recipes.audio_files import Header
    >>> headers = {"s.flac": Header(200, 10, 1), "n.wav": Header(30, 10, 1)}
    >>> options = {"chunk_seconds": 4.0, "loop_noise": False}
    >>> (row,) = chunk_rows("s.flac", "n.wav", headers, {"spk_id": "7"}, options)
    >>> row["ID"], row["speech_stop"], row["noise_stop"], row["padded"]
    ('s_0', 40, 30, 'noise')
    """
    seconds = options["chunk_seconds"]
    paths = dict(zip(SIDES, (speech, noise), strict=True))
    length = {s: round(seconds * headers[p].sample_rate) for s, p in paths.items()}
    whole = {s: max(1, headers[p].frames // length[s]) for s, p in paths.items()}
    count = whole["speech"] if options["loop_noise"] else min(whole.values())
    rows = []
    for number in range(count):
        row = {"ID": f"{Path(speech).stem}_{number}", "duration": seconds, **common}
        padded = []
        for side, path in paths.items():
            start = number % whole[side] * length[side]
            stop = min(start + length[side], headers[path].frames)
            if stop - start < length[side]:
                padded.append(side)
            row[side] = f"$data_root/{path}"
            row[f"{side}_start"], row[f"{side}_stop"] = start, stop
            row[f"_{side}_rate"] = headers[path].sample_rate
        row["padded"] = " ".join(padded)
        rows.append(row)
    return rows


def check_options(options):
    """Raise ValueError for a storage or a length of chunks that cannot be."""
    if options["storage"] not in storage.STORAGES:
        choices = ", ".join(storage.STORAGES)
        raise ValueError(f"storage must be one of {choices}: {options['storage']!r}")
    if options["chunk_seconds"] <= 0:
        raise ValueError(f"chunk_seconds must be > 0: {options['chunk_seconds']}")


def check_tables(tables, columns=("ID", "spk_id", "noise_id")):
    """Raise ValueError when a split is empty or shares something with another.

    Arguments
    ---------
    tables : dict
        Split -> rows.
    columns : sequence of str
        What must not be shared.
    """
    for split, rows in tables.items():
        if not rows:
            raise ValueError(f"Split {split} is empty: no usable speech or no noise.")
    for column in columns:
        owner = {}
        for split, rows in tables.items():
            for value in {row[column] for row in rows}:
                if owner.setdefault(value, split) != split:
                    raise ValueError(
                        f"{column} {value} is both in {owner[value]} and in {split}: "
                        "the splits must not share speakers or clips."
                    )


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
    return record if same else None


def store(corpus, tables, data_folder, save_folder, options, jobs=None):
    """Write chunks or packed arrays, where the options ask for them.

    Arguments
    ---------
    corpus : str
        Names the folder of what is written.
    tables : dict
        Split -> rows.
    data_folder, save_folder : pathlib.Path
        Of the preparation.
    options : dict
        storage, storage_folder.
    jobs : int, optional
        Threads; as many as cores by default.

    Returns
    -------
    tables : dict
        Split -> rows that point to what was written.
    skipped : list of Skipped
        Files that could not be decoded.
    folder : pathlib.Path or None
        Where the audio was written.
    """
    write = storage.STORAGES[options["storage"]]
    if write is None:
        return tables, [], None
    folder, root = storage.storage_folder(
        corpus, data_folder, save_folder, options["storage_folder"]
    )
    # One place for each set of rows: changed options never mix with old audio.
    content = json.dumps(list(tables.values()), sort_keys=True).encode()
    name = f"{options['storage']}-{hashlib.sha256(content).hexdigest()[:12]}"
    jobs = jobs or os.cpu_count() or 1
    stored, skipped = {}, []
    for split, rows in tables.items():
        stored[split], broken = write(
            rows, split, data_folder, folder / name, f"{root}/{name}", jobs
        )
        skipped += [Skipped(p.replace("$data_root/", "", 1), why) for p, why in broken]
    return stored, skipped, folder / name


def write_manifests(
    save_folder, tables, skipped, options, fingerprint, stored_in=None, **facts
):
    """Write manifests and skipped.csv, then the record that declares them finished.

    Arguments
    ---------
    save_folder : pathlib.Path
        Where they go.
    tables : dict
        Split -> rows.
    skipped : list of Skipped
        Files that were left out.
    options : dict
        Of the preparation.
    fingerprint : str
        Of files and options.
    stored_in : pathlib.Path, optional
        Folder of chunks or packed arrays.
    **facts
        Go into the record.

    Returns
    -------
    dict
        The record.
    """
    save_folder.mkdir(parents=True, exist_ok=True)
    (save_folder / RECORD).unlink(missing_ok=True)
    write_csv(save_folder / "skipped.csv", ["path", "reason"], sorted(set(skipped)))
    for split, rows in tables.items():
        values = [[row[column] for column in COLUMNS] for row in rows]
        write_csv(save_folder / f"{split}.csv", COLUMNS, values)
    names = [f"{split}.csv" for split in tables]
    record = {
        "options": options,
        "fingerprint": fingerprint,
        "stored_in": None if stored_in is None else str(stored_in.resolve()),
        "counts": {split: _counts(rows) for split, rows in tables.items()},
        "skipped": len(set(skipped)),
        "manifests": {name: file_digest(save_folder / name) for name in names},
        **facts,
    }
    write_json(save_folder / RECORD, record)
    _report(record, sorted(set(skipped)), save_folder)
    return record


def _counts(rows):
    return {
        "chunks": len(rows),
        "hours": round(sum(row["duration"] for row in rows) / 3600, 4),
        "speakers": len({row["spk_id"] for row in rows}),
        "utterances": len({row["ID"].rsplit("_", 1)[0] for row in rows}),
        "noises": len({row["noise_id"] for row in rows}),
        "noise_classes": len({row["noise_class"] for row in rows}),
    }


def _report(record, skipped, save_folder):
    for split, count in record["counts"].items():
        logger.info(
            f"{split}: {count['chunks']} chunks ({count['hours']:.2f} h) of "
            f"{count['speakers']} speakers with {count['noises']} noises of "
            f"{count['noise_classes']} classes."
        )
    for path, reason in skipped[:10]:
        logger.warning(f"Skipped {path}: {reason}.")
    if skipped:
        logger.warning(f"{len(skipped)} files skipped: {save_folder / 'skipped.csv'}.")
