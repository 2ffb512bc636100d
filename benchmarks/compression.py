#!/usr/bin/env python
"""Bytes and quality of updates that are sent in fewer bytes.

    python -m benchmarks.compression
    python -m benchmarks.compression --updates int8 --seeds 1 --rounds 60

Trains the default experiment, half of its clients supervised, for fewer rounds of one
local epoch, with each seed and each way to send updates: as they are, in float16, in
int8, and under secure aggregation. Finished runs are kept, so that an interrupted
benchmark goes on. Prints a table, and writes one row a run to compression.csv.
"""

from pathlib import Path
from statistics import mean

from benchmarks import COMMITTED, measuring
from benchmarks.experiments import trained
from fedenhance.data.tables import read_table, write_table
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
    return parser.parse_args(argv)


def bytes_of_an_update(folder):
    """The mean over clients and rounds of what a client sends back."""
    rows = read_table(Path(folder, "clients.csv"))
    return round(mean(int(row["bytes"]) for row in rows if row["status"] == "ok"))


def main(argv=None):
    """Run, print the table, and write the CSV."""
    arguments = parse(argv)
    extra = ["--rounds", str(arguments.rounds), "--local_epoch_p", "1"]
    if arguments.quick:
        extra = ["--rounds", "2", "--test_size", "2", "--valid_size", "2"]
    rows = []
    for seed in arguments.seeds:
        for name in arguments.updates:
            folder = arguments.out / name / str(seed)
            options = [*extra, "--federation", UPDATES[name]]
            trained(folder, arguments.hparams, seed, options, p_supervised=0.5)
            found = Run(folder).summary()
            keys = ("rounds", "seed", "si_sdri_1", "si_sdri_2", "minutes")
            size = {"updates": name, "bytes": bytes_of_an_update(folder)}
            rows.append({**size, **{key: found[key] for key in keys}})
    write_table(arguments.csv, rows)
    print("| updates | bytes | of float32 | one noise | two noises |")
    print("|---|---|---|---|---|")
    for name in arguments.updates:
        print(line(name, rows))
    print("test SI-SDRi in dB, mean over seeds")


def line(name, rows):
    """A row of the table that is printed.

    Example
    -------
    >>> row = {"si_sdri_1": 3.0, "si_sdri_2": 4.0}
    >>> rows = [{"updates": "float32", "bytes": 400, **row}]
    >>> line("int8", [*rows, {"updates": "int8", "bytes": 100, **row}])
    '| int8 | 100 | 0.250 | 3.00 | 4.00 |'
    """
    own = [row for row in rows if row["updates"] == name]
    whole = [row["bytes"] for row in rows if row["updates"] == "float32"]
    size = mean(row["bytes"] for row in own)
    share = f"{size / mean(whole):.3f}" if whole else ""
    one, two = (mean(row[f"si_sdri_{n}"] for row in own) for n in (1, 2))
    return f"| {name} | {size:.0f} | {share} | {one:.2f} | {two:.2f} |"


if __name__ == "__main__":
    main()
