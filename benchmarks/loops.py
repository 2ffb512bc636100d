"""Rounds of federated averaging by several codes, with the same Brain, data and steps.

A code is a function ``(case, rounds, clock) -> seconds``; the first round of a run
holds what is done once. Every update starts with a new Adam, clips its gradients, and
weighs as many examples as the client has.
"""

import copy
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader

from fed import command, recipe
from fed.loading import restrict, rows_of
from fed.server import Server
from fedenhance.based_yaml import build, load_hparams
from fedenhance.data.datasets import dataio_prepare
from fedenhance.data.tables import read_table
from fedenhance.networks.scaling import separate
from fedenhance.recipes.LibriFSD50K.prepare import prepare
from fedenhance.training.separation import mixtures_of

HERE = Path(__file__).parent
RUN_OPTS = {"device": "cpu", "noprogressbar": True}
"""Of ``speechbrain.parse_arguments``."""
SPEAKERS = 16
"""Of the built-in corpus, at most one client each; further clients are copies."""


# ----------------------------------------------------------- what all codes compute


class Layers(sb.Brain):
    """Trains linear layers, so that what is measured is the federation."""

    def compute_forward(self, batch, stage):
        """Apply the layers."""
        return self.modules.model(batch.inputs.data)

    def compute_objectives(self, predictions, batch, stage):
        """Mean of squares."""
        return predictions.square().mean()


def layers(parameters, depth=4):
    """Make linear layers of about so many parameters in all.

    Example
    -------
    >>> sum(weight.numel() for weight in layers(40_000).parameters())
    40000
    """
    width = round((parameters / depth) ** 0.5)
    made = [torch.nn.Linear(width, width, bias=False) for _ in range(depth)]
    return torch.nn.Sequential(*made)


def noise(hparams):
    """Make the dataset of one client: noise that is the same for all examples."""
    inputs = torch.randn(hparams["model"][0].in_features)
    count = hparams["batches"] * hparams["batch_size"]
    dataset = DynamicItemDataset({str(i): {"inputs": inputs} for i in range(count)})
    dataset.set_output_keys(["id", "inputs"])
    return {"train": dataset}


def equal_shares(rows, registered):
    """Give every client all rows, in a list of its own."""
    return {f"{client:07d}": list(rows) for client in range(registered)}


def layers_loss(modules, batch, hparams):
    """Compute what ``Layers`` does, without a Brain."""
    inputs = batch["inputs"].to(next(modules.parameters()).device)
    return modules["model"](inputs).square().mean()


def few_batches(batches, clients, hparams):
    """Load the recordings of an experiment, but so many clients and batches of each.

    Where a client has fewer recordings they come again, as other examples; where there
    are fewer clients, so do they, with the same recordings.
    """
    train_set = dataio_prepare(hparams)["train"]
    count, rows, dealt = batches * hparams["batch_size"], {}, []
    for _, ids in sorted(train_set.clients.items()):
        taken = take(train_set.data, ids, count)
        dealt.append(list(taken))
        rows |= taken
    train_set.clients = {f"{n:05d}": dealt[n % len(dealt)] for n in range(clients)}
    train_set.data, train_set.data_ids = rows, list(rows)
    return {"train": train_set}


def take(rows, ids, count):
    """Take so many of some rows; from the first again where there are fewer.

    Example
    -------
    >>> take({"a": 1, "b": 2}, ["a", "b"], 3)
    {'a': 1, 'b': 2, 'a again 1': 1}
    """
    taken = {}
    for number in range(count):
        again, place = divmod(number, len(ids))
        name = ids[place] + (f" again {again}" if again else "")
        taken[name] = rows[ids[place]]
    return taken


def separation_loss(modules, batch, hparams):
    """Compute what ``Separation`` does for unsupervised clients, without a Brain."""
    sources = batch.sources.data.to(next(modules.parameters()).device)
    separator, consistency = modules["separator"], hparams["consistency"]
    estimates = separate(separator, sources.sum(1), consistency)
    objective = hparams["objectives"]["unsupervised"]
    return objective(estimates, mixtures_of(sources)).mean()


@dataclass
class Case:
    """What is done in a round.

    Attributes
    ----------
    file : str
        An experiment with a federation.
    settings : dict
        Overrides of it.
    loss : callable
        ``(modules, batch, hparams) -> loss``: what its Brain computes.
    device : str
    precision : str
        Of the Brain's computation, "fp32" or "bf16"; the bare loop knows the first.
    compile : bool
        Whether the Brain's modules are compiled.
    """

    file: str = str(HERE / "rounds.yaml")
    settings: dict = field(default_factory=dict)
    loss: callable = layers_loss
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False

    @property
    def run_opts(self):
        """What a Brain is told of the device."""
        own = {"device": self.device, "precision": self.precision}
        return {**RUN_OPTS, **own, "compile": self.compile}

    def load(self, folder):
        """Load the experiment; return it and the overrides, as text."""
        settings = {**self.settings, "output_folder": folder}
        overrides = "\n".join(f"{key}: {value}" for key, value in settings.items())
        return load_hparams(self.file, overrides), overrides


def recordings(args, folder, **sizes):
    """Make the case of the default experiment, on recordings.

    Arguments
    ---------
    args : argparse.Namespace
        With ``data_folder`` and ``device``.
    folder : str or Path
        Where the manifests go.
    **sizes : dict
        ``model``, ``clients``, ``batches``, ``batch_size``, ``seconds``; also
        ``num_workers`` of the loader, and ``cuda_graphs``.

    Returns
    -------
    Case
    """
    manifests = Path(folder) / "manifests"
    prepare(args.data_folder, manifests, storage="packed")
    num_workers = sizes.get("num_workers", 0)
    settings = {
        "prepare": "null",
        "data_folder": args.data_folder,
        "manifest_folder": manifests,
        "n_clients": min(sizes["clients"], SPEAKERS),
        "p_available_users": 1.0,
        "local_epoch_p": 1,
        "segment": sizes["seconds"],
        "batch_size": sizes["batch_size"],
        "models": f"!include:models/{sizes['model']}.yaml",
        "cuda_graphs": sizes.get("cuda_graphs", True),
        "datasets": f"!name:benchmarks.loops.few_batches "
        f"[{sizes['batches']}, {sizes['clients']}]",
        "train_dataloader_opts": (
            f"{{batch_size: {sizes['batch_size']}, shuffle: True, "
            f"num_workers: {num_workers}, persistent_workers: {num_workers > 0}, "
            f"pin_memory: {args.device != 'cpu'}, "
            "collate_fn: !name:fedenhance.data.datasets.collate }"
        ),
    }
    file = HERE.parent / "hparams" / "fedenhance.yaml"
    return Case(str(file), settings, separation_loss, args.device)


# ---------------------------------------------------------------------------- codes


def shares(hparams):
    """Load the training data of an experiment, and deal it as its federation does.

    Returns
    -------
    train_set : Dataset
    clients : list of list
        Ids of each client.
    """
    federation = hparams["federation"]
    train_set = federation.datasets(hparams)["train"]
    if federation.partition is None:
        return train_set, list(train_set.clients.values())
    return train_set, list(federation.partition(rows_of(train_set)).values())


def bare(case, rounds, clock=time.process_time):
    """PyTorch and nothing else: the floor."""
    with tempfile.TemporaryDirectory() as folder:
        hparams, _ = case.load(folder)
        train_set, clients = shares(hparams)
        clients = clients[: hparams["federation"].sampled(len(clients))]
        modules = torch.nn.ModuleDict(hparams["modules"]).to(case.device)
        marks = [clock()]
        for _ in range(rounds):
            bare_round(case, hparams, modules, train_set, clients)
            marks.append(clock())
    return np.diff(marks).tolist()


def bare_round(case, hparams, modules, train_set, clients):
    """Train a copy of the weights on each client's data; average the copies."""
    sent = copy.deepcopy(modules.state_dict())
    mean = {name: torch.zeros_like(weight) for name, weight in sent.items()}
    for ids in clients:
        modules.load_state_dict(sent)
        modules.train()
        optimizer = hparams["opt_class"](modules.parameters())
        view = restrict(train_set, ids)
        for batch in DataLoader(view, **hparams["train_dataloader_opts"]):
            take_step(case.loss, modules, optimizer, batch, hparams)
        for name, weight in modules.state_dict().items():
            mean[name] += weight / len(clients)
    modules.load_state_dict(mean)


def take_step(loss, modules, optimizer, batch, hparams):
    """Train on one batch."""
    loss(modules, batch, hparams).backward()
    torch.nn.utils.clip_grad_norm_(modules.parameters(), hparams["max_grad_norm"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def federate(case, rounds, callbacks=()):
    """Train our federation; return the rows of its rounds.csv."""
    with tempfile.TemporaryDirectory() as folder:
        hparams, overrides = case.load(folder)
        federation = hparams["federation"]
        federation.rounds = federation.evaluate_every = rounds
        federation.callbacks = callbacks
        # What Ray's workers run to have a Brain of their own.
        options = {k: v for k, v in case.run_opts.items() if v}.items()
        words = [f"--{k}" if v is True else f"--{k}={v}" for k, v in options]
        command.Process.command = [case.file, *command.flags(overrides), *words]
        recipe.train(hparams, case.run_opts)
        return read_table(Path(folder) / "rounds.csv")


def in_process(case, rounds, clock=time.process_time):
    """Our federation, in this process; what comes before round 1 is not counted."""
    marks, run = [], Server.run

    def marked(server):
        marks.append(clock())
        return run(server)

    with mock.patch.object(Server, "run", marked):
        federate(case, rounds, [lambda *_: marks.append(clock())])
    return np.diff(marks).tolist()


def on_ray(case, rounds, clock=time.perf_counter):
    """Our federation on Ray, a worker for each core; always by the wall clock."""
    case = replace(case, settings={**case.settings, "runtime": "ray"})
    return [float(row["seconds"]) for row in federate(case, rounds)]


def flower(case, rounds, clock=time.process_time):
    """Flower's own server and FedAvg, with a NumPyClient around the Brain.

    All in this process, one client after the other, with one Brain for all: Flower at
    its fastest, without the processes and the messages of its simulation.
    """
    # Imported here, so that the memory of our runtime is without it.
    from benchmarks.flower_stock import serve

    with tempfile.TemporaryDirectory() as folder:
        hparams, _ = case.load(folder)
        train_set, clients = shares(hparams)
        brain = build(hparams, case.run_opts, checkpointer=None)
        marks = []
        views = [restrict(train_set, ids) for ids in clients]
        options = hparams["train_dataloader_opts"]
        fraction = hparams["federation"].fraction
        serve(brain, views, options, fraction, rounds, lambda: marks.append(clock()))
        marks.append(clock())
    return np.diff(marks).tolist()
