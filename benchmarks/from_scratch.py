#!/usr/bin/env python
"""Training from scratch on recordings: test SI-SDRi over seconds of one core.

    python -m benchmarks.from_scratch --data_folder data/PackagedRecordings
    python -m benchmarks.from_scratch --data_folder data/PackagedRecordings \
        --authors DIR --seconds 600 --seeds 1 2 3 --p_supervised 0.5 0

The folder is what recipes/PackagedRecordings builds. Each of ``TRAININGS`` is a
federation that trains for so many seconds of the processor, one thread, whatever else
runs on the machine; setting up and evaluating are not counted. With ``--authors`` so
does the original's script (``benchmarks.original``), with the default experiment's
network and sizes, on the first 4 s of the same recordings, its noises at levels drawn
from the same range; its own draws follow the time and no seed. Nothing is chosen by the
scores: they are those of the model at that moment, of ours of its moving average.

A run that was interrupted goes on. Those that are done, and are in the CSV, are not
run again. The figures show means over seeds and their range.
"""

import json
import shutil
import sys
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch

from benchmarks import COMMITTED, measuring, original
from benchmarks.kept import Kept
from benchmarks.loops import RUN_OPTS
from fed import recipe
from fed.brain import join
from fedenhance.based_yaml import build, find, load_hparams
from fedenhance.data.datasets import client_rows, dataio_prepare
from fedenhance.data.tables import grouped, read_json, write_json
from fedenhance.networks.authors import load_reference
from fedenhance.objectives.consistency import uniform
from fedenhance.reports import figures, markdown
from fedenhance.run_folder.files import whole_file
from fedenhance.training.separation import mean_scores

RECORDED = {"snr_range": [-5, 10], "loop_noise": True, "local_epoch_p": 0.25}
KEPT = {"keep_optimizer": True, "patience": 0, "average": 0.95}
TRAININGS = {
    "fedenhance.yaml": ("hparams/fedenhance.yaml", RECORDED),
    "fedenhance.yaml, optimizers kept": ("hparams/fedenhance.yaml", RECORDED | KEPT),
    "recorded_gtcrn.yaml": ("hparams/recorded_gtcrn.yaml", {}),
}
"""Name -> YAML file, and what is changed of it."""

ORIGINAL = "the original"
MODEL = "sudormrf_groupcomm_small"
KEYS = ["training", "p_supervised", "seed", "seconds"]
FOREVER = 10**6


class TimeIsUp(Exception):
    """Ends training; it is no error."""


class Copies:
    """Keeps copies of a network on disk while it trains; goes on where it stopped.

    Arguments
    ---------
    folder : Path
    marks : list of float
        Seconds of training of each copy, ascending. After the last, :class:`TimeIsUp`
        is raised.
    clock : callable
    """

    def __init__(self, folder, marks, clock):
        self.file = folder / "kept.json"
        self.folder, self.marks, self.clock = folder, marks, clock
        self.spent, self.measured = 0.0, {}
        if self.file.exists():
            self.spent, self.measured = read_json(self.file)
        self.last = None

    def begin(self):
        """Start the clock, if it does not run."""
        if self.last is None:
            self.last = self.clock()

    def __call__(self, weights):
        """Look at the clock after a round; keep the weights if it is time."""
        now = self.clock()
        self.spent += now - self.last
        due = [mark for mark in self.left() if mark <= self.spent]
        for mark in due:
            save(weights, self.path(mark))
            self.measured[str(mark)] = self.spent
        write_json(self.file, [self.spent, self.measured])
        if not self.left():
            raise TimeIsUp
        self.last = self.clock()

    def left(self):
        """List the marks that are not reached."""
        return [mark for mark in self.marks if str(mark) not in self.measured]

    def path(self, mark):
        """Where the copy of a mark is."""
        return self.folder / f"{mark:g}.pt"


def save(weights, path):
    """Write weights, all or none."""
    with whole_file(path) as file:
        torch.save(weights, file)


def load(file, options, args, folder, seed, p_supervised):
    """Load an experiment whose federation is never evaluated, and never ends."""
    settings = {
        "data_folder": str(args.data_folder.resolve()),
        "output_folder": str(folder),
        "test_size": args.test_size,
        "valid_size": 1,
        "seed": seed,
        "p_supervised": p_supervised,
        "rounds": FOREVER,
        "evaluate_every": FOREVER,
        **options,
    }
    hparams = load_hparams(find(file), json.dumps(settings))
    hparams["prepare"]()
    return hparams


def train_ours(hparams, copies):
    """Train a federation until the time is up; the copies are of its average."""
    federation = hparams["federation"]
    schedule = federation.schedule

    def begin(server_round, rows):
        copies.begin()
        return schedule(server_round, rows)

    federation.schedule = begin
    federation.callbacks = [lambda _, brain, row: copies(brain.modules.state_dict())]
    try:
        recipe.train(hparams, RUN_OPTS)
    except TimeIsUp:
        return


def train_original(hparams, copies, authors):
    """Run the original's script until the time is up."""
    tree, part = copies.folder / "tree", copies.folder / "part"
    if not tree.exists():
        mixing = hparams["mixing"]
        levels = {"snr_range": mixing.snr_range, "loop_noise": mixing.loop_noise}
        shutil.rmtree(part, ignore_errors=True)
        original.write_tree(client_rows(hparams), part, seconds=4.0, **levels)
        part.rename(tree)
    start = copies.folder / "start.pt"
    argv = original.arguments(
        start,
        MODEL,
        clients=hparams["n_clients"],
        batch_size=hparams["batch_size"],
        seconds=hparams["segment"],
        p_supervised=hparams["p_supervised"],
        p_available_users=hparams["p_available_users"],
        local_epoch_p=hparams["local_epoch_p"],
        n_global_epochs=FOREVER,
        patience=0,
    )
    latest = copies.folder / "latest.pt"
    if latest.exists():  # each of its rounds begins with a new Adam, so that is all
        start.write_bytes(latest.read_bytes())

    def after_round(network):
        save(network.state_dict(), latest)
        copies(network.state_dict())

    torch.manual_seed(hparams["seed"])
    copies.begin()
    try:
        original.rounds_of(authors, tree, argv, copies.clock, after_round=after_round)
    except TimeIsUp:
        return


def score(name, hparams, copies, marks):
    """Score copies on the test set; tell the time that each was kept at as well."""
    states, rows = {}, []
    for mark in marks:
        states[mark] = torch.load(copies.path(mark), weights_only=True)
        if name == ORIGINAL:
            separator = load_reference(states[mark], "groupcomm")
            modules = torch.nn.ModuleDict({"separator": separator})
            # Copies: the last separator is the one that is scored.
            states[mark] = {k: v.clone() for k, v in modules.state_dict().items()}
    if name == ORIGINAL:
        hparams |= {"modules": {"separator": separator}, "consistency": uniform}
    brain = build(hparams, RUN_OPTS)
    join(brain)
    test_set = dataio_prepare(hparams)["test"]
    for mark, state in states.items():
        brain.modules.load_state_dict(state)
        brain.test(test_set, hparams["test_dataloader_opts"])
        found = mean_scores(brain.utterances)
        scores = {key: found[key] for key in ("si_sdri_1", "si_sdri_2")}
        measured = copies.measured[str(mark)]
        rows.append({"seconds": mark, **scores, "measured": measured})
    return rows


def run(name, p_supervised, seed, marks, args, clock):
    """Train one federation, or go on with it, and score its copies of some marks."""
    folder = args.work / name.replace(" ", "_") / f"p{p_supervised:g}" / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    copies = Copies(folder, marks_of(args), clock)
    file, options = TRAININGS.get(name, TRAININGS["fedenhance.yaml"])
    hparams = load(file, options, args, folder, seed, p_supervised)
    if copies.left() and name == ORIGINAL:
        train_original(hparams, copies, args.authors)
    elif copies.left():
        train_ours(hparams, copies)
    return score(name, hparams, copies, marks)


def marks_of(args):
    """Seconds at which copies are kept: each twice the one before, up to the last.

    Example
    -------
    >>> import argparse
    >>> marks_of(argparse.Namespace(seconds=600.0, points=4))
    [75.0, 150.0, 300.0, 600.0]
    """
    return [args.seconds / 2**place for place in reversed(range(args.points))]


def table(rows):
    """Write the CSV's rows as a table: mean and deviation over seeds.

    Example
    -------
    >>> row = {"training": "a.yaml", "p_supervised": "0.5", "seconds": "75"}
    >>> print(table([{**row, "si_sdri_1": "3", "si_sdri_2": "4.5"}]).splitlines()[-1])
    | a.yaml | 0.5 | 75 | 1 | 3.00 | 4.50 |
    """
    lines = []
    for key, own in grouped(rows, itemgetter(*KEYS[:2], "seconds")).items():
        values = ([float(row[f"si_sdri_{n}"]) for row in own] for n in (1, 2))
        lines.append([*key, len(own), *map(markdown.spread, values)])
    lines.sort(key=lambda line: (-float(line[1]), float(line[2])))
    heads = ["training", "`p_supervised`", "seconds", "seeds"]
    return markdown.table([*heads, "one noise", "two noises"], lines)


def draw(rows, folder):
    """Draw a figure for each share of supervised clients."""
    columns = ("seconds", "si_sdri_1", "si_sdri_2")
    for share, own in grouped(rows, itemgetter("p_supervised")).items():
        numbers = [{**row, **{key: float(row[key]) for key in columns}} for row in own]
        figures.save(figures.over_seconds(numbers), folder, f"from_scratch_p{share}")


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, out=COMMITTED, authors=True)
    parser.add_argument(
        "--data_folder", type=Path, default=Path("data/PackagedRecordings")
    )
    parser.add_argument("--trainings", nargs="+", help=f"of {[*TRAININGS]}")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each training")
    parser.add_argument("--points", type=int, default=4, help="of each curve")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--p_supervised", nargs="+", type=float, default=[0.5, 0.0])
    parser.add_argument("--test_size", type=int, default=40, help="recordings")
    parser.add_argument("--work", type=Path, default=Path("results/from_scratch"))
    quick = {"seconds": 2.0, "points": 1, "test_size": 1, "seeds": [1]}
    args = measuring.parse(parser, argv, quick=quick)
    known = [*TRAININGS, *([ORIGINAL] if args.authors else [])]
    args.trainings = measuring.choose(parser, "training", args.trainings or [], known)
    return args


def main(argv=None):
    """Train, score, add to the table, draw."""
    args = parse(argv)
    clock = measuring.begin(args)
    kept = Kept(args.out / "from_scratch.csv", KEYS)
    for seed, share, name in product(args.seeds, args.p_supervised, args.trainings):
        marks = [m for m in marks_of(args) if kept.lacks(name, share, seed, m)]
        if marks:
            found = run(name, share, seed, marks, args, clock)
            own = {"training": name, "p_supervised": share, "seed": seed}
            rows = [{**own, **row, "machine": measuring.machine(args)} for row in found]
            kept.add(*rows)
            print(measuring.table(rows), flush=True)
            draw(kept.rows, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
