#!/usr/bin/env python
"""What a round costs: ours beside a bare PyTorch loop, Flower's own, and the original.

    python -m benchmarks.rounds                        # everything
    python -m benchmarks.rounds compare --authors DIR  # DIR holds fedenhance
    python -m benchmarks.rounds clients registered parameters batches
    python -m benchmarks.rounds aggregation failures

``compare`` trains the default network, and with ``--authors`` FedEnhance's full one
too, on recordings: seconds and peak memory of a round by each code. The sweeps train
linear layers on noise, so that what shows is the federation, and fit a line: cost grows
with the clients of a round, with the size of the model and with the batches, and not
with how many clients are registered. Codes take turns. The memory is what a run of one
round takes beyond its imports, in a process of its own.

Times are those of the processor, on one thread, so that other programs on the machine
hardly matter; with --device cuda, those of the wall clock. Ray works in several
processes: its times are those of the wall clock, and so are the bare loop's that it is
compared with.
"""

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

import fed
from benchmarks import loops, measuring, models, original
from benchmarks.loops import Case
from fed.arrays import to_arrays, to_record
from fed.runtime import ProcessGrid
from fed.strategy import build
from fedenhance.data.manifests import (
    assign_clients,
    group_by,
    is_isolated_noise,
    load_manifest,
    take_isolated_noises,
)

CODES = {"bare": loops.bare, "ours": loops.in_process, "flower": loops.flower}
SWEEPS = {
    "clients": [4, 8, 16, 32, 64],
    "registered": [16, 256, 4096, 100_000],
    "parameters": [100_000, 400_000, 1_600_000, 6_400_000, 25_000_000],
    "batches": [1, 2, 5, 10, 20, 50],
}
"""What is varied -> its values; otherwise 16 clients train for a batch each."""
FEWER = {"clients": 4, "registered": 4, "batches": 4}
"""Clients of the sweeps over size and batches, where steps cost more than the rest."""


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, SECTIONS, device="cpu", data=True, authors=True)
    parser.add_argument("--full_model", default="sudormrf_groupcomm")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-ray", dest="ray", action="store_false")
    args = measuring.parse(parser, argv, SECTIONS, quick={"repeats": 1})
    measuring.choose(parser, "network", [args.model, args.full_model], models.NAMES)
    return args


def later(runs):
    """Median seconds of the rounds after the first, over all runs.

    Example
    -------
    >>> later([[9.0, 2.0], [8.0, 4.0], [7.0, 3.0]])
    3.0
    """
    return statistics.median(seconds for run in runs for seconds in run[1:])


def ratio(ours, other):
    """Median ratio of our later rounds to another code's, turn by turn.

    Example
    -------
    >>> ratio([[9.0, 2.0], [9.0, 6.0]], [[9.0, 1.0], [9.0, 3.0]])
    2.0
    """
    return statistics.median(
        later([a]) / later([b]) for a, b in zip(ours, other, strict=True)
    )


# ------------------------------------------------------------------- side by side


def compare(args, clock):
    """Each code with the default network, and with the full one beside the original."""
    small = {"clients": 4, "batches": 10, "batch_size": 4, "seconds": 1.0}
    large = {"clients": 1, "batches": 2, "batch_size": 4, "seconds": 4.0}
    if args.quick:
        small |= {"clients": 2, "batches": 2}
        large |= {"clients": 1, "batches": 1, "batch_size": 2, "seconds": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        rows = compare_codes(args, clock, folder, model=args.model, **small)
        if args.authors:
            # Ray's workers would take minutes for what the first case shows as well.
            without_ray = argparse.Namespace(**{**vars(args), "ray": False})
            full = {"model": args.full_model, **large}
            rows += compare_codes(without_ray, clock, folder, **full)
    measuring.report(args, table_of(args), rows)


def table_of(args, *parts):
    """Name a table; on a GPU, one of its own."""
    return "_".join(["rounds", *(["gpu"] if measuring.on_gpu(args) else []), *parts])


def compare_codes(args, clock, folder, **sizes):
    """Rows of a table: what a round of each code takes."""
    case = loops.recordings(args, folder, **sizes)
    calls = {name: partial(code, case) for name, code in CODES.items()}
    if args.authors and "groupcomm" in sizes["model"]:
        place = tempfile.mkdtemp(dir=folder)
        calls["original"] = original_code(args, case, place, sizes)
    runs = measuring.alternate(
        {name: partial(call, 2, clock) for name, call in calls.items()}, args.repeats
    )
    rows = [
        {
            "code": name,
            **described(sizes),
            "seconds": later(runs[name]),
            "ours_to_this": ratio(runs["ours"], runs[name]),
            "peak_memory_mb": args.peak_memory(call, 1),
        }
        for name, call in calls.items()
    ]
    return rows + (compare_ray(args, case, sizes) if args.ray else [])


def described(sizes):
    """Columns of a table that say what a round was."""
    return {("audio_seconds" if n == "seconds" else n): v for n, v in sizes.items()}


def compare_ray(args, case, sizes):
    """Row of Ray, and of the bare loop beside it, by the wall clock."""
    bare = later([loops.bare(case, 3, time.perf_counter)])
    ray = later([loops.on_ray(case, 3)])
    row = {"code": "ours on Ray, by wall clock", **described(sizes), "seconds": ray}
    memory = args.peak_memory(loops.on_ray, case, 1)
    walls = {"bare_by_wall_clock": bare, "ray_to_bare": ray / bare}
    return [{**row, "peak_memory_mb": memory, **walls}]


def original_code(args, case, folder, sizes):
    """Make the original a code like the others, on the recordings of a case.

    Arguments
    ---------
    args : argparse.Namespace
        With ``authors`` and ``device``.
    case : Case
        Of :func:`benchmarks.loops.recordings`.
    folder : str or Path
        Where its recordings and weights go.
    sizes : dict
        Those of the case.

    Returns
    -------
    callable
        ``(rounds, clock) -> seconds``
    """
    tree = Path(folder) / "tree"
    original.write_tree(few_rows(case, sizes), tree, seconds=4.0)
    # How many batches there are is decided by the recordings.
    told = {name: size for name, size in sizes.items() if name != "batches"}
    argv = original.arguments(Path(folder) / "start.pt", **told)
    return partial(run_original, args.authors, tree, argv, args.device)


def run_original(authors, tree, argv, device, rounds, clock=time.process_time):
    """Run the original as the other codes are run."""
    argv = [*argv, "--n_global_epochs", str(rounds)]
    return original.rounds_of(authors, tree, argv, clock, device)


def few_rows(case, sizes):
    """The rows that a case trains on, and all isolated noises."""
    settings = case.settings
    manifest = settings["manifest_folder"] / "train.csv"
    rows = load_manifest(manifest, settings["data_folder"])
    rows = take_isolated_noises(rows, 0.5)
    assign_clients(rows, partial(fed.partition.grouped, n_clients=sizes["clients"]))
    count, few = sizes["batches"] * sizes["batch_size"], {}
    recordings = {k: row for k, row in rows.items() if not is_isolated_noise(row)}
    for ids in group_by(recordings, "client").values():
        few |= loops.take(recordings, ids, count)
    return few | {k: row for k, row in rows.items() if k not in recordings}


# -------------------------------------------------------------------------- sweeps


def sweep(name, args, clock):
    """Rows of a table, and what a line fitted to them says, for one variable."""
    values = SWEEPS[name][: 2 if args.quick else None]
    rows = []
    for value in values:
        case = Case(settings=settings_of(name, value), device=args.device)
        calls = {n: partial(code, case, 4, clock) for n, code in CODES.items()}
        runs = measuring.alternate(calls, args.repeats)
        for code, run in runs.items():
            row = {"varied": name, "value": value, "code": code, "seconds": later(run)}
            row["ours_to_this"] = ratio(runs["ours"], run)
            if name == "registered":
                row["peak_memory_mb"] = args.peak_memory(CODES[code], case, 1)
            rows.append(row)
    measuring.report(args, table_of(args, name), rows)
    return [fitted(rows, name, code) for code in CODES]


def settings_of(name, value):
    """Overrides of rounds.yaml for one point of a sweep."""
    settings = dict(FEWER) if name in ("parameters", "batches") else {}
    settings[name] = value
    if name == "clients":
        settings["registered"] = value
    elif name == "batches":
        settings["parameters"] = 250_000
    return settings


def fitted(rows, name, code):
    """Fit a line to the seconds of one code."""
    points = [(r["value"], r["seconds"]) for r in rows if r["code"] == code]
    found = measuring.fit(*zip(*points, strict=True))
    return {"varied": name, "code": code, **found}


# ------------------------------------------------------------ aggregation, failures


def aggregation(args, clock):
    """Average 100 replies of FedEnhance's network."""
    separator, _ = models.build_ours(args.full_model)
    arrays = {name: w.numpy() for name, w in separator.state_dict().items()}
    size = sum(array.nbytes for array in arrays.values())
    ProcessGrid(1)

    def replies(count):
        for _ in range(count):
            metrics = MetricRecord({"weight": 1.0})
            content = RecordDict({"arrays": to_record(arrays), "metrics": metrics})
            yield Message(content, message_type="train", dst_node_id=1)

    ready = list(replies(100))
    start = clock()
    mean, _ = build().aggregate_train(1, iter(ready))
    seconds = clock() - start
    assert all(np.allclose(a, arrays[n], atol=1e-6) for n, a in to_arrays(mean).items())
    del ready, mean
    gc.collect()
    tracemalloc.start()
    build().aggregate_train(1, replies(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    row = {"replies": 100, "parameters": size // 4, "arrays": len(arrays)}
    row |= {"seconds": seconds, "peak_memory_in_models": peak / size}
    measuring.report(args, "aggregation", [row])


def misbehave(message, context, call_next):
    """Fail in one of several ways, every fifth time."""
    kind = random.choice(KINDS) if random.random() < 0.2 else None
    if kind == "exception":
        raise RuntimeError("out of luck")
    reply = call_next(message, context)
    # Seeding by client must not decide who fails.
    random.seed()
    arrays = to_arrays(reply.content["arrays"])
    first = next(iter(arrays))
    if kind in SPOILT:
        arrays[first] = SPOILT[kind](arrays[first])
    elif kind == "other arrays":
        arrays["other"] = arrays.pop(first)
    elif kind == "no metric":
        del reply.content["metrics"]["loss"]
    elif kind == "timeout":
        reply.content["metrics"]["seconds"] = 1e6
    reply.content["arrays"] = to_record(arrays)
    return reply


SPOILT = {
    "not finite": lambda array: array * np.nan,
    "exceeds": lambda array: array + 1e9,
    "instead of": lambda array: array[:1],
}
KINDS = ["exception", *SPOILT, "other arrays", "no metric", "timeout"]


def failures(args, clock):
    """Run 200 rounds with every fifth client failing in one of the ways above."""
    rounds, objects = (24 if args.quick else 200), {}

    def watch(server_round, brain, row):
        if server_round in (20, rounds):
            gc.collect()
            objects[f"objects_after_round_{server_round}"] = len(gc.get_objects())

    with tempfile.TemporaryDirectory() as folder:
        hparams, _ = Case().load(folder)
        federation = hparams["federation"]
        federation.rounds, federation.mods = rounds, [misbehave]
        federation.timeout, federation.weighting = 1e3, fed.weighting.by_loss
        federation.callbacks = [watch]
        fed.recipe.train(hparams, loops.RUN_OPTS)
        lines = (Path(folder) / "clients.csv").read_text().splitlines()[1:]
    names = [*KINDS, "RuntimeError"]
    reasons = Counter(next((n for n in names if n in line), "ok") for line in lines)
    row = {"rounds": rounds, "updates": len(lines), **objects, **reasons}
    measuring.report(args, "failures", [row])


SECTIONS = {
    "compare": compare,
    **{name: partial(sweep, name) for name in SWEEPS},
    "aggregation": aggregation,
    "failures": failures,
}


def main(argv=None):
    """Run the sections."""
    args = parse(argv)
    fits = measuring.run_sections(args, SECTIONS)
    if fits:
        print("--- seconds = intercept + slope x value; exponent at the largest values")
        measuring.report(args, table_of(args, "fits"), fits)


if __name__ == "__main__":
    main(sys.argv[1:])
