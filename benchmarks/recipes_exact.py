"""Compares federated with central training of SpeechBrain's own recipes, by weight.

    python -m benchmarks.recipes_exact --speechbrain DIR [--only NAME ...]

Recipes of `benchmarks.recipes` that draw nothing at random but the order of examples
are trained for three epochs as they are, and for three rounds by one client that has
all data and keeps its optimizer: their weights should differ by rounding alone. The
federated run is then repeated, killed by SIGKILL after its first round, and started
again: the weights, and what is counted beside them, should be the same to the bit.
"""

import argparse
import csv
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speechbrain import Brain

from benchmarks.recipes import ROOT, copied, prepared, recipes, run
from fed.command import run_as_main
from fedenhance.run_folder.states import load

OUT = ROOT / "benchmarks/results/recipes_exact.csv"
ROUNDS = 3
FEDERATION = f"""\
federation: !new:fed.Federation
    partition: !name:fed.partition.iid {{n_clients: 1}}
    rounds: {ROUNDS}
    keep_optimizer: True
"""
CHOSEN = "IEMOCAP_row_03 Voicebank_row_07 timers-and-such_row_02".split()
COLUMNS = "recipe", "task", "script", "yaml", "difference", "resumed"


def train_centrally(file, args):
    """Runs a script, and saves the weights that its ``fit()`` leaves.

    Arguments
    ---------
    file : str
        Where to.
    args : list of str
        Of the command: script, YAML, options.
    """
    own, running = Brain.fit, []

    def fit(brain, *args, **kwargs):
        running.append(brain)
        own(brain, *args, **kwargs)
        running.pop()
        if not running:  # else a recipe's fit() within fit()
            torch.save(brain.modules.state_dict(), file)

    Brain.fit = fit
    run_as_main(args)


def difference(weights, others):
    """Finds the largest difference of weights, by name.

    Arguments
    ---------
    weights, others : dict of numpy.ndarray

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the names differ.
    """
    if weights.keys() != others.keys():
        raise ValueError(f"Of one only: {sorted(weights.keys() ^ others.keys())}")
    return max(
        float(np.abs(np.subtract(weights[name], others[name], dtype=float)).max())
        for name in weights
        if np.size(weights[name])
    )


def state_of(folder):
    """Loads the state that a federated run has left in its output folder."""
    (file,) = folder.rglob("federation.pt")
    return load(file)


def kill_after_a_round(command, checkout, environment, folder, limit):
    """Runs a command, and kills it once a round, and not the last, is on disk.

    Raises
    ------
    RuntimeError
        When there was no such moment.
    """
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that its reading processes die with it
    )
    until = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < until:
        if list(folder.rglob("federation.pt")):
            break
        time.sleep(0.01)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if ended or len(state_of(folder)["rows"]) >= ROUNDS:
        raise RuntimeError(f"It ended before it was killed: {shlex.join(command)}")


def compared(recipe, checkout, limit):
    """Trains a recipe centrally, federated, and federated but killed.

    Arguments
    ---------
    recipe : dict
        Of :func:`benchmarks.recipes.recipes`.
    checkout : Path
        A copy.
    limit : float
        Seconds for each.

    Returns
    -------
    dict
        A row of the table.
    """
    (script, *words), environment = prepared(recipe, checkout, limit)
    words = [re.sub(r"(epochs)=\d+$", rf"\1={ROUNDS}", word) for word in words]
    (checkout / "one.yaml").write_text(FEDERATION)
    folder = checkout / "tests/tmp" / f"{recipe['recipe']}_exact"
    python, weights = [sys.executable, "-m"], folder.with_suffix(".pt")
    central = [*python, "benchmarks.recipes_exact", f"--central={weights}", script]
    federated = [*python, "fed", script, "--federation=one.yaml"]

    def train(command, name):
        command = [*command, *words, f"--output_folder={folder / name}"]
        status, output, _ = run(command, checkout, environment, limit)
        if status != 0:
            print(output[-2000:], file=sys.stderr)

    train(central, "central")
    train(federated, "whole")
    command = [*federated, *words, f"--output_folder={folder / 'killed'}"]
    kill_after_a_round(command, checkout, environment, folder / "killed", limit)
    train(federated, "killed")
    whole, resumed = state_of(folder / "whole"), state_of(folder / "killed")
    own = {name: weight.numpy() for name, weight in torch.load(weights).items()}
    kinds = "arrays", "numbers"
    same = all(difference(whole[kind], resumed[kind]) == 0 for kind in kinds)
    return {
        **{key: recipe[key] for key in COLUMNS[:4]},
        "difference": f"{difference(own, whole['arrays']):.1e}",
        "resumed": "identical" if same else "differs",
    }


def main(argv=None):
    """Compares the chosen recipes, and writes the table."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0].startswith("--central="):
        train_centrally(argv[0].partition("=")[2], argv[1:])
        return
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--speechbrain", type=Path, required=True, metavar="DIR")
    made.add_argument("--only", nargs="+", default=CHOSEN, metavar="NAME")
    made.add_argument("--limit", type=float, default=300, metavar="SECONDS")
    made.add_argument("--out", type=Path, default=OUT)
    args = made.parse_args(argv)
    chosen = [r for r in recipes(args.speechbrain) if r["recipe"] in args.only]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkout = copied(args.speechbrain, Path(folder))
        for recipe in chosen:
            rows.append(compared(recipe, checkout, args.limit))
            print(*rows[-1].values(), sep=" | ", flush=True)
    with open(args.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
