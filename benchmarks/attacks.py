#!/usr/bin/env python
"""What one lying client of eight does to the model: attack by strategy.

    python -m benchmarks.attacks --seeds 1 2 3

Trains the default experiment for a few short rounds in which all clients take part, the
last of which lies; prints test SI-SDRi. Each row is added to the CSV as it is done, and
what is there is not done again.
"""

import shutil
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from flwr.serverapp import strategy as flower

from benchmarks import COMMITTED, OUT, measuring
from benchmarks.kept import Kept
from benchmarks.loops import HERE, RUN_OPTS, Case
from fed import recipe
from fed.arrays import pack, to_arrays
from fed.runtime import ProcessGrid
from fedenhance.based_yaml import open_hparams
from fedenhance.recipes.LibriFSD50K.prepare import prepare
from fedenhance.reports import markdown

KEYS = ["attack", "strategy", "seed"]
KRUM = {"num_malicious_nodes": 1, "num_nodes_to_select": 6}
STRATEGIES = {
    "no guard": {"clip_updates": None, "max_examples": float("inf")},
    "default": {},
    "FedMedian": {"strategy": flower.FedMedian},
    "FedTrimmedAvg": {"strategy": partial(flower.FedTrimmedAvg, beta=0.125)},
    "MultiKrum": {"strategy": partial(flower.MultiKrum, **KRUM)},
}
"""Name -> what the federation is told otherwise."""
SMALL = {"num_blocks": 1, "channels": 32, "hidden_channels": 32, "num_bases": 80}
"""The default network's sizes, made smaller: there are many runs."""


def along(factor):
    """Send a multiple of the honest update."""
    return lambda step, draw: factor * step


def noise(factor):
    """Send noise, of the honest update's norm times a factor."""

    def attack(step, draw):
        drawn = draw.standard_normal(step.shape)
        scale = np.linalg.norm(step) / max(np.linalg.norm(drawn), 1e-30)
        return factor * scale * drawn

    return attack


ATTACKS = {
    "none": (along(1), None),
    "ten times backwards": (along(-10), None),
    "three times backwards": (along(-3), None),
    "backwards": (along(-1), None),
    "ten times noise": (noise(10), None),
    "backwards, 10^9 examples": (along(-1), 10**9),
}
"""Name -> from the honest update of an array to another; the count of examples."""


class Attacked(ProcessGrid):
    """Forges the replies of one client.

    Arguments
    ---------
    num_nodes : int
        The last one lies.
    attack : tuple
        A value of ``ATTACKS``.
    """

    def __init__(self, num_nodes, attack):
        super().__init__(num_nodes)
        self.attack = attack
        self.draw = np.random.default_rng(0)

    def pull_messages(self, message_ids):
        """Yield the replies, some of them forged."""
        edit, count = self.attack
        for key in message_ids:
            question = self.pushed[key]
            (reply,) = super().pull_messages([key])
            lies = question.metadata.dst_node_id == self.num_nodes
            if lies and reply.has_content():
                record = reply.content["arrays"]
                for name, old in to_arrays(question.content["arrays"]).items():
                    if old.dtype.kind == "f":
                        new = old + edit(record[name].numpy() - old, self.draw)
                        record[name] = pack(np.asarray(new, old.dtype))
                if count:
                    reply.content["metrics"]["num-examples"] = count
            yield reply


def run(args, attack, strategy, seed, folder):
    """Train once.

    Returns
    -------
    float
        Test SI-SDRi in dB; NaN if the run came to its end before.
    """
    settings = {
        "data_folder": args.data_folder,
        "manifest_folder": args.manifests,
        "prepare": "null",
        "models": f"!include:{args.network}",
        "test_size": args.test_size,
        "valid_size": 1,
        "seed": seed,
        "p_supervised": 0.5,
        "p_available_users": 1.0,
        "local_epoch_p": args.epochs,
        "rounds": args.rounds,
        "evaluate_every": 10**6,
        "average": 0.0,
        "learning_rate": args.lr,
        "batch_size": 2,
    }
    folder.mkdir()
    file = HERE.parent / "hparams" / "fedenhance.yaml"
    hparams, _ = Case(str(file), settings).load(folder)
    federation, rows = hparams["federation"], []
    vars(federation).update(STRATEGIES[strategy])
    federation.callbacks = [lambda server_round, brain, row: rows.append(row)]

    def runtime(serve, num_sampled):
        serve(Attacked(num_sampled, ATTACKS[attack]))

    federation.runtime = runtime
    try:
        recipe.train(hparams, RUN_OPTS)
    except RuntimeError as error:
        print(f"{attack}, {strategy}, {seed}: {error}")
    return rows[-1].get("test_si_sdri", float("nan")) if rows else float("nan")


def small_network(folder):
    """Write the default network's YAML with other sizes; return its path."""
    path = Path(folder) / "network.yaml"
    file = HERE.parent / "hparams" / "models" / "sudormrf_groupcomm_small.yaml"
    sizes = "".join(f"{name}: {size}\n" for name, size in SMALL.items())
    path.write_text(f"base: {file}\n{sizes}")
    path.write_text(open_hparams(path).getvalue())
    return path


def table(rows):
    """Write the CSV's rows as a table: an attack a line, mean and deviation over seeds.

    Example
    -------
    >>> rows = [{"attack": "none", "strategy": "FedMedian", "si_sdri": "1.5"}]
    >>> print(table(rows))
    | attack | FedMedian |
    |---|---|
    | none | 1.50 |
    """
    found = {}
    for row in rows:
        cell = found.setdefault((row["attack"], row["strategy"]), [])
        cell.append(float(row["si_sdri"]))
    columns = list(dict.fromkeys(strategy for _, strategy in found))
    lines = [
        [attack, *(shown(found.get((attack, column), [])) for column in columns)]
        for attack in dict.fromkeys(attack for attack, _ in found)
    ]
    return markdown.table(["attack", *columns], lines)


def shown(values):
    """A cell of the table; of a model that is ruined the decimals mean nothing.

    Example
    -------
    >>> shown([1.0, 3.0]), shown([float("nan")]), shown([])
    ('2.00 ± 1.41', 'ruined', '')
    """
    if not values:
        return ""
    return markdown.spread(values) if np.isfinite(values).all() else "ruined"


def parse(argv):
    """The command line."""
    made = measuring.parser(__doc__, out=COMMITTED / "attacks.csv", data=True)
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--rounds", type=int, default=8)
    made.add_argument("--epochs", type=float, default=0.25, help="local, in a round")
    made.add_argument("--lr", type=float, default=0.003)
    made.add_argument("--test_size", type=int, default=20, help="recordings")
    quick = {"rounds": 1, "epochs": 0.1, "test_size": 1, "seeds": [1]}
    quick["out"] = OUT / "attacks_quick.csv"
    return measuring.parse(made, argv, quick=quick)


def main(argv=None):
    """Train what is not in the CSV yet; print the table."""
    args = parse(argv)
    kept = Kept(args.out, KEYS)
    measuring.begin(args)
    with tempfile.TemporaryDirectory() as folder:
        args.manifests = Path(folder) / "manifests"
        args.network = small_network(folder)
        prepare(args.data_folder, args.manifests, storage="packed")
        for seed, *names in product(args.seeds, ATTACKS, STRATEGIES):
            key = *names, seed
            if kept.lacks(*key):
                reached = run(args, *key, Path(folder) / "run")
                shutil.rmtree(Path(folder) / "run")
                row = dict(zip(KEYS, key, strict=True)) | {"si_sdri": reached}
                kept.add({**row, "machine": measuring.machine(args)})
                print(row, flush=True)
    print(table(kept.rows))


if __name__ == "__main__":
    main(sys.argv[1:])
