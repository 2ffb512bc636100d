#!/usr/bin/env python
"""How well the built-in corpus is learnt: WER, federated and centralised.

    python -m benchmarks.recognition

Trains recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml with and without its federation,
as many epochs as rounds, and scores both models on the speech that they were trained
on, and on the test set. Finished runs are kept, so that an interrupted benchmark goes
on. Prints a table, and adds one row a run to recognition.csv.
"""

import argparse
import csv
import re
import subprocess
import sys
import time
from pathlib import Path

KINDS = {
    "federated": [],
    "centralised": "--federation null --partition null --schedule null".split()
    + ["--weighting", "null"],
}
"""Kind of training -> the arguments of train.py that go with it."""

COLUMNS = ["training", "seed", "epochs", "minutes", "train_WER", "test_WER"]


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1234])
    parser.add_argument("--epochs", type=int, help="and rounds; default: of the YAML")
    parser.add_argument(
        "--hparams", default="recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml"
    )
    parser.add_argument("--out", type=Path, default=Path("results/recognition"))
    parser.add_argument(
        "--csv", type=Path, default=Path("benchmarks/results/recognition.csv")
    )
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="more, for train.py"
    )
    return parser.parse_args(argv)


def call(arguments, kind, seed, folder, *more):
    """Run train.py; return the minutes that it took."""
    command = [sys.executable, "train.py", arguments.hparams, *KINDS[kind]]
    command += ["--seed", str(seed), "--output_folder", str(folder)]
    if arguments.epochs:
        command += ["--epochs", str(arguments.epochs)]
        command += ["--rounds", str(arguments.epochs)]
    start = time.perf_counter()
    subprocess.run([*command, *more, *arguments.options], check=True, timeout=3600)
    return (time.perf_counter() - start) / 60


def run(arguments, kind, seed):
    """Train unless that is done, and score; return a row."""
    folder = arguments.out / kind / str(seed)
    clock, scores = folder / "minutes.txt", folder / "wer_train.txt"
    if not clock.exists():
        clock.write_text(f"{call(arguments, kind, seed, folder):.2f}")
    if not scores.exists():
        # The same command again trains no more, and tests what it is told to.
        train_set = folder / "manifests" / "train.csv"
        more = ["--test_csv", str(train_set), "--test_wer_file", str(scores)]
        call(arguments, kind, seed, folder, *more)
    return {
        "training": kind,
        "seed": seed,
        "epochs": epochs_of(folder),
        "minutes": float(clock.read_text()),
        "train_WER": read_error_rate(scores),
        "test_WER": read_error_rate(folder / "wer_test.txt"),
    }


def epochs_of(folder):
    """Count the lines of the log that tell of an epoch or a round."""
    lines = (folder / "train_log.txt").read_text(encoding="utf-8").splitlines()
    numbers = [re.match(r"(?:round|epoch): (\d+)", line) for line in lines]
    return max(int(number[1]) for number in numbers if number)


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


def table(rows):
    """A Markdown table, a line for each run."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(str(row[c]) for c in COLUMNS)} |" for row in rows]
    return "\n".join(lines)


def main(argv=None):
    """Run, print the table, and write the CSV."""
    arguments = parse(argv)
    rows = [
        run(arguments, kind, seed)
        for seed in arguments.seeds
        for kind in arguments.training
    ]
    print(table(rows))
    print("WER in percent; train_WER is on the speech that was trained on")
    new = not arguments.csv.exists()
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.csv, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
