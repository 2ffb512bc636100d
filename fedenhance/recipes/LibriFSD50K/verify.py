"""Verify a prepared corpus: whole, right, and without leakage between its splits.

From the root of the repository::

    python -m fedenhance.recipes.LibriFSD50K.verify /data manifests
"""

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fedenhance.data.audio import PACKED_RATE, read_segment
from fedenhance.data.opening import DamagedAudioError, read_header
from fedenhance.data.tables import read_table, write_table
from fedenhance.recipes.chunks import COLUMNS, SIDES
from fedenhance.recipes.LibriFSD50K import corpora
from fedenhance.recipes.preparation import RECORD, file_digest, shared_values


class Fault(NamedTuple):
    """What is wrong: with which split, which row or file."""

    split: str
    item: str
    problem: str


def verify(data_folder, manifest_folder, jobs=2):
    """Check manifests, and decode every chunk that they name.

    Arguments
    ---------
    data_folder : str
        Replaces ``$data_root``.
    manifest_folder : str
        Holds the manifests and their record.
    jobs : int
        Threads.

    Returns
    -------
    list of Fault
        Checksums that differ from the record; columns or positions that
        cannot be; files that are missing, damaged or shorter than they were; chunks
        that are neither whole nor marked; human voices among the noises; speakers,
        utterances and clips in two splits.
    """
    manifest_folder = Path(manifest_folder)
    faults, tables = _check_record(manifest_folder), {}
    for split in corpora.SPEECH_SUBSETS:
        path = manifest_folder / f"{split}.csv"
        if not path.exists():
            faults.append(Fault(split, path.name, "missing manifest"))
            continue
        try:
            tables[split] = read_table(path, COLUMNS)
        except ValueError as error:
            faults.append(Fault(split, path.name, str(error)))
            continue
        if not tables[split]:
            faults.append(Fault(split, path.name, "no rows"))
        counts = Counter(row["ID"] for row in tables[split])
        twice = (name for name, number in counts.items() if number > 1)
        faults += [Fault(split, name, "ID comes twice") for name in twice]
    leaks = shared_values(tables, ("spk_id", "noise_id", "ID"))
    faults += [
        Fault(split, value, f"{column} is also in {other}")
        for column, value, split, other in leaks
    ]
    faults += _human_voices(tables, Path(data_folder))
    for split, rows in tables.items():
        faults += _check_audio(split, rows, data_folder, jobs)
    return faults


def _check_record(folder):
    """Faults of the record: what it says of the manifests must be so."""
    if not (folder / RECORD).exists():
        return [Fault("", RECORD, "missing: the preparation did not finish")]
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    faults = []
    for name, digest in record["manifests"].items():
        path = folder / name
        if path.exists() and file_digest(path) != digest:
            faults.append(Fault(path.stem, name, "changed since the preparation"))
    return faults


def _human_voices(tables, data_folder):
    """Faults of noises whose labels, in the manifest or in FSD50K, are of voices."""
    labels = {}
    for part in ("dev", "eval"):
        path = data_folder / "FSD50K" / "FSD50K.ground_truth" / f"{part}.csv"
        if path.exists():
            labels |= corpora.read_ground_truth(path)
    faults = []
    for split, rows in tables.items():
        clips = {row["noise_id"]: row["noise_class"] for row in rows}
        for clip, name in clips.items():
            voices = corpora.HUMAN_VOICE.intersection((name, *labels.get(clip, ())))
            if voices:
                problem = f"human voice: {', '.join(sorted(voices))}"
                faults.append(Fault(split, clip, problem))
    return faults


def _check_audio(split, rows, data_folder, jobs):
    """Faults of chunks, all of which are decoded."""

    def check(row):
        faults = []
        for side in SIDES:
            path = row[side].replace("$data_root", str(data_folder), 1)
            try:
                problem = _chunk_problem(path, row, side)
            except DamagedAudioError as error:
                faults.append(Fault(split, path, f"unreadable: {error.reason}"))
            except ValueError as error:
                faults.append(Fault(split, f"{row['ID']} {side}", str(error)))
            else:
                if problem:
                    faults.append(Fault(split, f"{row['ID']} {side}", problem))
        return faults

    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(check, rows)
        results = tqdm(
            results, f"verifying {split}", len(rows), leave=False, disable=None
        )
        return list(dict.fromkeys(fault for faults in results for fault in faults))


def _chunk_problem(path, row, side):
    """What is wrong with a side of a chunk; None if nothing is."""
    rate = PACKED_RATE if path.endswith(".npy") else read_header(path).sample_rate
    start, stop = int(row[f"{side}_start"]), int(row[f"{side}_stop"])
    length, wanted = stop - start, round(float(row["duration"]) * rate)
    if not 0 <= start < stop:
        return f"positions {start} to {stop}"
    if length > wanted:
        return f"{length} frames instead of {wanted}"
    if length < wanted and side not in row["padded"].split():
        return f"{length} frames instead of {wanted}, and not marked as padded"
    read_segment(path, start, stop, rate, length)
    return None


def main(argv=None):
    """Run from the command line; returns 1 when there are faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder")
    parser.add_argument("manifest_folder")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    faults = verify(**vars(arguments))
    report = Path(arguments.manifest_folder) / "verify.csv"
    write_table(report, [fault._asdict() for fault in faults], Fault._fields)
    for fault in faults[:20]:
        tqdm.write(f"{fault.split} {fault.item}: {fault.problem}")
    tqdm.write(f"{len(faults)} faults ({report}).")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
