#!/usr/bin/env python
"""Two experiments, one folder: what is there is the one or the other, never a mixture.

    python -m benchmarks.pairs
    python -m benchmarks.pairs --pairs 20

Two sets of settings of train.py are drawn at random. The first is trained in a folder;
every other time it is interrupted, as by Ctrl-C, when it changes a file for the n-th
time. Then the second is started there. Either it is refused in one line, and nothing is
touched, or what is there then is, to the bit, what it leaves in a folder of its own. A
finished row is kept, so that an interrupted benchmark goes on; what was done by other
code is done again. Prints a summary, and adds a row a pair to pairs.csv.
"""

import contextlib
import io
import json
import logging
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks import OUT, measuring
from benchmarks.kept import Kept
from benchmarks.kills import CENTRAL, COMMON, FEDERATED, hook, words
from benchmarks.left import left_by
from fedenhance.commands import train
from fedenhance.run_folder.record import version

CHOICES = {
    "file": [CENTRAL],
    "seed": [1234, 2],
    "n_clients": [4, 2],
    "p_supervised": [0, 0.5, 1],
    "p_available_users": [0.5, 1],
    "learning_rate": [0.001, "1e-3", 0.01],
    "maximize": ["si_sdri", "valid_si_sdr", "null"],
    "weighting": ["!name:fed.weighting.uniform", "!name:fed.weighting.by_examples"],
    "keep_optimizer": [True, False],
    "average": [0, 0.8],
    "local_epoch_p": [0.25, 0.5],
    "batch_size": [4, 2],
    "segment": [0.25, 0.5],
    "p_single_mix": [0.1, 0.5],
    "snr_range": ["[0, 5]", "null"],
    "patience": [30, 1],
    "max_grad_norm": [5.0, 1.0],
    "rounds": [1, 2, 3],
    "epochs": [1, 2, 3],
    "device": ["cpu"],
    "live": ["[]"],
    "train_dataloader_opts": ["{num_workers: 0}", "{drop_last: True}"],
    "federation": [
        "{fraction: 1.0}",
        "{min_clients: 1}",
        "{clip_updates: 2.0}",
        "{strategy: !name:flwr.serverapp.strategy.FedMedian }",
        "null",
    ],
}
"""Key of the command line -> values; ``file`` is another YAML file."""

REFUSED = "another --output_folder, or --restart"


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, out=OUT / "pairs.csv")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_folder", default="data/MiniLibriFSD50K")
    parser.add_argument("--work", type=Path, default=Path("results/pairs"))
    return measuring.parse(parser, argv, quick={"pairs": 4})


class Interruption:
    """Interrupts what this process does when it changes a file for the n-th time."""

    def __init__(self, work):
        self.left, self.seen = None, 0
        sys.addaudithook(hook(work, self.note))

    def note(self, path):
        """Count a change."""
        self.seen += 1
        if self.left is not None and self.seen == self.left:
            raise KeyboardInterrupt

    def after(self, changes=None):
        """Count from 0; interrupt after some changes, or never."""
        self.left, self.seen = changes, 0


class Pairs:
    """Trains pairs of settings.

    Arguments
    ---------
    args : argparse.Namespace
    """

    def __init__(self, args):
        self.args, self.alone = args, {}
        self.interruption = Interruption(args.work)

    def train(self, settings, folder):
        """Run train.py with settings in a folder, in this process."""
        settings = {**COMMON, "n_clients": 4, "rounds": 2, "epochs": 2, **settings}
        settings["results"] = "[]"
        file = settings.pop("file", FEDERATED)
        argv = words(file, settings, self.args)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            train.main([*argv, "--output_folder", str(folder)])

    def trained(self, settings):
        """Train settings in a folder of their own, if that is not done.

        Returns
        -------
        folder : Path
        changes : int
            How often files were changed there.
        """
        key = json.dumps(settings)
        if key not in self.alone:
            folder = self.args.work / f"alone{len(self.alone)}"
            shutil.rmtree(folder, ignore_errors=True)
            self.interruption.after(None)
            self.train(settings, folder)
            self.alone[key] = folder, self.interruption.seen
        return self.alone[key]

    def one(self, number):
        """Try a pair; return its row of the table."""
        generator = random.Random(f"{self.args.seed} {number}")
        first, second = draw(generator), draw(generator)
        if number % 4 > 1:  # half of the pairs differ in little
            second = first | dict(list(second.items())[:1])
        begin, folder = time.process_time(), self.args.work / "both"
        shutil.rmtree(folder, ignore_errors=True)
        alone, changes = self.trained(first)
        at = ""
        if number % 2:
            at = generator.randint(1, changes)
            self.interruption.after(at)
            with contextlib.suppress(KeyboardInterrupt):
                self.train(first, folder)
            self.interruption.after(None)
        else:
            shutil.copytree(alone, folder)
        row = {"pair": number, "first": json.dumps(first), "interrupted": at}
        row |= {"second": json.dumps(second), "outcome": self.outcome(folder, second)}
        return row | {"cpu_seconds": time.process_time() - begin}

    def outcome(self, folder, second):
        """Train the second settings in a folder; say what came of it."""
        before = snapshot(folder)
        try:
            self.train(second, folder)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            told = str(error)
            if REFUSED not in told or "\n" in told:
                return f"failed: {error!r}"
            return "refused" if snapshot(folder) == before else "touched"
        found, whole = left_by(folder), left_by(self.trained(second)[0])
        for log in (found, whole):  # of the first run, too, by right
            log.pop("train_log.txt", None)
        names = [
            name for name in {**whole, **found} if found.get(name) != whole.get(name)
        ]
        return f"mixed: {', '.join(names)}" if names else "the second's"


def draw(generator):
    """A few settings of the menu."""
    keys = generator.sample(sorted(CHOICES), generator.randint(0, 3))
    settings = {key: generator.choice(CHOICES[key]) for key in sorted(keys)}
    if "file" in settings:
        settings.pop("federation", None)  # that file has none
    return settings


def snapshot(folder):
    """All files of a folder but the lock, with what is in them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != ".lock"}


def main(argv=None):
    """Run, write the table, print a summary; exit with 1 if a pair was mixed."""
    args = parse(argv)
    measuring.begin(args)
    logging.disable(logging.WARNING)
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    code = version().partition(",")[0]
    kept, pairs = Kept(args.out, ["pair"], code=code), Pairs(args)
    pairs.train({}, args.work / "prepared")  # manifests
    for number in filter(kept.lacks, range(args.pairs)):
        row = pairs.one(number)
        print(*row.values(), flush=True)
        kept.add({**row, "code": code, "machine": measuring.machine(args)})
    shutil.rmtree(args.work)
    told = Counter(row["outcome"] for row in kept.rows)
    print("; ".join(f"{count} {outcome}" for outcome, count in told.most_common()))
    sys.exit(bool(told.keys() - {"refused", "the second's"}))


if __name__ == "__main__":
    main()
