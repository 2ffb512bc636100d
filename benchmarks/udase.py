#!/usr/bin/env python
"""The UDASE recipe at full size, without its audio: segments, and seconds to list them.

    git clone https://github.com/UDASE-CHiME2023/CHiME-5 FOLDER/UDASE-CHiME-5
    git clone https://github.com/UDASE-CHiME2023/reverberant-LibriCHiME-5 \
        FOLDER/UDASE-reverberant-LibriCHiME-5
    python -m benchmarks.udase FOLDER

CHiME-5 takes an application; the task's tables do not. In place of the recordings are
files of their length, of silence that takes no room on disk. Counts what
recipes/UDASE/prepare.py would cut, and then prepares from segments that are such files.
"""

import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import COMMITTED, measuring
from fedenhance.recipes.UDASE import librichime, segments
from fedenhance.recipes.UDASE.prepare import prepare

RATE = librichime.RATE
COLUMNS = ["what", "number", "hours", "seconds"]


def parse(argv):
    """The command line."""
    made = measuring.parser(__doc__, out=COMMITTED / "udase.csv", clock="wall")
    made.add_argument("folder", type=Path, help="holds the task's tables")
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


def main(argv=None):
    """Count, prepare, and write a row each."""
    args = parse(argv)
    clock = measuring.begin(args)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for name in (Path(segments.TABLES).parts[0], Path(librichime.TABLES).parts[0]):
            (data / name).symlink_to((args.folder / name).resolve())
        number = stand_in(data / segments.TABLES, data / segments.SOURCE / "audio")
        rows = [{"what": "recordings", "number": number}]
        for vad in (False, True):
            start = clock()
            found = segments.plan(data, vad)
            seconds = clock() - start
            hours = sum(s.stop - s.start for s in found) / RATE / 3600
            name = "segments, training by voice" if vad else "segments"
            rows.append(row := {"what": name, "number": len(found)})
            row |= {"hours": hours, "seconds": seconds}
            for segment in found:
                path = data / segments.FOLDER / segment.target
                silence(path, segment.stop - segment.start)
        for split in ("dev", "eval"):
            table = data / librichime.TABLES / f"{split}.json"
            for mixture in json.loads(table.read_text(encoding="utf-8")):
                number = mixture["max_num_sim_active_speakers"]
                stem = data / librichime.FOLDER / split / str(number) / mixture["name"]
                for part in ("mix", "speech", "noise"):
                    silence(Path(f"{stem}_{part}.wav"), mixture["length"])
        for vad in (False, True):
            start = time.perf_counter()
            record = prepare(data, data / f"manifests-{vad}", vad=vad)
            seconds = time.perf_counter() - start
            for split, counts in record["counts"].items():
                if split == "train" or not vad:
                    name = f"{split}.csv{', by voice' * vad}"
                    row = {"what": name, "number": counts["recordings"]}
                    rows.append({**row, "hours": counts["hours"], "seconds": seconds})
    measuring.save(args.out, rows, measuring.machine(args), COLUMNS)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
