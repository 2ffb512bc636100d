#!/usr/bin/env python
"""Time to quality: test SI-SDR improvement over seconds of training.

    python -m benchmarks.quality
    python -m benchmarks.quality --seconds 600 --seed 2

The same corpus, network, optimizer and seconds for:

- ``ours``: hparams/fedenhance.yaml;
- ``centralised``: hparams/centralized.yaml, all recordings in one place.

Nobody has clean references. Setting up and evaluating are not counted as training. One
seed is one seed: the default experiment varies by 0.8 dB over seeds (experiments.csv),
so compare curves, and run several before believing a difference smaller than that.
"""

import copy
import sys
import tempfile
from pathlib import Path

import torch
from speechbrain import Stage

from benchmarks import measuring
from benchmarks.loops import HERE, RUN_OPTS, Case
from fed import recipe
from fed.brain import join
from fedenhance.data.datasets import dataio_prepare
from fedenhance.recipes.LibriFSD50K.prepare import prepare
from fedenhance.reports.figures import over_seconds
from fedenhance.training.separation import mean_scores

FOREVER = 10**6


class TimeIsUp(Exception):
    """Ends training; it is no error."""


class Snapshots:
    """Keeps copies of a network while it trains.

    Arguments
    ---------
    seconds : float
        Of training; then :class:`TimeIsUp` is raised.
    points : int
        Copies, evenly spaced, after that of the start.
    clock : callable

    Attributes
    ----------
    kept : list of tuple
        Seconds, and the state of the modules then.
    """

    def __init__(self, seconds, points, clock):
        self.seconds = seconds
        self.every = seconds / points
        self.clock = clock
        self.kept = []
        self.start = self.next = None

    def __call__(self, modules):
        """Look at the clock; copy the weights if it is time. The copy takes none."""
        if self.start is None:
            self.start, self.next = self.clock(), 0.0
        elapsed = self.clock() - self.start
        if elapsed < self.next:
            return
        self.kept.append((elapsed, copy.deepcopy(modules.state_dict())))
        if elapsed >= self.seconds:
            raise TimeIsUp
        self.next = self.every * (elapsed // self.every + 1)
        self.start = self.clock() - elapsed


class Timed:
    """Mixed in before a Brain's class: looks at the clock after every batch."""

    def fit_batch(self, batch):
        """Train, then look at the clock."""
        loss = super().fit_batch(batch)
        self.snapshots(self.modules)
        return loss


def load(name, args, folder, **settings):
    """Load an experiment of hparams/ on prepared manifests."""
    settings = {
        "data_folder": args.data_folder,
        "manifest_folder": args.manifests,
        "prepare": "null",
        "models": f"!include:models/{args.model}.yaml",
        "test_size": args.test_size,
        "valid_size": 1,
        "seed": args.seed,
        **settings,
    }
    Path(folder).mkdir()
    file = HERE.parent / "hparams" / f"{name}.yaml"
    return Case(str(file), settings).load(folder)[0]


def federated(args, snapshots, folder):
    """Train a federation until the time is up; return its hparams."""
    hparams = load("fedenhance", args, folder)
    federation = hparams["federation"]
    federation.rounds = federation.evaluate_every = FOREVER
    federation.callbacks = [lambda _, brain, row: snapshots(brain.modules)]
    schedule, modules = federation.schedule, torch.nn.ModuleDict(hparams["modules"])

    def begin(server_round, rows):
        if server_round == 1:
            snapshots(modules)
        return schedule(server_round, rows)

    federation.schedule = begin
    try:
        recipe.train(hparams, RUN_OPTS)
    except TimeIsUp:
        return hparams


def centralised(args, snapshots, folder):
    """Train on all recordings until the time is up; return the hparams."""
    hparams = load("centralized", args, folder)
    base = getattr(hparams["brain"], "func", hparams["brain"])
    brain = type(f"Timed{base.__name__}", (Timed, base), {})(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=RUN_OPTS,
    )
    brain.snapshots = snapshots
    train_set = hparams["datasets"](hparams)["train"]
    options = dict(hparams["train_dataloader_opts"])
    loader = brain.make_dataloader(train_set, Stage.TRAIN, **options)
    snapshots(brain.modules)
    try:
        brain.fit(range(1, FOREVER), loader, progressbar=False)
    except TimeIsUp:
        return hparams


def score(hparams, kept):
    """Evaluate copies of a network on the test set.

    Arguments
    ---------
    hparams : dict
    kept : list of tuple
        Of :class:`Snapshots`.

    Returns
    -------
    list of dict
        ``seconds``, and the improvements with one and with two noises in dB.
    """
    brain = recipe.build(hparams, RUN_OPTS)
    join(brain)
    test_set = dataio_prepare(hparams)["test"]
    rows = []
    for seconds, state in kept:
        brain.modules.load_state_dict(state)
        brain.test(test_set, hparams["test_dataloader_opts"])
        found = mean_scores(brain.utterances)
        names = ("si_sdri_1", "si_sdri_2")
        rows.append({"seconds": seconds, **{name: found[name] for name in names}})
    return rows


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, data=True)
    parser.add_argument("--seconds", type=float, default=90.0, help="of each training")
    parser.add_argument("--points", type=int, default=6, help="of each curve")
    parser.add_argument("--test_size", type=int, default=30, help="recordings")
    parser.add_argument("--seed", type=int, default=1234)
    quick = {"seconds": 3.0, "points": 1, "test_size": 2}
    return measuring.parse(parser, argv, quick=quick)


def main(argv=None):
    """Train twice, score, draw."""
    args = parse(argv)
    clock = measuring.begin(args)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        args.manifests = Path(folder) / "manifests"
        prepare(args.data_folder, args.manifests, storage="packed")
        for name, train in {"ours": federated, "centralised": centralised}.items():
            snapshots = Snapshots(args.seconds, args.points, clock)
            hparams = train(args, snapshots, Path(folder) / name)
            scored = score(hparams, snapshots.kept)
            rows += [{"training": name, **row} for row in scored]
    measuring.report(args, "quality", rows)
    over_seconds(rows).savefig(args.out / "quality.png", dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
