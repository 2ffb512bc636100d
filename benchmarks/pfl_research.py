#!/usr/bin/env python
"""A round of ours beside pfl-research's, with the same model, clients, batches, steps.

    python -m benchmarks.pfl_research
    python -m benchmarks.pfl_research --clients 8 64 --batches 10

pfl-research (Granqvist et al., "pfl-research: simulation framework for accelerating
research in private federated learning", 2024) is the simulator that claims to be the
fastest; here it is its PyTorch model and its simulated backend in one process, with
federated averaging. It has to be installed, into an environment of its own::

    pip install pfl

The default experiment's network on recordings, and linear layers on noise, where all
time is the federation's; each with more and more clients that train for one batch.
Every client begins with a new Adam and clips its gradients. Ours checks every reply,
writes its tables and can resume; a bare PyTorch loop is the floor. The memory is what
a run of one round takes beyond its imports, in a process of its own. Rows that the CSV
has are not measured again.
"""

import copy
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from itertools import product

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import OUT, loops, measuring
from benchmarks.kept import Kept
from benchmarks.rounds import later, ratio, settings_of
from fed.loading import restrict
from fedenhance.reports.metrics import require

CLIENTS = (8, 64, 256, 1000)
LAYERS, MODEL = "linear layers", "sudormrf_groupcomm_small"
KEYS = ["network", "clients", "batches", "code"]
MANY = 256
"""So many clients, and more, train the network for one round, with what is done once in
it, and no memory is measured; that of linear layers shows what clients take."""


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, data=True)
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS)
    parser.add_argument("--batches", type=int, default=1, help="of each client")
    parser.add_argument("--turns", type=int, default=3, help="of each code")
    parser.add_argument("--networks", nargs="+", default=[LAYERS, MODEL])
    parser.add_argument("--restart", action="store_true", help="measure all again")
    quick = {"clients": [2], "turns": 1, "out": OUT / "quick"}
    return measuring.parse(parser, argv, quick=quick)


class Loss(torch.nn.Module):
    """What a case trains, as pfl-research wants its models."""

    def __init__(self, case, hparams):
        super().__init__()
        self.parts = torch.nn.ModuleDict(hparams["modules"])
        self.case, self.hparams = case, hparams

    def loss(self, batch, eval=False):
        """Compute the loss of a batch."""
        self.train(not eval)
        return self.case.loss(self.parts, batch, self.hparams)

    def metrics(self, batch, eval=True):
        """Nothing is evaluated here."""
        return {}


def simulated(case, rounds, clock=time.process_time):
    """A code like those of ``benchmarks.loops``: seconds of each round."""
    # In processes of another name it lacks a context that it then asks for.
    multiprocessing.current_process().name = "MainProcess"
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Model(PyTorchModel):
        _prepare_batch = staticmethod(lambda batch: batch)  # no tensor to be made

    class Marks(TrainingProcessCallback):
        def after_central_iteration(self, *args, **options):
            marks.append(clock())
            return False, Metrics()

    with tempfile.TemporaryDirectory() as folder:
        hparams, _ = case.load(folder)
        users = Users(*loops.shares(hparams), hparams["train_dataloader_opts"])
        network = Loss(case, hparams)
        model = Model(
            network,
            lambda weights, lr: hparams["opt_class"](weights),
            torch.optim.SGD(network.parameters(), lr=1.0),
        )
        params = NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=hparams["federation"].sampled(len(users.clients)),
            val_cohort_size=0,
        )
        training = NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=1.0,  # which is Adam's own
            local_batch_size=hparams["train_dataloader_opts"]["batch_size"],
            local_max_grad_norm=hparams["max_grad_norm"],
        )
        marks = [clock()]
        FederatedAveraging().run(
            algorithm_params=params,
            backend=SimulatedBackend(users, users),
            model=model,
            model_train_params=training,
            callbacks=[Marks()],
            send_metrics_to_platform=False,
        )
    return np.diff(marks).tolist()


class Users:
    """The clients of a case, one after the other, as pfl-research's datasets."""

    def __init__(self, train_set, clients, options):
        self.train_set, self.clients, self.options = train_set, clients, options

    def get_cohort(self, cohort_size):
        """Yield so many clients, each with a seed."""
        for number in range(cohort_size):
            ids = self.clients[number % len(self.clients)]
            yield User(restrict(self.train_set, ids), self.options), number


class User:
    """One client's data, read by the loader that all codes use."""

    user_id, metadata, train_kwargs, eval_kwargs = None, {}, {}, {}

    def __init__(self, view, options):
        self.view, self.options = view, options

    def __len__(self):
        return len(self.view)

    def iter(self, batch_size):
        """Yield batches, each the one argument of the loss."""
        return ((batch,) for batch in DataLoader(self.view, **self.options))


CODES = {"bare": loops.bare, "ours": loops.in_process, "pfl-research": simulated}


def main(argv=None):
    """Measure what the CSV lacks, and print it."""
    args = parse(argv)
    try:
        require("this benchmark", "pfl")
    except ImportError as error:
        sys.exit(str(error))
    clock = measuring.begin(args)
    kept = Kept(args.out / "rounds_pfl.csv", KEYS, args.restart)
    for network, count in product(args.networks, args.clients):
        if kept.lacks(network, count, args.batches, "ours"):
            with tempfile.TemporaryDirectory() as folder:
                case = case_of(args, network, count, folder)
                kept.add(*beside(args, clock, case, network, count))
    print(measuring.table(kept.rows))


def case_of(args, network, clients, folder):
    """Make what is trained."""
    if network == LAYERS:
        settings = settings_of("clients", clients) | {"batches": args.batches}
        return loops.Case(settings=settings, device=args.device)
    sizes = {"clients": clients, "batches": args.batches, "batch_size": 4}
    return loops.recordings(args, folder, model=network, seconds=1.0, **sizes)


def beside(args, clock, case, network, clients):
    """Rows of a table: the codes in turns, on one case."""
    many = clients >= MANY and network != LAYERS
    rounds, turns = (1, 1) if many else (3, args.turns)
    calls = {
        name: partial(code, copy.copy(case), rounds, clock)
        for name, code in CODES.items()
    }
    runs = measuring.alternate(calls, turns)
    if many:  # there is no round before
        runs = {name: [[0.0, *run] for run in found] for name, found in runs.items()}
    rows = []
    for name, run in runs.items():
        row = {"network": network, "clients": clients, "batches": args.batches}
        row |= {"code": name, "seconds": later(run)}
        row["ours_to_this"] = ratio(runs["ours"], run)
        if not many:
            row["peak_memory_mb"] = args.peak_memory(CODES[name], case, 1)
        rows.append({**row, "machine": measuring.machine(args)})
    return rows


if __name__ == "__main__":
    main()
