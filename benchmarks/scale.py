#!/usr/bin/env python
"""What 256 to 1,000,000 clients and 1,000 rounds cost, from what fits on this machine.

    python -m benchmarks.scale
    python -m benchmarks.scale --model sudormrf_groupcomm --batches 50 --workers 64

Measures rounds of linear layers beside the bare loop; fits what the federation adds:

    seconds of a round = round + registered x N + sampled x n + weight x n x P
    memory             = program + client x N + weight x P

with N registered clients of which n train in a round, and P parameters. A training step
of the chosen network and the bytes of its messages are measured too. The largest round
that is measured is left out of the fit and predicted. Two tables follow: a simulation
on this machine or with more workers, and a deployment, in which clients train side by
side on machines like this core. The model and its assumptions are written down in
scale_model.csv.
"""

import sys
import tempfile
from functools import partial

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import recorddict_to_proto
from scipy.optimize import nnls

from benchmarks import data, loops, measuring
from benchmarks.loops import Case
from benchmarks.models import build_ours
from benchmarks.rounds import later
from fed.arrays import to_record

TERMS = ["round", "registered", "sampled", "weight"]
POINTS = [
    {"registered": 16, "clients": 16, "parameters": 4096},
    {"registered": 256, "clients": 64, "parameters": 4096},
    {"registered": 256, "clients": 256, "parameters": 4096},
    {"registered": 10_000, "clients": 16, "parameters": 4096},
    {"registered": 100_000, "clients": 16, "parameters": 4096},
    {"registered": 16, "clients": 16, "parameters": 800_000},
    {"registered": 16, "clients": 16, "parameters": 6_400_000},
    {"registered": 1_000_000, "clients": 256, "parameters": 800_000},
]
"""What is measured; the last is predicted from the others."""
REGISTERED = [256, 1024, 10_000, 100_000, 1_000_000]
ROUNDS = 1000
MESSAGE_POLL = 3
"""Seconds that a SuperNode of Flower 1.41 waits before it asks for work again."""


def terms(point):
    """What each term of the model is multiplied with."""
    sampled, parameters = point["clients"], point["parameters"]
    return [1.0, point["registered"], sampled, sampled * parameters]


def measure(args, clock):
    """Rows: what a round of each point takes beyond the bare loop."""
    points = [POINTS[i] for i in (0, 1, 3, 5, 2)] if args.quick else POINTS
    rows = []
    for point in points:
        case = Case(settings=point)
        rounds = 3 if point["clients"] * point["parameters"] > 10**7 else 6
        codes = {"bare": loops.bare, "ours": loops.in_process}
        calls = {n: partial(code, case, rounds, clock) for n, code in codes.items()}
        runs = measuring.alternate(calls, args.repeats)
        found = {name: later(run) for name, run in runs.items()}
        added = found["ours"] - found["bare"]
        rows.append({**point, **found, "added": added})
    return rows


def fit_time(rows):
    """Fit the terms, none of them negative, to what the federation adds.

    Returns
    -------
    dict
        Seconds by term.

    Example
    -------
    >>> point = {"parameters": 10, "ours": 1.0}
    >>> sizes = [(1, 1), (9, 1), (9, 5), (9, 9)]
    >>> points = [{**point, "registered": n, "clients": c} for n, c in sizes]
    >>> rows = [{**p, "added": 2.0 + 3.0 * p["registered"]} for p in points]
    >>> {name: round(value, 6) for name, value in fit_time(rows).items()}
    {'round': 2.0, 'registered': 3.0, 'sampled': 0.0, 'weight': 0.0}
    """
    design = np.array([terms(row) for row in rows])
    target = np.array([row["added"] for row in rows])
    # Relative to what a round takes, as the small ones matter as much.
    weights = 1 / np.array([row["ours"] for row in rows])
    sizes = design.max(0)
    found, _ = nnls(design / sizes * weights[:, None], target * weights)
    return dict(zip(TERMS, (found / sizes).tolist(), strict=True))


def predict(model, point):
    """Seconds that the federation adds to a round."""
    pairs = zip(model.values(), terms(point), strict=True)
    return sum(value * amount for value, amount in pairs)


def fit_memory(args):
    """Measure and fit memory.

    Returns
    -------
    dict
        Bytes: ``program``, ``client`` for each registered one, ``weight``.
    """
    many, large = 200_000, 6_400_000

    def peak(**settings):
        return 2**20 * args.peak_memory(loops.in_process, Case(settings=settings), 2)

    base, registered = peak(), peak(registered=many)
    heavy = peak(parameters=large)
    client = (registered - base) / many
    return {"program": base, "client": client, "weight": (heavy - base) / large}


def message_bytes(arrays):
    """Bytes of the message to a client and back.

    Arguments
    ---------
    arrays : dict of numpy.ndarray

    Returns
    -------
    int
        As Flower serialises the two; TLS and HTTP add about a percent.
    """
    down = {"arrays": to_record(arrays), "config": ConfigRecord({"client": "0000000"})}
    up = {"arrays": to_record(arrays), "metrics": MetricRecord({"loss": 0.0})}
    messages = (recorddict_to_proto(RecordDict(content)) for content in (down, up))
    return sum(message.ByteSize() for message in messages)


def step_seconds(args, clock):
    """Seconds of a training step of the network on one core."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"clients": 1, "batches": 1, "batch_size": 4, "model": args.model}
        case = loops.recordings(args, folder, seconds=1.0, **sizes)
        hparams, _ = case.load(folder)
        dataset = hparams["datasets"](hparams)["train"]
        options = {**hparams["train_dataloader_opts"], "shuffle": False}
        batch = next(iter(torch.utils.data.DataLoader(dataset, **options)))
        return data.step_seconds(hparams, batch, clock, repeats=3 if args.quick else 8)


def extrapolate(args, model):
    """Rows of the two tables, for every number of registered clients.

    Arguments
    ---------
    args : argparse.Namespace
    model : dict
        Of times and memory, ``step``, ``message``, ``parameters``.

    Returns
    -------
    simulation, deployment : list of dict
    """
    simulation, deployment = [], []
    times = {name: model[name] for name in TERMS}
    for registered in REGISTERED:
        sampled = max(16, min(args.most, round(args.fraction * registered)))
        point = {"registered": registered, "clients": sampled}
        point |= {"parameters": model["parameters"]}
        server = predict(times, point)
        training = sampled * args.batches * model["step"]
        memory = model["program_bytes"] + model["client_bytes"] * registered
        memory += model["weight_bytes"] * model["parameters"]
        traffic = sampled * model["message"]
        start = {"registered": registered, "sampled": sampled}
        hours = ROUNDS / 3600
        simulation.append(
            {
                **start,
                "seconds_a_round": server + training,
                "of_them_federation": server / (server + training),
                "hours_one_core": hours * (server + training),
                f"hours_{args.workers}_workers": hours
                * (server + training / args.workers),
                "memory_gb": memory / 1e9,
                f"memory_gb_{args.workers}_workers": (args.workers + 1) * memory / 1e9,
            }
        )
        transfer = 8 * traffic / (args.gigabits * 1e9)
        client = args.batches * model["step"] * args.slowest + MESSAGE_POLL
        deployment.append(
            {
                **start,
                "mb_a_client_a_round": model["message"] / 1e6,
                "gb_a_round": traffic / 1e9,
                "tb_in_all": ROUNDS * traffic / 1e12,
                "seconds_transfer": transfer,
                "seconds_server": server,
                "seconds_clients": client,
                "hours": hours * (transfer + server + client),
                "superlink_requests_a_second": registered
                * (1 / MESSAGE_POLL + 1 / HEARTBEAT_DEFAULT_INTERVAL),
                "superlink_gb": traffic / 1e9,
            }
        )
    return simulation, deployment


def assumptions(args, model):
    """Rows: every number of the model, and where it is from."""
    units = {
        "round": "s",
        "registered": "s a registered client and round",
        "sampled": "s a client of a round",
        "weight": "s a parameter and client of a round",
        "program_bytes": "bytes",
        "client_bytes": "bytes a registered client",
        "weight_bytes": "bytes a parameter",
        "step": f"s a training step of {args.model}, 4 x 1 s",
        "message": "bytes to a client and back",
        "parameters": f"weights and buffers of {args.model}",
    }
    measured = [(name, float(model[name]), unit) for name, unit in units.items()]
    assumed = [
        ("rounds", ROUNDS, ""),
        ("batches", args.batches, "of a client in a round"),
        ("fraction", args.fraction, f"of clients a round, 16 to {args.most} of them"),
        ("workers", args.workers, "Ray workers; perfectly busy, each holds everything"),
        ("bandwidth", args.gigabits, "Gbit/s of the server, the bottleneck; full"),
        ("slowest", args.slowest, "times this core: the slowest client of a round"),
        ("poll", MESSAGE_POLL, "s between a SuperNode's requests (flwr 1.41)"),
        ("heartbeat", HEARTBEAT_DEFAULT_INTERVAL, "s between heartbeats (flwr 1.41)"),
        ("superlink_gb", 1.0, "x the traffic of a round: it holds all messages"),
        ("failures", 0.0, "clients that fail or leave; evaluation is left out too"),
    ]
    return [
        {"what": what, "value": value, "unit": unit, "from": source}
        for source, rows in (("measured", measured), ("assumed", assumed))
        for what, value, unit in rows
    ]


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, data=True)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batches", type=int, default=15, help="of a client")
    parser.add_argument("--fraction", type=float, default=0.01, help="of clients")
    parser.add_argument("--most", type=int, default=1000, help="clients in a round")
    parser.add_argument("--workers", type=int, default=64, help="of Ray")
    parser.add_argument("--gigabits", type=float, default=1.0, help="of the server")
    parser.add_argument(
        "--slowest", type=float, default=3.0, help="client, in times of this core"
    )
    return measuring.parse(parser, argv, quick={"repeats": 1})


def main(argv=None):
    """Measure, fit, extrapolate."""
    args = parse(argv)
    clock = measuring.begin(args)
    rows = measure(args, clock)
    times = fit_time(rows[:-1])
    for row in rows:
        row["predicted"] = row["bare"] + predict(times, row)
    print("--- rounds that were measured; the last was not fitted")
    measuring.report(args, "scale_measured", rows)
    separator, _ = build_ours(args.model)
    arrays = {name: w.numpy() for name, w in separator.state_dict().items()}
    model = {
        **times,
        **{f"{name}_bytes": value for name, value in fit_memory(args).items()},
        "step": step_seconds(args, clock),
        "message": message_bytes(arrays),
        "parameters": sum(array.size for array in arrays.values()),
    }
    print("--- the model")
    measuring.report(args, "scale_model", assumptions(args, model))
    simulation, deployment = extrapolate(args, model)
    print(f"--- {ROUNDS} rounds, simulated")
    measuring.report(args, "scale_simulation", simulation)
    print(f"--- {ROUNDS} rounds, deployed")
    measuring.report(args, "scale_deployment", deployment)


if __name__ == "__main__":
    main(sys.argv[1:])
