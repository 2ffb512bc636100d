#!/usr/bin/env python
"""A round of ours beside pfl-research's, with the same model, clients, batches, steps.

    python -m benchmarks.pfl_research
    python -m benchmarks.pfl_research --clients 8 64

pfl-research (Granqvist et al., "pfl-research: simulation framework for accelerating
research in private federated learning", 2024) is the simulator that claims to be the
fastest; here it is its PyTorch model and its simulated backend in one process, with
federated averaging. It has to be installed, into an environment of its own::

    pip install pfl

Two tables in one: clients that train linear layers on noise, in growing numbers, where
all time is the federation's; and the default experiment's network on recordings. Every
client begins with a new Adam and clips its gradients. Ours checks every reply, writes
its tables and can resume; a bare PyTorch loop is the floor.
"""

import copy
import sys
import tempfile
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import loops, measuring
from benchmarks.rounds import later, ratio, settings_of
from fed.loading import restrict
from fedenhance.reports.metrics import require

CLIENTS = (8, 64, 256, 1000)


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, data=True)
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS)
    parser.add_argument("--repeats", type=int, default=3)
    quick = {"clients": [2, 4], "repeats": 1}
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


def simulated(case, rounds, clock):
    """A code like those of ``benchmarks.loops``: seconds of each round."""
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
    """Measure, print the table and write it."""
    args, rows = parse(argv), []
    try:
        require("this benchmark", "pfl")
    except ImportError as error:
        sys.exit(str(error))
    clock = measuring.begin(args)
    for count in args.clients:
        case = loops.Case(settings=settings_of("clients", count), device=args.device)
        rows += beside(args, clock, case, "linear layers", count)
        measuring.report(args, "rounds_pfl", rows)
    sizes = {"clients": 4, "batches": 10, "batch_size": 4, "seconds": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        case = loops.recordings(args, folder, model=args.model, **sizes)
        rows += beside(args, clock, case, args.model, sizes["clients"])
    measuring.report(args, "rounds_pfl", rows)


def beside(args, clock, case, network, clients):
    """Rows of a table: the codes in turns, on one case."""
    calls = {n: partial(code, copy.copy(case), 4, clock) for n, code in CODES.items()}
    runs = measuring.alternate(calls, args.repeats)
    return [
        {
            "network": network,
            "clients": clients,
            "code": name,
            "seconds": later(run),
            "ours_to_this": ratio(runs["ours"], run),
            "peak_memory_mb": args.peak_memory(CODES[name], case, 1),
        }
        for name, run in runs.items()
    ]


if __name__ == "__main__":
    main()
