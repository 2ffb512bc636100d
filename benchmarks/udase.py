#!/usr/bin/env python
"""The UDASE recipe at full size, without its audio: segments, and seconds to list them.

    git clone https://github.com/UDASE-CHiME2023/CHiME-5 FOLDER/UDASE-CHiME-5
    git clone https://github.com/UDASE-CHiME2023/reverberant-LibriCHiME-5 \
        FOLDER/UDASE-reverberant-LibriCHiME-5
    python -m benchmarks.udase FOLDER
    python -m benchmarks.udase FOLDER --files

CHiME-5 takes an application; the task's tables do not. In place of the recordings are
files of their length, of silence that takes no room on disk. Counts what
recipes/UDASE/prepare.py makes of them; with ``--files`` there is such a file for each
segment and mixture as well, 80 thousand, and it prepares from these.
"""

import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import COMMITTED, measuring
from fedenhance.data.tables import grouped
from fedenhance.recipes.UDASE import librichime, segments
from fedenhance.recipes.UDASE.prepare import prepare

RATE = librichime.RATE
COLUMNS = ["what", "number", "hours", "seconds"]
FOLDERS = {
    segments.training_folder(False): "train.csv",
    segments.training_folder(True): "train.csv, by voice",
    "dev/1": "real_valid.csv",
    "eval/1": "real_test.csv",
}
"""Folder of segments -> the manifest that has them."""


def parse(argv):
    """The command line."""
    made = measuring.parser(__doc__, out=COMMITTED / "udase.csv", clock="wall")
    made.add_argument("folder", type=Path, help="holds the task's tables")
    made.add_argument("--files", action="store_true", help="and prepare from files")
    return measuring.parse(made, argv)


def silence(path, frames, channels=1):
    """Write a wav file of silence that is a hole on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((0, channels)), RATE, "PCM_16")
    size = 2 * channels * frames
    with open(path, "r+b") as file:
        header = file.read()
        data = header.rindex(b"data")
        file.seek(4)
        file.write((data + size).to_bytes(4, "little"))
        file.seek(data + 4)
        file.write(size.to_bytes(4, "little"))
        file.truncate(data + 8 + size)


def stand_in(tables, folder):
    """Write recordings of CHiME-5 as long as the tables ask for; return how many."""
    ends = defaultdict(float)
    for path in sorted(tables.glob("*/*.json")):
        name = path.parent.name, "_".join(path.stem.split("_")[:2])
        rows = segments.read_segments(path)
        ends[name] = max([ends[name], *(row["end"] for row in rows)])
    for (split, name), end in ends.items():
        silence(folder / f"{split}/{name}.wav", round(end * RATE) + 1, channels=2)
    return len(ends)


def counted(data, vad, clock):
    """Plan the segments; return them, and rows of what is planned and held."""
    start = clock()
    found = segments.plan(data, vad)
    name = "segments, training by voice" if vad else "segments"
    row = row_of(name, [s.stop - s.start for s in found])
    rows = [{**row, "seconds": clock() - start}]
    folders = grouped(found, lambda segment: str(Path(segment.target).parent))
    for folder, own in folders.items():
        if folder in FOLDERS and (not vad or folder.startswith("train")):
            rows.append(row_of(FOLDERS[folder], [s.stop - s.start for s in own]))
    return found, rows


def row_of(what, lengths):
    """Make the row of recordings, whose lengths are samples."""
    hours = sum(lengths) / RATE / 3600
    return {"what": what, "number": len(lengths), "hours": hours}


def mixtures(data, split):
    """Read the entries of reverberant LibriCHiME-5."""
    table = data / librichime.TABLES / f"{split}.json"
    return json.loads(table.read_text(encoding="utf-8"))


def write_files(data, found):
    """Write silence for each segment and each mixture."""
    for segment in found:
        path = data / segments.FOLDER / segment.target
        silence(path, segment.stop - segment.start)
    for split in ("dev", "eval"):
        for mixture in mixtures(data, split):
            number = mixture["max_num_sim_active_speakers"]
            stem = data / librichime.FOLDER / split / str(number) / mixture["name"]
            for part in ("mix", "speech", "noise"):
                silence(Path(f"{stem}_{part}.wav"), mixture["length"])


def main(argv=None):
    """Count, prepare, and write a row each."""
    args = parse(argv)
    clock = measuring.begin(args)
    with tempfile.TemporaryDirectory() as folder:
        data, every = Path(folder), []
        for name in (Path(segments.TABLES).parts[0], Path(librichime.TABLES).parts[0]):
            (data / name).symlink_to((args.folder / name).resolve())
        number = stand_in(data / segments.TABLES, data / segments.SOURCE / "audio")
        rows = [{"what": "recordings", "number": number}]
        for vad in (False, True):
            found, new = counted(data, vad, clock)
            rows, every = rows + new, every + found
        for split, name in (("dev", "valid.csv"), ("eval", "test.csv")):
            rows.append(row_of(name, [m["length"] for m in mixtures(data, split)]))
        measuring.save(args.out, rows, measuring.machine(args), COLUMNS)
        if args.files:
            write_files(data, every)
            start = time.perf_counter()
            record = prepare(data, data / "manifests")
            counts = record["counts"].values()
            number = sum(count["recordings"] for count in counts)
            row = {"what": "rows that prepare writes from files", "number": number}
            rows.append({**row, "seconds": time.perf_counter() - start})
    measuring.save(args.out, rows, measuring.machine(args), COLUMNS)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
