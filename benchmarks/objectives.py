#!/usr/bin/env python
"""What the objectives reach on the built-in corpus.

    python -m benchmarks.objectives --seeds 1 2 3

Runs train.py and evaluate.py for every objective and seed. Finished runs are
kept, so that an interrupted benchmark goes on. It writes, into the output folder, one
row a run to objectives.csv, means over seeds to objectives.md, and the scores of every
utterance to <objective>/<seed>/evaluation/.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import measuring
from benchmarks.experiments import trained
from fedenhance.reports.markdown import spread, table
from fedenhance.reports.scores import read_rows, write_rows

MODULE = "!name:fedenhance.objectives.mixit"
SELF_TRAINING = ["--brain", "!name:fedenhance.training.remixit.RemixIT"]
SELF_TRAINING += ["--client_groups", "{self-training: 1.0}"]
SELF_TRAINING += ["--objectives", f"{{self-training: {MODULE}.supervised }}"]


def unsupervised(objective):
    """The arguments of train.py that let all clients train without references."""
    return ["--objectives", f"{{unsupervised: {MODULE}.{objective} }}"]


CONSTRAINED = unsupervised("constrained_mixit")
# Objective -> the objective it starts from, arguments of train.py.
RUNS = {
    "noisy_target": (None, unsupervised("noisy_target")),
    "mixit": (None, unsupervised("mixit")),
    "constrained_mixit": (None, CONSTRAINED),
    "constrained_mixit_longer": ("constrained_mixit", CONSTRAINED),
    "remixit": ("constrained_mixit", SELF_TRAINING),
    "supervised": (None, ["--p_supervised", "1.0"]),
}
"""``constrained_mixit_longer`` trains as long as RemixIT in all, for fairness."""


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--objectives", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--hparams", default="hparams/fedenhance.yaml")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("results/objectives"))
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="more, for train.py"
    )
    return parser.parse_args(argv)


def run_one(options, name, seed):
    """Train with one objective and score the model; return its row."""
    start, extra = RUNS[name]
    folder = options.out / name / str(seed)
    scores = folder / "evaluation" / "utterances.csv"
    if not scores.is_file():
        if start:
            run_one(options, start, seed)
            source = options.out / start / str(seed)
            extra = [*extra, "--federation", f"{{initial_model: {source}}}"]
        extra = ["--rounds", str(options.rounds), *extra, *options.options]
        trained(folder, options.hparams, seed, extra)
        subprocess.run([sys.executable, "evaluate.py", str(folder)], check=True)
    rows = read_rows(scores)
    found = {"objective": name, "seed": seed, "si_sdri": mean_of(rows)}
    for count in ("1", "2"):
        own = [row for row in rows if row["n_noises"] == count]
        found[f"si_sdri_{count}"] = mean_of(own)
    return found


def mean_of(rows):
    """Mean SI-SDR improvement, of the utterances that have one."""
    return statistics.fmean(r["si_sdri"] for r in rows if r["si_sdri"] == r["si_sdri"])


def tabulate(rows):
    """Mean and standard deviation over seeds, as a Markdown table."""
    lines = []
    for name in dict.fromkeys(row["objective"] for row in rows):
        own = [row for row in rows if row["objective"] == name]
        columns = ("si_sdri", "si_sdri_1", "si_sdri_2")
        cells = [spread([row[column] for row in own]) for column in columns]
        lines.append([name, len(own), *cells])
    return (
        "SI-SDR improvement in dB on the test set: mean ± deviation over seeds.\n\n"
        + table(["objective", "seeds", "all", "one noise", "two noises"], lines)
        + "\n"
    )


def main(argv=None):
    """Train with every objective and seed; write the tables anew after each."""
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in options.seeds:
        for name in options.objectives:
            rows.append(run_one(options, name, seed))
            write_rows(options.out / "objectives.csv", rows)
            (options.out / "objectives.md").write_text(tabulate(rows))
    print(tabulate(rows))


if __name__ == "__main__":
    main()
