"""A site: the Brain and the data of one process, and who holds what of them."""

import copy
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from fed import partition as partitions
from fed.arrays import get_arrays, matching, set_arrays
from fed.brain import federate
from fed.files import ClientStates

# Common names of the loader options in SpeechBrain's recipes, by dataset.
LOADER_OPTIONS = (
    "{}_dataloader_opts",
    "{}_dataloader_options",
    "dataloader_options",
    "dataloader_opts",
)
SERVER_INDEX = 2**32 - 1


class Site:
    """Where training happens: the server, or a process that serves clients.

    Arguments
    ---------
    hparams : dict
        The loaded YAML, with ``brain``, ``modules``, ``opt_class``.
    federation : Federation
        Its ``datasets`` is called with hparams.
    run_opts : dict
        Of ``speechbrain.parse_arguments``.
    datasets : dict
        If they are made already.
    """

    def __init__(self, hparams, federation, run_opts, datasets=None):
        for key in ("brain", "modules"):
            if key not in hparams:
                raise ValueError(f"The YAML of a federation needs the key '{key}'.")
        self.hparams = hparams
        self.federation = federation
        if datasets is None:
            datasets = federation.datasets(hparams)
        self.datasets = as_dict(datasets)
        self.brain = federate(hparams["brain"], hparams, run_opts)
        self.local = matching(self.brain.modules.state_dict(), federation.local)
        self.output_folder = Path(hparams.get("output_folder", "results/federation"))
        self.save_folder = Path(hparams.get("save_folder", self.output_folder / "save"))
        self.states = ClientStates(self.save_folder / "clients")
        self.seed = int(
            hparams.get("seed", 0) if federation.seed is None else federation.seed
        )
        self._partition = None

    @property
    def train_set(self):
        """Return what all clients hold together, or one with its own data."""
        if self.datasets.get("train") is None:
            raise ValueError(f"datasets: no 'train' among {sorted(self.datasets)}.")
        return self.datasets["train"]

    @property
    def partition(self):
        """Map each client's name to the ids that it holds; by name."""
        if self._partition is None:
            clients = getattr(self.train_set, "clients", None)
            if clients is None or self.federation.partition:
                deal = self.federation.partition or partitions.iid
                clients = deal(rows_of(self.train_set))
            empty = [name for name, ids in clients.items() if not ids]
            if empty:
                raise ValueError(f"Clients without training data: {empty}.")
            self._partition = dict(sorted(clients.items()))
        return self._partition

    def names(self):
        """List the clients that train.

        Raises
        ------
        ValueError
            Naming selected clients that do not exist.
        """
        names = list(self.partition)
        if self.federation.selected_clients is None:
            return names
        selected = [str(name) for name in self.federation.selected_clients]
        unknown = sorted(set(selected) - set(names))
        if unknown:
            raise ValueError(f"selected_clients: there are no clients {unknown}.")
        return [name for name in names if name in set(selected)]

    def client_set(self, name):
        """Return the training data of one client."""
        return restrict(self.train_set, self.partition[name])

    def loader_options(self, key):
        """Find the loader options of a dataset, by SpeechBrain's usual names."""
        for pattern in LOADER_OPTIONS:
            if pattern.format(key) in self.hparams:
                return dict(self.hparams[pattern.format(key)])
        return {}

    def seed_all(self, server_round, index):
        """Seed what is drawn globally, such as dropout, by seed, round and client."""
        key = np.random.SeedSequence([self.seed, server_round, index])
        seed = int(key.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        # What torch.manual_seed does, less a stack trace for GPUs that are not there.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)

    def train(
        self,
        arrays,
        train_set,
        server_round,
        index,
        name=None,
        run=None,
        epochs=None,
        lr=None,
        proximal_mu=None,
    ):
        """Make one local update.

        Arguments
        ---------
        arrays : dict of numpy.ndarray
            From which it starts.
        train_set : Dataset
        server_round : int
            From 1.
        index : int
            The client's place among all clients.
        name, run : str
            The client and the identity of the run, whose lasting state is used; the
            server has none.
        epochs : float
            The federation's ``local_epochs`` by default.
        lr : float
            The optimizers' own by default.
        proximal_mu : float
            Of FedProx.

        Returns
        -------
        arrays : dict of numpy.ndarray
            Those that are kept local are the ones that came in.
        metrics : dict
        """
        epochs = self.federation.local_epochs if epochs is None else epochs
        keep = (run, name) if name else None
        state = self.states.load(keep, server_round) if keep else {}
        set_arrays(self.brain, {**arrays, **state.get("arrays", {})})
        self.seed_all(server_round, index)
        validate = name and self.federation.validate_clients
        metrics = self.brain.local_update(
            train_set,
            first_epoch=(server_round - 1) * int(np.ceil(epochs)) + 1,
            epochs=epochs,
            loader_kwargs=self.loader_options("train"),
            valid_set=self.datasets.get("valid") if validate else None,
            valid_loader_kwargs=self.loader_options("valid"),
            sampler_offset=index * 1_000_003 if name else SERVER_INDEX,
            on_optimizers=self.adjust_optimizers(state, lr, proximal_mu),
            totals=self.federation.totals,
        )
        trained = get_arrays(self.brain)
        if name and (self.local or self.federation.keep_optimizer):
            self.states.save(keep, server_round, self.lasting_state(trained))
        sent = {n: a if n in self.local else trained[n] for n, a in arrays.items()}
        return sent, metrics

    def adjust_optimizers(self, state, lr, proximal_mu):
        """Make the hook that sets up the optimizers of a local update."""

        def adjust(optimizers):
            for key, optimizer in optimizers.items():
                if key in state.get("optimizers", {}):
                    load_optimizer(optimizer, state["optimizers"][key])
                for group in optimizer.param_groups:
                    group["lr"] = lr or group["lr"]
                if proximal_mu:
                    optimizer.register_step_pre_hook(proximal(proximal_mu))
            for key, values in state.get("schedulers", {}).items():
                vars(self.brain.schedulers[key][0]).update(values)

        return adjust

    def lasting_state(self, trained):
        """Collect what a client keeps from round to round."""
        state = {"arrays": {name: trained[name] for name in self.local}}
        if self.federation.keep_optimizer:
            optimizers = self.brain.optimizers().items()
            state["optimizers"] = {key: o.state_dict() for key, o in optimizers}
            schedulers = self.brain.schedulers.items()
            state["schedulers"] = {key: vars(s) for key, (s, _) in schedulers}
        return state

    def validate(self, arrays, server_round, train_loss):
        """Evaluate on the validation data, and return what the Brain reports."""
        if self.datasets.get("valid") is None:
            return {}
        set_arrays(self.brain, arrays)
        self.seed_all(server_round, SERVER_INDEX)
        options = self.loader_options("valid")
        return self.brain.validate(
            self.datasets["valid"], server_round, train_loss, options
        )

    def test(self, arrays):
        """Evaluate on the test data; several sets get names, as in ``clean_loss``."""
        set_arrays(self.brain, arrays)
        sets = self.datasets.get("test")
        options = self.loader_options("test")
        if not isinstance(sets, dict):
            return {} if sets is None else self.brain.test(sets, options)
        return {
            f"{name}_{key}": value
            for name, test_set in sets.items()
            for key, value in self.brain.test(test_set, options).items()
        }


def load_optimizer(optimizer, state):
    """Loads an optimizer's state, but not how it computes: YAML and device say that."""
    groups = [
        {**saved, **{key: own[key] for key in ("fused", "foreach") if key in own}}
        for saved, own in zip(
            state["param_groups"], optimizer.param_groups, strict=True
        )
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def proximal(mu):
    """Makes a hook that pulls each step back to where it started (FedProx).

    The gradient of ``mu / 2 * |w - w_0|^2`` is added before each step of the
    optimizer (Li et al., 2020, equation 2).

    Arguments
    ---------
    mu : float
    """
    start = {}

    def hook(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                origin = start.setdefault(weight, weight.detach().clone())
                if weight.grad is not None:
                    weight.grad.add_(weight.detach() - origin, alpha=mu)

    return hook


def as_dict(datasets):
    """Names the datasets that a recipe returns: a dict, or a tuple in usual order."""
    if not isinstance(datasets, dict):
        sets = datasets if isinstance(datasets, (tuple, list)) else [datasets]
        sets = [s for s in sets if isinstance(s, (Dataset, dict))]
        datasets = dict(zip(("train", "valid", "test"), sets, strict=False))
    return datasets


def rows_of(dataset):
    """Lists the rows of a dataset, which any torch Dataset has, if only by number."""
    if not hasattr(dataset, "data_ids"):
        return {i: {} for i in range(len(dataset))}
    return {i: dataset.data[i] for i in dataset.data_ids}


def restrict(dataset, ids):
    """Makes a view of some rows; it shares rows and pipeline, and costs nothing."""
    if not hasattr(dataset, "data_ids"):
        return Subset(dataset, ids)
    view = copy.copy(dataset)
    view.data_ids, view.part_of = ids, dataset
    return view
