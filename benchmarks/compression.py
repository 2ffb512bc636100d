#!/usr/bin/env python
"""Bytes and quality of updates that are sent in fewer bytes.

    python -m benchmarks.compression
    python -m benchmarks.compression --updates int8 --seeds 1 --rounds 60

Trains the default experiment, half of its clients supervised, for fewer rounds of one
local epoch, with each seed and each way to send updates: as they are, in float16, in
int8, and under secure aggregation. Finished runs are kept, so that an interrupted
benchmark goes on. Prints a table, and adds one row a run to compression.csv.
"""

from itertools import product
from pathlib import Path
from statistics import mean

from benchmarks import COMMITTED, measuring
from benchmarks.experiments import trained
from benchmarks.kept import Kept
from fedenhance.data.tables import read_table
from fedenhance.reports.runs import Run

UPDATES = {
    "float32": "{}",
    "float16": "{compress: float16}",
    "int8": "{compress: int8}",
    "secure": "{secure: True}",
}
"""How updates are sent -> arguments of the federation."""


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--updates", nargs="+", choices=UPDATES, default=[*UPDATES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--hparams", default="hparams/fedenhance.yaml")
    parser.add_argument("--out", type=Path, default=Path("results/compression"))
    parser.add_argument("--csv", type=Path, default=COMMITTED / "compression.csv")
    parser.add_argument("--quick", action="store_true", help="two rounds, to try it")
    arguments = parser.parse_args(argv)
    arguments.rounds = 2 if arguments.quick else arguments.rounds
    return arguments


def bytes_of_an_update(folder):
    """The mean over clients and rounds of what a client sends back."""
    rows = read_table(Path(folder, "clients.csv"))
    return round(mean(int(row["bytes"]) for row in rows if row["status"] == "ok"))


def main(argv=None):
    """Run what is not in the CSV yet; print it."""
    arguments = parse(argv)
    kept = Kept(arguments.csv, ["updates", "seed", "rounds"])
    extra = ["--rounds", str(arguments.rounds), "--local_epoch_p", "1"]
    if arguments.quick:
        extra += ["--test_size", "2", "--valid_size", "2"]
    for seed, name in product(arguments.seeds, arguments.updates):
        if kept.lacks(name, seed, arguments.rounds):
            folder = arguments.out / name / str(seed)
            options = [*extra, "--federation", UPDATES[name]]
            trained(folder, arguments.hparams, seed, options, p_supervised=0.5)
            found = Run(folder).summary()
            keys = ("rounds", "seed", "si_sdri_1", "si_sdri_2", "minutes")
            size = {"updates": name, "bytes": bytes_of_an_update(folder)}
            kept.add({**size, **{key: found[key] for key in keys}})
    print(measuring.table(kept.rows))
    print("test SI-SDRi in dB")


if __name__ == "__main__":
    main()
