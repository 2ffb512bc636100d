"""What a process must load to train or evaluate: Brain, data, who holds what."""

import copy
import io
import json
import random
from pathlib import Path

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from torch.utils.data import Dataset, Subset

from fed import partition as partitions
from fed.brain import federate, get_arrays, matching, set_arrays
from fed.memory import keep_freed_memory
from fed.state import ClientStates

# Common names of the loader options in SpeechBrain's recipes, by dataset.
LOADER_OPTIONS = (
    "{}_dataloader_opts",
    "{}_dataloader_options",
    "dataloader_options",
    "dataloader_opts",
)
SERVER_INDEX = 2**32 - 1


class Experiment:
    """An experiment as one process sees it: the server's, or a client's.

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

    def train(self, arrays, train_set, server_round, index, **options):
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
        **options : dict
            ``name`` of the client, and identity of the ``run``, whose lasting state is
            used; ``epochs``, ``lr``, ``proximal_mu``.

        Returns
        -------
        arrays : dict of numpy.ndarray
            Those that are kept local are the ones that came in.
        metrics : dict
        """
        name = options.get("name")
        epochs = options.get("epochs", self.federation.local_epochs)
        keep = (options.get("run"), name) if name else None
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
            on_optimizers=self.adjust_optimizers(state, options),
            totals=self.federation.totals,
        )
        trained = get_arrays(self.brain)
        if name and (self.local or self.federation.keep_optimizer):
            self.states.save(keep, server_round, self.lasting_state(trained))
        sent = {n: a if n in self.local else trained[n] for n, a in arrays.items()}
        return sent, metrics

    def adjust_optimizers(self, state, options):
        """Make the hook that sets up the optimizers of a local update."""

        def adjust(optimizers):
            for key, optimizer in optimizers.items():
                if key in state.get("optimizers", {}):
                    load_optimizer(optimizer, state["optimizers"][key])
                for group in optimizer.param_groups:
                    group["lr"] = options.get("lr") or group["lr"]
                if options.get("proximal_mu"):
                    optimizer.register_step_pre_hook(proximal(options["proximal_mu"]))
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


def describe(hparams_file, overrides, run_opts):
    """Writes down how to load an experiment in another process."""
    return json.dumps([hparams_file and str(hparams_file), overrides, run_opts])


def describe_deployed(context):
    """Writes down which experiment Flower's run config and node config speak of.

    Relative paths of YAML files are relative to the app.
    """
    run, node = context.run_config, context.node_config
    path = Path(__file__).resolve().parents[1] / str(run["hparams"])
    overrides = merge(str(run["overrides"]), str(node.get("overrides", "")))
    device = node.get("device", run.get("device"))
    return describe(path, overrides, {"device": device} if device else {})


def merge(overrides, others):
    """Joins two sets of overrides; where both name a key, the second one counts.

    Arguments
    ---------
    overrides, others : str
        YAML, with HyperPyYAML's tags; may be empty.

    Returns
    -------
    str

    Example
    -------
    >>> print(merge("{rounds: 2, lr: 0.1}", "lr: 0.2"), end="")
    {rounds: 2, lr: 0.2}
    """
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    merged = yaml.load(overrides) or {}
    merged.update(yaml.load(others) or {})
    yaml.dump(merged, text)
    return text.getvalue()


_loaded = {}


def register(description, experiment):
    """Make this process use an experiment that it has loaded already."""
    for old in _loaded.values():
        old.brain.loaders.clear()
    _loaded.clear()
    _loaded[description] = experiment


def load(description):
    """Load an experiment, or find it loaded.

    Arguments
    ---------
    description : str
        Of :func:`describe`.

    Returns
    -------
    Experiment
    """
    if description not in _loaded:
        hparams_file, overrides, run_opts = json.loads(description)
        keep_freed_memory()
        torch.set_num_threads(int(run_opts.pop("num_threads", 1)))
        with open(hparams_file, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        if hparams.get("prepare"):
            hparams["prepare"]()
        register(description, Experiment(hparams, hparams["federation"], run_opts))
    return _loaded[description]
