#!/usr/bin/env python
"""What the objectives reach on the built-in corpus, and what MixIT costs.

    python -m benchmarks.objectives cost
    python -m benchmarks.objectives train --seeds 1 2 3

``train`` runs train.py and evaluate.py for every objective and seed. Finished runs are
kept, so that an interrupted benchmark goes on. It writes, into the output folder, one
row a run to objectives.csv, means over seeds to objectives.md, and the scores of every
utterance to <objective>/<seed>/evaluation/.
"""

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from benchmarks import measuring
from benchmarks.experiments import trained
from fedenhance.networks.scaling import separate
from fedenhance.objectives.mixit import mixit
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
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train with every objective")
    train.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    train.add_argument("--objectives", nargs="+", choices=RUNS, default=list(RUNS))
    train.add_argument("--hparams", default="hparams/fedenhance.yaml")
    train.add_argument("--rounds", type=int, default=30)
    train.add_argument("--out", type=Path, default=Path("results/objectives"))
    train.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="more, for train.py"
    )
    cost = commands.add_parser("cost", help="time MixIT and a training step")
    cost.add_argument("--model", default="hparams/models/sudormrf_groupcomm.yaml")
    cost.add_argument("--batch_size", type=int, default=6)
    cost.add_argument("--seconds", type=float, default=4.0)
    cost.add_argument("--threads", type=int, default=1)
    cost.add_argument("--device", default="cpu")
    cost.add_argument("--repeats", type=int, default=5)
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


def train(options):
    """Train with every objective and seed; write the tables anew after each."""
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in options.seeds:
        for name in options.objectives:
            rows.append(run_one(options, name, seed))
            write_rows(options.out / "objectives.csv", rows)
            (options.out / "objectives.md").write_text(tabulate(rows))
    print(tabulate(rows))


def cost(options):
    """Time the objective alone and the network's training step."""
    torch.set_num_threads(options.threads)
    with open(options.model, encoding="utf-8") as file:
        separator = load_hyperpyyaml(file)["separator"].to(options.device)
    optimizer = torch.optim.Adam(separator.parameters())
    size = options.batch_size, 2, round(16000 * options.seconds)
    mixtures = torch.randn(size, device=options.device)
    estimates = separate(separator, mixtures.sum(1)).detach().requires_grad_()

    def objective():
        mixit(estimates, mixtures).mean().backward()

    def step():
        loss = separate(separator, mixtures.sum(1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    clock = time.perf_counter if options.device == "cpu" else measuring.synchronized
    calls = {
        function: partial(measuring.seconds_of, function, clock)
        for function in (objective, step)
    }
    times = measuring.alternate(calls, 2 + options.repeats)
    # The fastest: what other programs add is left out.
    of_mixit, of_step = (min(found[2:]) for found in times.values())
    print(
        f"{Path(options.model).stem}, batch {size[0]} of {options.seconds:g} s, "
        f"{estimates.shape[1]} sources, {options.device}, {options.threads} thread(s): "
        f"MixIT {1000 * of_mixit:.1f} ms, training step {1000 * of_step:.0f} ms, "
        f"{100 * of_mixit / (of_mixit + of_step):.2f} % of the step"
    )


if __name__ == "__main__":
    arguments = parse(sys.argv[1:])
    {"train": train, "cost": cost}[arguments.command](arguments)
