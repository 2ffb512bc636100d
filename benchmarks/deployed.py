#!/usr/bin/env python
"""What a round takes on real machines beyond training, with all of them on this one.

    python -m benchmarks.deployed
    python -m benchmarks.deployed train.py hparams/fedenhance.yaml --p_available_users 1

Runs deploy/up: a SuperLink, TLS, and nodes with the built-in corpus, which is made
where it is missing, each process with its own PyTorch. Prints, and writes to
deployed.csv, for each round its seconds, those that the slowest client trained, the
rest (messages, evaluation, files), and when it was finished, since deploy/up began.
Other work on the machine counts as well; ``load`` is how many processes wanted a core,
on average.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import COMMITTED, measuring
from fedenhance.data.tables import read_table, write_table

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ["train.py", "hparams/fedenhance.yaml", "--p_available_users", "1"]


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=9780)
    parser.add_argument("--csv", type=Path, default=COMMITTED / "deployed.csv")
    about = "instead of the default experiment; takes what is left of the line"
    parser.add_argument("experiment", nargs=argparse.REMAINDER, help=about)
    return parser.parse_args(argv)


def watch(process, table):
    """Note when each row of a table comes, until a process ends.

    Returns
    -------
    list of tuple
        Seconds since now, and the load then.
    """
    start, seen = time.perf_counter(), []
    while process.poll() is None:
        rows = read_table(table) if table.exists() else []
        moment = round(time.perf_counter() - start, 1), round(os.getloadavg()[0], 1)
        seen += [moment] * (len(rows) - len(seen))
        time.sleep(0.2)
    return seen


def split(rounds, clients):
    """Tell training from the rest.

    Arguments
    ---------
    rounds, clients : list of dict
        Of rounds.csv and clients.csv.

    Returns
    -------
    list of dict

    Example
    -------
    >>> split([{"round": "1", "seconds": "5"}], [{"round": "1", "seconds": "3.5"}])
    [{'round': 1, 'seconds': 5.0, 'training': 3.5, 'rest': 1.5}]
    """
    found = []
    for row in rounds:
        own = [float(c["seconds"]) for c in clients if c["round"] == row["round"]]
        whole, training = float(row["seconds"]), max(own)
        times = {"seconds": whole, "training": training, "rest": whole - training}
        found.append({"round": int(row["round"])})
        found[-1] |= {key: round(value, 2) for key, value in times.items()}
    return found


def main(argv=None):
    """Deploy, print the table, and write the CSV."""
    arguments = parse(argv)
    home = Path(tempfile.mkdtemp())
    words = [*(arguments.experiment or EXPERIMENT), "--rounds", str(arguments.rounds)]
    process = subprocess.Popen(
        [ROOT / "deploy" / "up", *words, "--output_folder", home / "results"],
        env={
            **os.environ,
            "NODES": str(arguments.nodes),
            "PORT": str(arguments.port),
            "FED_HOME": str(home),
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        moments = watch(process, home / "results" / "rounds.csv")
        if process.returncode:
            raise SystemExit(f"deploy/up has failed; its logs are in {home}")
        tables = (
            read_table(home / "results" / f"{n}.csv") for n in ("rounds", "clients")
        )
        rows = split(*tables)
    finally:
        process.terminate()
        process.wait()
    machine = f"{os.cpu_count()} cores of {measuring.processor_name()}"
    for row, (finished, load) in zip(rows, moments, strict=False):
        row |= {"finished": finished, "load": load, "nodes": arguments.nodes}
        row |= {"machine": machine}
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    write_table(arguments.csv, rows)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
