#!/usr/bin/env python
"""Whether a model that adapts to a bare folder of recordings gains by it, in truth.

    python -m benchmarks.adaptation --data_folder data/PackagedRecordings
    python -m benchmarks.adaptation ... --part valid --seeds 1 --method slower \
        --learning_rate 0.00003

Makes the folder of benchmarks/bare_folder.py, runs ``train.py hparams/adapt.yaml
--recordings DIR`` on it for each seed, with what else the command line has, and scores
the start and what came of it: SI-SDR improvement and ESTOI on recordings that are not
in the folder, of the same people and places, of other people there, and of other people
among other sounds; and by input SNR. Whether the run kept what came of it is a column:
where it did not, its user has the start. Methods are chosen by ``--part valid``.

Rows of a method, part and seed that are in the CSV are not done again; ``--table``
prints it in Markdown.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import COMMITTED, bare_folder, measuring
from benchmarks.kept import Kept
from benchmarks.loops import HERE
from fedenhance.data.tables import read_table
from fedenhance.deploy.trained import load_trained
from fedenhance.reports import markdown
from fedenhance.reports.judging import read_verdict
from fedenhance.reports.metrics import measure_utterances
from fedenhance.reports.scores import bootstrap_interval, snr_bin

KINDS = {
    "own": "same people and places",
    "speakers": "other people there",
    "noises": "other people, other sounds",
}


def adapt(folder, out, seed, words):
    """Run the program on a folder.

    Returns
    -------
    tuple of float
        Seconds by the wall, and of all cores.
    """
    command = [sys.executable, "train.py", "hparams/adapt.yaml"]
    command += ["--recordings", folder, "--output_folder", out, "--seed", seed]
    wall, before = time.perf_counter(), used()
    with open(out.with_suffix(".log"), "w") as log:
        subprocess.run(
            [str(word) for word in [*command, *words]],
            cwd=HERE.parent,
            check=True,
            stdout=log,
            stderr=log,
        )
    return time.perf_counter() - wall, used() - before


def used():
    """Seconds of all cores that finished programs of this one took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def adapted_model(folder):
    """The adapted model of a run, whether or not it was kept; and whether it was."""
    trained, kept = load_trained(folder), read_verdict(folder)["kept"]
    if not kept:
        weights = torch.load(folder / "adapted.ckpt", weights_only=True)
        trained.separator.load_state_dict(weights)
    return trained, kept


def score(trained, rows):
    """SI-SDR improvement and ESTOI of a model on rows of ``truth.csv``."""

    def enhanced():
        for number, row in enumerate(rows):
            mixture, speech = bare_folder.read(row)
            estimate = trained(torch.from_numpy(mixture)[None])[0, 0].numpy()
            about = {"id": number, "n_noises": 1, "noise_class": "", **row}
            yield about, estimate, mixture, speech

    return list(
        measure_utterances(enhanced(), bare_folder.RATE, ["si_sdr", "estoi"], 1)
    )


def compare(before, after):
    """Rows of the table: each kind of recordings, all, and bins of input SNR.

    Arguments
    ---------
    before, after : list of dict
        Of :func:`score`, by the start and by the adapted model.

    Yields
    ------
    dict
        ``group``, ``n``, means ``start`` and ``adapted`` of SI-SDR improvement in dB,
        their difference ``gain`` and its interval, and ``estoi_gain``.

    Example
    -------
    >>> row = {"kind": "own", "si_sdr_in": 1.0, "si_sdri": 3.0, "estoi": 0.5}
    >>> found = list(compare([row, row], [{**row, "si_sdri": 4.0}] * 2))
    >>> [(line["group"], float(line["gain"])) for line in found]
    [('own', 1.0), ('all', 1.0), ('0 to 5 dB', 1.0)]
    """
    groups = {kind: [] for kind in (*KINDS, "all")}
    for pair in zip(before, after, strict=True):
        for name in (pair[0]["kind"], "all", f"{snr_bin(pair[0]['si_sdr_in'])} dB"):
            groups.setdefault(name, []).append(pair)
    for name, pairs in groups.items():
        if not pairs:
            continue
        start, adapted = (np.array([p[i]["si_sdri"] for p in pairs]) for i in (0, 1))
        low, high = bootstrap_interval(adapted - start)
        yield {
            "group": name,
            "n": len(pairs),
            "start": start.mean(),
            "adapted": adapted.mean(),
            "gain": (adapted - start).mean(),
            "low": low,
            "high": high,
            "estoi_gain": np.mean([b["estoi"] - a["estoi"] for a, b in pairs]),
        }


def table(rows, part="test"):
    """Write the CSV's rows as a table: a method a line, gains in dB over seeds.

    The worst bin is of input SNR; the minutes are of one core.

    Example
    -------
    >>> row = {"method": "m", "part": "test", "group": "own", "gain": "0.5"}
    >>> row |= {"seed": "1", "estoi_gain": "0.01", "cpu_seconds": "90"}
    >>> print(table([row, {**row, "group": "0 to 5 dB", "gain": "-0.1"}]))
    | method | seeds | same people and places | worst bin | minutes |
    |---|---|---|---|---|
    | m | 1 | 0.50 | -0.10 | 2 |
    """
    rows = [row for row in rows if row["part"] == part]
    kinds = [kind for kind in KINDS if any(row["group"] == kind for row in rows)]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        bins = {row["group"] for row in own if row["group"].endswith("dB")}
        means = {
            group: [float(row["gain"]) for row in own if row["group"] == group]
            for group in (*kinds, *bins)
        }
        line = [method, len({row["seed"] for row in own})]
        line += [markdown.spread(means[kind]) for kind in kinds]
        line += [f"{min(np.mean(means[name]) for name in bins):.2f}" if bins else ""]
        minutes = np.mean([float(row["cpu_seconds"]) for row in own]) / 60
        lines.append([*line, f"{minutes:.0f}"])
    head = ["method", "seeds", *(KINDS[kind] for kind in kinds)]
    return markdown.table([*head, "worst bin", "minutes"], lines)


def parse(argv):
    """The command line; what it does not know goes to train.py."""
    made = measuring.parser(__doc__, out=COMMITTED / "adaptation.csv", data=True)
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--part", choices=bare_folder.PARTS, default="test")
    made.add_argument("--method", default="default", help="its name in the table")
    made.add_argument(
        "--work", type=Path, help="where the folder stays, for other runs"
    )
    made.add_argument("--table", action="store_true", help="print it, train nothing")
    args, args.words = made.parse_known_args(argv)
    return args


def main(argv=None):
    """Adapt and score what is not in the CSV yet; print the table."""
    args = parse(argv)
    if not args.table:
        measuring.begin(args)
        with tempfile.TemporaryDirectory() as folder:
            work = (args.work or Path(folder)).absolute() / args.part
            if not (work / "truth" / "truth.csv").exists():
                bare_folder.make(
                    args.data_folder, work / "folder", work / "truth", args.part
                )
            for seed in args.seeds:
                fill(args, seed, work)
    print(table(read_table(args.out), args.part))


def fill(args, seed, work):
    """Add one run to the CSV, unless it is there."""
    key = {"method": args.method, "part": args.part, "seed": seed}
    kept_rows = Kept(args.out, [*key])
    if not kept_rows.lacks(*key.values()):
        return
    out = work / f"{args.method}-{seed}"
    seconds, cpu = adapt(work / "folder", out, seed, args.words)
    model, kept = adapted_model(out)
    rows = [r for r in read_table(work / "truth" / "truth.csv") if r["kind"] in KINDS]
    before, after = score(load_trained(None), rows), score(model, rows)
    took = {"seconds": seconds, "cpu_seconds": cpu, "machine": measuring.machine(args)}
    lines = [{**key, "kept": kept, **row, **took} for row in compare(before, after)]
    kept_rows.add(*lines)
    print(measuring.table([{**key, **row} for row in lines]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
