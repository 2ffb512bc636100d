#!/usr/bin/env python
"""How well the built-in corpus is learnt: WER, federated and centralised.

    python -m benchmarks.recognition

Trains recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml with and without its federation,
as many epochs as rounds, and scores both models on the speech that they were trained
on, and on the test set. Finished runs are kept, so that an interrupted benchmark goes
on. Prints a table, and adds one row a run to recognition.csv.
"""

import argparse
import re
import subprocess
import time
from itertools import product
from pathlib import Path

from benchmarks import COMMITTED, measuring
from benchmarks.kept import Kept
from fedenhance.commands.experiments import command_of

KINDS = {
    "federated": [],
    "centralised": "--federation null --partition null --schedule null".split()
    + ["--weighting", "null"],
}
"""Kind of training -> the arguments of train.py that go with it."""


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--training", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1234])
    parser.add_argument("--epochs", type=int, help="and rounds; default: of the YAML")
    parser.add_argument(
        "--hparams", default="recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml"
    )
    parser.add_argument("--out", type=Path, default=Path("results/recognition"))
    parser.add_argument("--csv", type=Path, default=COMMITTED / "recognition.csv")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="more, for train.py"
    )
    return parser.parse_args(argv)


def train(arguments, kind, seed, folder, *more):
    """Run train.py; return the minutes that it took."""
    extra = [*KINDS[kind], *more, *arguments.options]
    if arguments.epochs:
        number = str(arguments.epochs)
        extra = ["--epochs", number, "--rounds", number, *extra]
    start = time.perf_counter()
    command = command_of(arguments.hparams, {}, folder, seed, extra)
    subprocess.run(command, check=True)
    return (time.perf_counter() - start) / 60


def run(arguments, kind, seed):
    """Train unless that is done, and score; return a row."""
    folder = arguments.out / kind / str(seed)
    clock, scores = folder / "minutes.txt", folder / "wer_train.txt"
    if not clock.exists():
        clock.write_text(f"{train(arguments, kind, seed, folder):.2f}")
    if not scores.exists():
        # The same command again trains no more, and tests what it is told to.
        train_set = folder / "manifests" / "train.csv"
        more = ["--test_csv", str(train_set), "--test_wer_file", str(scores)]
        train(arguments, kind, seed, folder, *more)
    log = (folder / "train_log.txt").read_text(encoding="utf-8")
    return {
        "training": kind,
        "seed": seed,
        "epochs": max(map(int, re.findall(r"(?m)^(?:round|epoch): (\d+)", log))),
        "minutes": float(clock.read_text()),
        "train_WER": read_error_rate(scores),
        "test_WER": read_error_rate(folder / "wer_test.txt"),
    }


def read_error_rate(path):
    """The WER in percent at the head of a file of SpeechBrain's.

    Example
    -------
    >>> path = getfixture("tmp_path") / "wer_test.txt"
    >>> _ = path.write_text("%WER 34.25 [ 137 / 400, 9 ins, 40 del, 88 sub ]")
    >>> read_error_rate(path)
    34.25
    """
    return float(re.match(r"%WER ([\d.]+)", Path(path).read_text())[1])


def main(argv=None):
    """Run what is not in the CSV yet; print it."""
    arguments = parse(argv)
    kept = Kept(arguments.csv, ["training", "seed", "epochs"])
    for seed, kind in product(arguments.seeds, arguments.training):
        row = run(arguments, kind, seed)
        if kept.lacks(kind, seed, row["epochs"]):
            kept.add(row)
    print(measuring.table(kept.rows))
    print("WER in percent; train_WER is on the speech that was trained on")


if __name__ == "__main__":
    main()
