#!/usr/bin/env python
"""What the federation layer costs: time and memory of a round, and of its parts.

    python -m benchmarks.rounds overhead     # against a bare PyTorch loop
    python -m benchmarks.rounds registered   # 1,000 and 100,000 clients
    python -m benchmarks.rounds sampled      # 16 and 256 clients in a round
    python -m benchmarks.rounds aggregation  # 100 replies of a 0.8 M-parameter model
    python -m benchmarks.rounds failures     # 200 rounds in which every fifth fails

Times are those of the processor on one thread, so that other programs on the machine
hardly matter.
"""

import argparse
import copy
import gc
import logging
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from flwr.app import Message, MetricRecord, RecordDict
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader

import fed
from fed.brain import to_arrays, to_record
from fed.runtime import ProcessGrid
from fed.strategy import build
from local_modules.objectives import mixit

SAMPLE_RATE = 16000


class Enhancement(sb.Brain):
    """Trains the separator with MixIT on noise: only the time matters."""

    def compute_forward(self, batch, stage):
        """Separate the sum of both mixtures."""
        mixtures = batch.mixtures.data.to(self.device)
        return self.modules.separator(mixtures.sum(1))

    def compute_objectives(self, predictions, batch, stage):
        """Mean of MixIT over the batch."""
        return mixit(predictions, batch.mixtures.data.to(self.device)).mean()


class Scaling(sb.Brain):
    """Trains one layer, so that what is measured is the federation."""

    def compute_forward(self, batch, stage):
        """Apply the layer."""
        return self.modules.model(batch.mixtures.data.to(self.device))

    def compute_objectives(self, predictions, batch, stage):
        """Mean of squares."""
        return predictions.square().mean()


def separator(name):
    """Build the network of a YAML file of hparams/models."""
    path = Path(__file__).parents[1] / "hparams" / "models" / f"{name}.yaml"
    with open(path, encoding="utf-8") as file:
        return load_hyperpyyaml(file)["separator"]


def recordings(examples, samples):
    """Make a dataset of noise that is the same for all examples."""
    noise = torch.randn(2, samples)
    dataset = DynamicItemDataset({str(i): {"mixtures": noise} for i in range(examples)})
    dataset.set_output_keys(["id", "mixtures"])
    return dataset


def federate(folder, brain, modules, dataset, partition, rounds=1, **options):
    """Run a federation; return its processor time in seconds."""
    options = {"batch_size": 4, "lr": 1e-3, **options}
    federation = fed.Federation(
        lambda hparams: {"train": dataset},
        partition=partition,
        rounds=rounds,
        **{k: v for k, v in options.items() if k not in ("batch_size", "lr")},
    )
    hparams = {
        "brain": brain,
        "modules": modules,
        "opt_class": lambda weights: torch.optim.Adam(weights, lr=options["lr"]),
        "output_folder": folder,
        "dataloader_options": {"batch_size": options["batch_size"]},
        "max_grad_norm": 5.0,
    }
    start = time.process_time()
    federation.run(None, "", {"device": "cpu", "noprogressbar": True}, hparams)
    return time.process_time() - start


def bare(model, dataset, clients):
    """Make the same steps without any framework; return processor time in seconds."""
    start = time.process_time()
    sent = copy.deepcopy(model.state_dict())
    total = {name: torch.zeros_like(weight) for name, weight in sent.items()}
    for ids in clients.values():
        model.load_state_dict(sent)
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        view = copy.copy(dataset)
        view.data_ids = ids
        for batch in DataLoader(view, batch_size=4):
            loss = mixit(model(batch["mixtures"].sum(1)), batch["mixtures"]).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, weight in model.state_dict().items():
            total[name] += weight
    model.load_state_dict({name: w / len(clients) for name, w in total.items()})
    return time.process_time() - start


def overhead(arguments):
    """Compare a round, in which each client has ten batches, with the bare loop."""
    count = arguments.clients
    dataset = recordings(count * 10 * 4, int(arguments.seconds * SAMPLE_RATE))
    ids = list(dataset.data_ids)
    clients = {f"{c:02d}": ids[c::count] for c in range(count)}
    model = separator(arguments.model)
    few = {name: held[:4] for name, held in clients.items()}
    times = {"bare": [], "federated": []}
    for repeat in range(arguments.repeats + 1):
        chosen = few if repeat == 0 else clients  # the first is to warm up
        with tempfile.TemporaryDirectory() as folder:
            one = bare(model, dataset, chosen)
            modules = {"separator": model}
            two = federate(folder, Enhancement, modules, dataset, lambda r, c=chosen: c)
        if repeat:
            times["bare"].append(one)
            times["federated"].append(two)
            print(f"bare {one:.2f} s, federated {two:.2f} s", flush=True)
    best = {name: min(values) for name, values in times.items()}
    percent = 100 * (best["federated"] / best["bare"] - 1)
    print(f"overhead {percent:.2f} % (fastest of {arguments.repeats}, processor time)")


def tiny(num_clients, num_sampled, rounds=6):
    """Time later rounds of a tiny model, and the memory that the run takes.

    Returns
    -------
    seconds : float
        Of a round, the fastest.
    growth : int
        Bytes of Python and NumPy at the peak.
    """
    dataset = recordings(64, 8)
    ids = list(dataset.data_ids)
    marks = []
    gc.collect()
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        federate(
            folder,
            Scaling,
            {"model": torch.nn.Linear(8, 512)},
            dataset,
            lambda rows: {f"{c:06d}": ids[:8] for c in range(num_clients)},
            rounds=rounds,
            fraction=num_sampled / num_clients,
            callbacks=[lambda r, brain, row: marks.append(time.process_time())],
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return min(np.diff(marks)), peak


def registered(arguments):
    """Compare 1,000 with 100,000 clients of which 16 are sampled."""
    tiny(100, 16)
    (few_time, few), (many_time, many) = tiny(1000, 16), tiny(100_000, 16)
    print(f"round: {1000 * few_time:.1f} ms, {1000 * many_time:.1f} ms")
    print(f"slower by {100 * (many_time / few_time - 1):.1f} %")
    print(f"memory: {(many - few) / 99_000:.0f} bytes a client")


def sampled(arguments):
    """Compare rounds of 16 and of 256 clients."""
    tiny(256, 16)
    (_, few), (_, many) = tiny(256, 16), tiny(256, 256)
    model = 4 * 9 * 512
    print(
        f"peak memory: {few / 1e3:.0f} kB, {many / 1e3:.0f} kB; model {model / 1e3} kB"
    )
    print(f"{(many - few) / 240:.0f} bytes for each further client of a round")


def aggregation(arguments):
    """Average 100 replies of the paper's network."""
    arrays = {
        name: weight.numpy()
        for name, weight in separator("sudormrf_groupcomm").state_dict().items()
    }
    size = sum(array.nbytes for array in arrays.values())
    ProcessGrid(1)

    def replies(count):
        for _ in range(count):
            metrics = MetricRecord({"weight": 1.0})
            content = RecordDict({"arrays": to_record(arrays), "metrics": metrics})
            yield Message(content, message_type="train", dst_node_id=1)

    ready = list(replies(100))
    start = time.process_time()
    mean, _ = build().aggregate_train(1, iter(ready))
    seconds = time.process_time() - start
    assert all(np.allclose(a, arrays[n], atol=1e-6) for n, a in to_arrays(mean).items())
    del ready, mean
    gc.collect()
    tracemalloc.start()
    build().aggregate_train(1, replies(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{size / 4e6:.2f} M parameters in {len(arrays)} arrays")
    print(f"100 replies: {seconds:.2f} s; peak memory {peak / size:.2f} models")


def misbehave(message, context, call_next):
    """Fail in one of six ways, every fifth time."""
    kind = random.choice(KINDS) if random.random() < 0.2 else None
    if kind == "exception":
        raise RuntimeError("out of luck")
    if kind == "seconds":
        time.sleep(0.02)
    reply = call_next(message, context)
    # Seeding by client must not decide who fails.
    random.seed()
    arrays = to_arrays(reply.content["arrays"])
    first = next(iter(arrays))
    if kind == "not finite":
        arrays[first] = arrays[first] * np.nan
    elif kind == "exceeds":
        arrays[first] = arrays[first] + 1e9
    elif kind == "instead of":
        arrays[first] = arrays[first][:1]
    elif kind == "other arrays":
        arrays["other"] = arrays.pop(first)
    elif kind == "no metric":
        del reply.content["metrics"]["loss"]
    elif kind == "timeout":
        reply.content["metrics"]["seconds"] = 1e6
    reply.content["arrays"] = to_record(arrays)
    return reply


KINDS = ["exception", "not finite", "exceeds", "instead of", "other arrays"]
KINDS += ["no metric", "timeout"]


def failures(arguments):
    """Run 200 rounds with every fifth client failing in one of the ways above."""
    dataset = recordings(64, 8)
    ids = list(dataset.data_ids)
    memory, failed = [], []

    def watch(server_round, brain, row):
        if server_round in (20, 200):
            gc.collect()
            memory.append(len(gc.get_objects()))
        failed.append(row["failures"])

    with tempfile.TemporaryDirectory() as folder:
        federate(
            folder,
            Scaling,
            {"model": torch.nn.Linear(8, 4)},
            dataset,
            lambda rows: {f"{c}": ids[c::16] for c in range(16)},
            rounds=200,
            mods=[misbehave],
            timeout=1e3,
            weighting=fed.weighting.by_loss,
            callbacks=[watch],
        )
        lines = (Path(folder) / "clients.csv").read_text().splitlines()
    reasons = Counter(
        next((kind for kind in [*KINDS, "RuntimeError"] if kind in line), "ok")
        for line in lines[1:]
    )
    print(f"200 rounds, {len(lines) - 1} updates, {sum(failed)} failures: {reasons}")
    print(f"objects after round 20: {memory[0]}, after round 200: {memory[1]}")


def main(argv):
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = [overhead, registered, sampled, aggregation, failures]
    names = {function.__name__: function for function in benchmarks}
    parser.add_argument("benchmark", choices=names)
    parser.add_argument("--model", default="sudormrf_groupcomm_small")
    parser.add_argument("--seconds", type=float, default=2.0, help="of an example")
    parser.add_argument("--clients", type=int, default=16, help="in a round")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    names[arguments.benchmark](arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak resident memory of the process: {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
