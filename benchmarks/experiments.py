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
from pathlib import Path

from experiments import command_of, is_done, train
from fedenhance.reports.runs import Run, experiments_table

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
    extra = [*CORPORA[arguments.corpus]]
    if arguments.data_folder:
        extra += ["--data_folder", arguments.data_folder]
    if arguments.quick:
        extra += ["--rounds", "2", "--test_size", "2", "--valid_size", "2"]
    options = {"p_supervised": p_supervised}
    command = command_of(arguments.hparams, options, folder, seed, extra)
    if not is_done(folder, command) and not train(folder, command):
        raise RuntimeError(f"{folder} failed, see log.txt there")
    return folder


def main(argv=None):
    """Run, print the table, and write the CSV."""
    arguments = parse(argv)
    rows = []
    for p_supervised in arguments.p_supervised:
        for seed in arguments.seeds:
            found = Run(run(arguments, p_supervised, seed)).summary()
            case = {"corpus": arguments.corpus, "p_supervised": p_supervised}
            rows.append({**case, **found})
    names = [f"{row['corpus']}, p_supervised {row['p_supervised']:g}" for row in rows]
    named = [{"experiment": n, **r} for n, r in zip(names, rows, strict=True)]
    print(experiments_table(named))
    print("test SI-SDRi in dB, mean ± standard deviation over seeds")
    new = not arguments.csv.exists()
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.csv, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerows(
            {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
            for row in rows
        )


if __name__ == "__main__":
    main()
