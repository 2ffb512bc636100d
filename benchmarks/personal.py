#!/usr/bin/env python
"""What a client gains by a model of its own, and whose batch normalisation should be.

    python -m benchmarks.personal --data_folder FOLDER
    python -m benchmarks.personal --data_folder FOLDER --rounds 2 --personal_epochs 0 \
        --statistics averaged frozen local \
        --out benchmarks/results/batch_normalisation.csv

FOLDER is what recipes/PackagedRecordings builds. GTCRN is trained on the built-in,
synthetic corpus for a while; from there eight clients, each of which holds other
classes of noise, train it together for a few short rounds, with clean references. Its
layers of batch normalisation are averaged as all others are (``averaged``), keep the
statistics of the start (``frozen``), or stay with each client (``local``, FedBN). Then
each client's own recordings, a twentieth that was held out, are separated by the global
model and by those that the client makes of it: by training all of it, its last layers,
or all of it near the global one (Ditto). The noises of these recordings are in training
as well, in other mixtures; the speakers of the test set are in none. What is done is
not done again.
"""

import shutil
from pathlib import Path
from statistics import mean

from benchmarks import COMMITTED, measuring
from fedenhance.commands.experiments import command_of, is_done, train
from fedenhance.data.tables import read_table
from fedenhance.reports import markdown

NORMS = ("norm", "expand_norm", "depthwise_norm", "reduce_norm")
"""Batch normalisation in GTCRN; layer normalisation has no statistics."""

STATISTICS = {
    "averaged": {"frozen_statistics": False},
    "frozen": {"frozen_statistics": True},
    "local": {
        "frozen_statistics": False,
        "local": [f"separator.masknet.*.{name}.*" for name in NORMS],
    },
}
"""Name -> options of train.py."""

AVERAGED = ["averaged"]
PERSONAL = {
    "all": {},
    "last layers": {"train": ["separator.masknet.synthesis.*"]},
    "Ditto": {"proximal_mu": 1.0},
}
"""Name -> what ``personal`` is told otherwise."""

YAML = str(Path(__file__).with_name("personal.yaml"))
START = {
    "models": "!include:models/gtcrn.yaml",
    "p_supervised": 1.0,
    "epochs": 6,
    "learning_rate": 0.002,
    "valid_size": 4,
    "test_size": 4,
    "results": [],
}
"""Options of hparams/centralized.yaml."""

COLUMNS = ["statistics", "model", "seed", "client", "own", "test"]


def parse(argv):
    """The command line."""
    made = measuring.parser(__doc__, out=COMMITTED / "personal.csv", data=True)
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--statistics", nargs="+", choices=STATISTICS, default=AVERAGED)
    made.add_argument("--rounds", type=int, default=4)
    made.add_argument("--local_epochs", type=float, default=0.25, help="in a round")
    made.add_argument("--lr", type=float, default=0.001, help="of the federation")
    made.add_argument("--personal_epochs", type=float, default=0.25)
    made.add_argument("--personal_lr", type=float, default=0.0003)
    made.add_argument("--runs", type=Path, default=Path("results/personal"))
    return measuring.parse(made, argv)


def run(folder, hparams, seed, options, again=False):
    """Train, or go on; raise RuntimeError if that fails."""
    command = command_of(hparams, options, folder, seed, [])
    if (again or not is_done(folder, command)) and not train(folder, command):
        raise RuntimeError(f"{folder} failed, see log.txt there")


def personal_tables(args, statistics, seed):
    """Train one federation, then every kind of model of the clients' own.

    Returns
    -------
    Path
        The folder, with a table ``personal_<name>.csv`` for each.
    """
    start = args.runs / "start" / "1"
    run(start, "hparams/centralized.yaml", 1, START)
    folder = args.runs / f"{args.rounds}-{statistics}" / str(seed)
    options = STATISTICS[statistics] | {"rounds": args.rounds}
    options |= {"data_folder": str(args.data_folder), "initial_model": str(start)}
    options |= {"evaluate_every": args.rounds}
    options |= {"local_epoch_p": args.local_epochs, "learning_rate": args.lr}
    asked = {"epochs": args.personal_epochs, "lr": args.personal_lr}
    for name in PERSONAL if args.personal_epochs else ["all"]:
        kept = folder / f"personal_{name.replace(' ', '_')}.csv"
        if not kept.exists():
            personal = {"personal": {**asked, **PERSONAL[name]}}
            run(folder, YAML, seed, options | personal, again=True)
            shutil.copyfile(folder / "personal.csv", kept)
    return folder


def rows_of(folder, statistics, seed):
    """Read what a run has left, a row a client and model."""
    test = read_table(folder / "rounds.csv")[-1]["test_si_sdri"]
    common = {"statistics": statistics, "seed": seed}
    rows = []
    for name in PERSONAL:
        path = folder / f"personal_{name.replace(' ', '_')}.csv"
        for row in read_table(path) if path.exists() else []:
            shared = "local" if row.get("local_si_sdri") else "global"
            found = {shared: row[f"{shared}_si_sdri"]} if name == "all" else {}
            if "personal_si_sdri" in row:
                found[name] = row["personal_si_sdri"]
            for model, value in found.items():
                own = {"model": model, "client": row["client"], "own": float(value)}
                own["test"] = float(test) if model == "global" else ""
                rows.append({**common, **own})
    return rows


def table(rows):
    """Write the CSV's rows as a table; what is gained is over the shared model.

    Example
    -------
    >>> row = {"statistics": "averaged", "seed": "1", "client": "0", "test": "4"}
    >>> rows = [{**row, "model": "global", "own": "3"}]
    >>> rows += [{**row, "model": "all", "own": "3.5", "test": ""}]
    >>> print(table(rows))
    | statistics | model | seeds | own recordings | gain | who gains | new speakers |
    |---|---|---|---|---|---|---|
    | averaged | global | 1 | 3.00 |  |  | 4.00 |
    | averaged | all | 1 | 3.50 | 0.50 | 1 of 1 |  |
    """
    lines, keys = [], dict.fromkeys((r["statistics"], r["model"]) for r in rows)
    for statistics, model in keys:
        own, test = values_of(rows, statistics, model)
        shared = values_of(rows, statistics, "global")[0]
        shared = shared or values_of(rows, statistics, "local")[0]
        means = by_seed(own)
        line = [statistics, model, len(means), markdown.spread(means), "", ""]
        if own != shared:
            gains = {key: value - shared[key] for key, value in own.items()}
            better = sum(gain > 0 for gain in gains.values())
            line[4:] = [markdown.spread(by_seed(gains)), f"{better} of {len(gains)}"]
        lines.append([*line, markdown.spread(by_seed(test)) if test else ""])
    header = ["statistics", "model", "seeds", "own recordings", "gain", "who gains"]
    return markdown.table([*header, "new speakers"], lines)


def values_of(rows, statistics, model):
    """Improvements of one kind of model by seed and client: own, and new speakers'."""
    rows = [r for r in rows if (r["statistics"], r["model"]) == (statistics, model)]
    return [
        {(r["seed"], r["client"]): float(r[column]) for r in rows if r[column]}
        for column in ("own", "test")
    ]


def by_seed(values):
    """Means over the clients, one for each seed.

    Example
    -------
    >>> by_seed({("1", "a"): 2.0, ("1", "b"): 4.0, ("2", "a"): 5.0})
    [3.0, 5.0]
    """
    seeds = dict.fromkeys(seed for seed, _ in values)
    return [mean(v for (s, _), v in values.items() if s == seed) for seed in seeds]


def main(argv=None):
    """Train what is not there yet; write and print the table."""
    args = parse(argv)
    measuring.begin(args)
    rows = []
    for seed in args.seeds:
        for statistics in args.statistics:
            folder = personal_tables(args, statistics, seed)
            rows += rows_of(folder, statistics, seed)
    measuring.save(args.out, rows, measuring.machine(args), COLUMNS)
    print(table(read_table(args.out)))


if __name__ == "__main__":
    main()
