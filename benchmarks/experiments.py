#!/usr/bin/env python
"""What the default experiment reaches: test SI-SDRi over seeds.

    python -m benchmarks.experiments --seeds 1 2 3
    python -m benchmarks.experiments --corpus packaged --data_folder FOLDER

FOLDER is what recipes/PackagedRecordings builds. Runs train.py for every seed and every
share of supervised clients. Finished runs are kept, so that an interrupted benchmark
goes on. Prints a table, and adds one row a run to experiments.csv.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path

RECORDED = "--snr_range [-5,10] --loop_noise True --local_epoch_p 0.25 --test_size 40"
CORPORA = {"built-in": [], "packaged": RECORDED.split()}
"""Corpus -> the arguments of train.py that go with it."""

COLUMNS = ["corpus", "p_supervised", "seed", "si_sdri_1", "si_sdri_2", "minutes"]


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=CORPORA, default="built-in")
    parser.add_argument("--data_folder", help="of a corpus that is not built in")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--p_supervised", nargs="+", type=float, default=[0.5, 0.0])
    parser.add_argument("--hparams", default="hparams/fedenhance.yaml")
    parser.add_argument("--out", type=Path, default=Path("results/experiments"))
    parser.add_argument(
        "--csv", type=Path, default=Path("benchmarks/results/experiments.csv")
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, to try it")
    return parser.parse_args(argv)


def run(arguments, p_supervised, seed):
    """Train once, unless that is done; return the output folder."""
    folder = arguments.out / arguments.corpus / f"p{p_supervised:g}" / str(seed)
    if not (folder / "figures" / "convergence.png").exists():
        command = [sys.executable, "train.py", arguments.hparams]
        command += ["--output_folder", str(folder), "--seed", str(seed)]
        command += ["--p_supervised", str(p_supervised), *CORPORA[arguments.corpus]]
        if arguments.data_folder:
            command += ["--data_folder", arguments.data_folder]
        if arguments.quick:
            command += ["--rounds", "2", "--test_size", "2", "--valid_size", "2"]
        subprocess.run(command, check=True, timeout=3600)
    return folder


def read(folder):
    """Mean improvements of a finished run in dB, and the minutes of its rounds."""
    with open(folder / "test_metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "rounds.csv", newline="", encoding="utf-8") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    means = {
        f"si_sdri_{count}": statistics.fmean(
            float(row["si_sdri"]) for row in rows if row["n_noises"] == str(count)
        )
        for count in (1, 2)
    }
    return {**means, "minutes": seconds / 60}


def table(rows):
    """A Markdown table of means and standard deviations over seeds."""
    lines = ["| corpus | p_supervised | seeds | one noise | two noises |"]
    lines.append("|---|---|---|---|---|")
    cases = dict.fromkeys((row["corpus"], row["p_supervised"]) for row in rows)
    for case in cases:
        mine = [row for row in rows if (row["corpus"], row["p_supervised"]) == case]
        cells = [spread([row[f"si_sdri_{n}"] for row in mine]) for n in (1, 2)]
        lines.append(f"| {case[0]} | {case[1]:g} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values):
    """Mean, and standard deviation where there is one.

    Example
    -------
    >>> spread([1.0, 3.0]), spread([2.0])
    ('2.00 ± 1.41', '2.00')
    """
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main(argv=None):
    """Run, print the table, and write the CSV."""
    arguments = parse(argv)
    rows = []
    for p_supervised in arguments.p_supervised:
        for seed in arguments.seeds:
            found = read(run(arguments, p_supervised, seed))
            case = (arguments.corpus, p_supervised, seed)
            rows.append({**dict(zip(COLUMNS, case, strict=False)), **found})
    print(table(rows))
    print("test SI-SDRi in dB, mean ± standard deviation over seeds")
    new = not arguments.csv.exists()
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.csv, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(
            {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
            for row in rows
        )


if __name__ == "__main__":
    main()
