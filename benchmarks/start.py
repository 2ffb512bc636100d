#!/usr/bin/env python
"""Seconds from a command to what it is for.

    python -m benchmarks.start

To the first training step of the default experiment, whose corpus is prepared before
(``benchmarks.first_step`` says when it gets how far); to the end of enhancing a second
of audio; to the end of --help. The fastest of some starts counts.
"""

import json
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile

from benchmarks import measuring
from fedenhance.based_yaml import PACKAGE

HPARAMS = "hparams/fedenhance.yaml"


def command(args, folder):
    """Write the command that trains up to the first step."""
    options = {
        "output_folder": folder,
        "data_folder": args.data_folder,
        "p_supervised": 0.5,
        "models": f"!include:models/{args.model}.yaml",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    program = [sys.executable, "-m", "benchmarks.first_step", HPARAMS]
    return [*program, "--noprogressbar", *map(str, words)]


def timed(words, marks=True):
    """Run a command; return its seconds, and the marks that it prints at its end."""
    before = time.perf_counter()
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, cwd=PACKAGE.parent
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    seconds = time.perf_counter() - before
    return seconds, json.loads(done.stdout.splitlines()[-1]) if marks else None


def rows_of(wall, marks):
    """Write a row for each part of a start.

    Arguments
    ---------
    wall : float
        Seconds of the whole command.
    marks : dict
        Part -> seconds of the wall clock and of the processor at its end.

    Returns
    -------
    list of dict

    Example
    -------
    >>> rows = rows_of(5.0, {"import": (1.0, 0.9), "first step": (4.0, 3.5)})
    >>> [row["wall_seconds"] for row in rows]
    [1.0, 1.0, 3.0, 5.0]
    """
    ends = list(marks.values())
    rows = [{"part": "start Python, and leave", "wall_seconds": wall - ends[-1][0]}]
    for part, now, last in zip(marks, ends, [(0.0, 0.0), *ends], strict=False):
        spent = {"wall_seconds": now[0] - last[0], "cpu_seconds": now[1] - last[1]}
        rows.append({"part": part, **spent})
    whole = {"wall_seconds": wall, "cpu_seconds": ends[-1][1]}
    return [*rows, {"part": "in all", **whole}]


def others(folder):
    """The other commands that are timed, by what they do."""
    noisy = f"{folder}/noisy.wav"
    soundfile.write(noisy, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    enhance = ["enhance.py", noisy, "--out", f"{folder}/clean", "--overwrite"]
    return {"enhance a second": enhance, "say --help": ["train.py", "--help"]}


def parse(argv):
    """The command line."""
    return measuring.parse(measuring.parser(__doc__, data=True), argv)


def main(argv=None):
    """Start once to prepare the corpus; then report the fastest of some starts."""
    args = parse(argv)
    measuring.begin(args)
    repeats = 1 if args.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        words = command(args, f"{folder}/out")
        timed(words)
        runs = [timed(words) for _ in range(repeats)]
        rows = rows_of(*min(runs, key=lambda run: run[0]))
        for part, words in others(folder).items():
            program = [sys.executable, *words]
            seconds = min(timed(program, marks=False)[0] for _ in range(repeats))
            rows.append({"part": part, "wall_seconds": seconds})
    measuring.report(args, "start", rows)


if __name__ == "__main__":
    main()
