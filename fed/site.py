"""A site: the Brain and the data of one process, and who holds what of them."""

import math
import random
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import speechbrain
import torch
from speechbrain.utils.logger import get_logger

from fed import partition as partitions
from fed.arrays import get_arrays, matching, set_arrays
from fed.brain import join
from fed.ledger import ClientStates
from fed.loading import (
    LOADERS,
    as_dict,
    holders,
    loader_options,
    options_of_part,
    restrict,
    rows_of,
    take_apart,
)
from fed.numbers import moved, set_numbers

logger = get_logger(__name__)
SERVER_INDEX = 2**32 - 1


@dataclass(frozen=True)
class Task:
    """One local update.

    Arguments
    ---------
    server_round : int
        From 1.
    index : int
        The client's place among all clients.
    client, run : str
        Name of the client and identity of the run, whose lasting state is used; the
        server has none.
    epochs : float
        The federation's ``local_epochs`` by default.
    lr : float
        The optimizers' own by default.
    proximal_mu : float
        Of FedProx.
    """

    server_round: int
    index: int = SERVER_INDEX
    client: str | None = None
    run: str | None = None
    epochs: float | None = None
    lr: float | None = None
    proximal_mu: float | None = None


class Site:
    """Where training happens: the server, or a process that serves clients.

    Arguments
    ---------
    federation : Federation
    brain : Brain
        Ready to fit; it serves in the federation until :meth:`close`.
    train_set : Dataset or DataLoader
        What all clients hold together, or one with its own data.
    valid_set : Dataset or DataLoader
    train_loader_kwargs, valid_loader_kwargs : dict
        As ``Brain.fit`` knows them.
    datasets : dict
        Others by name: ``test``, which may be a dict of several, and those that
        ``server_training`` speaks of.
    """

    def __init__(
        self,
        federation,
        brain,
        train_set,
        valid_set=None,
        train_loader_kwargs=None,
        valid_loader_kwargs=None,
        datasets=None,
    ):
        self.federation = federation
        self.brain = brain
        self.hparams = dict(vars(brain.hparams)) if hasattr(brain, "hparams") else {}
        self.checkpointer = brain.checkpointer
        taken = take_apart(train_set, train_loader_kwargs)
        self.train_set, self.train_options = taken
        self.holders = holders(brain, train_set, self.train_set)
        own = {"train": self.train_set, "valid": valid_set}
        self.datasets = (datasets or {}) | own
        self.valid_options = dict(valid_loader_kwargs or {})
        self.leave = join(brain)
        self.local = matching(brain.modules.state_dict(), federation.local)
        self.output_folder = Path(self.hparams.get("output_folder", "results"))
        save = self.hparams.get("save_folder", self.output_folder / "save")
        kept = getattr(self.checkpointer, "checkpoints_dir", None)
        own = kept and Path(kept).resolve() == Path(save).resolve()
        self.save_folder = Path(save, "federated") if own else Path(save)
        self.states = ClientStates(self.save_folder / "clients")
        self.state_file = self.save_folder / "federation.pt"
        self.stateful = list(brain.stateful.values())
        seed = self.hparams.get("seed", 0)
        self.seed = int(seed if federation.seed is None else federation.seed)
        self.tried = self.warms_up = False
        self._partition = None

    @property
    def partition(self):
        """Map each client's name to the ids that it holds; by name."""
        if self._partition is None:
            if self.train_set is None:
                raise ValueError("There are no training data to deal to clients.")
            rows, deal = rows_of(self.train_set), self.federation.partition
            clients = None if deal else getattr(self.train_set, "clients", None)
            if clients is None:
                clients = (deal or partitions.iid)(rows)
            if empty := [name for name, ids in clients.items() if not ids]:
                raise ValueError(f"Clients without training data: {empty}.")
            self.place_of = {key: place for place, key in enumerate(rows)}
            self._partition = dict(sorted(clients.items()))
        return self._partition

    @property
    def trained(self):
        """Name the weights that training changes and clients send back."""
        weights = self.brain.modules.named_parameters()
        return {n for n, w in weights if w.requires_grad} - set(self.local)

    def names(self):
        """List the clients that train.

        Raises
        ------
        ValueError
            Naming selected clients that do not exist.
        """
        names, selected = list(self.partition), self.federation.selected_clients
        if selected is None:
            return names
        selected = {str(name) for name in selected}
        if unknown := sorted(selected - set(names)):
            raise ValueError(f"selected_clients: there are no clients {unknown}.")
        return [name for name in names if name in selected]

    def client_data(self, name):
        """Return what one client holds, in its order, and the options of its loader."""
        ids = sorted(self.partition[name], key=self.place_of.__getitem__)
        part = restrict(self.train_set, ids)
        places = [self.place_of[key] for key in ids]
        return part, options_of_part(self.train_options, part, places)

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

    def train(self, arrays, numbers, data, task):
        """Make one local update.

        Arguments
        ---------
        arrays : dict of numpy.ndarray
            From which it starts.
        numbers : dict of numpy.ndarray
            Of ``Federated.numbers``.
        data : tuple
            Dataset and options of its loader.
        task : Task

        Returns
        -------
        arrays : dict of numpy.ndarray
            Those that are kept local are the ones that came in.
        metrics : dict
        """
        brain, name, keep = self.brain, task.client, (task.run, task.client)
        epochs = task.epochs or self.federation.local_epochs
        state = self.states.load(keep, task.server_round) if name else {}
        set_arrays(brain, {**arrays, **state.get("arrays", {})})
        self.seed_all(task.server_round, task.index)
        validate = name and self.federation.validate_clients
        vars(brain).update(dict.fromkeys(self.holders, data[0]))
        try:
            metrics = brain.local_update(
                *data,
                numbers=numbers,
                first_epoch=(task.server_round - 1) * math.ceil(epochs) + 1,
                epochs=epochs,
                sampler_offset=task.index * 1_000_003 if name else SERVER_INDEX,
                on_optimizers=partial(self.adjust, numbers, task, state),
                totals=self.federation.totals,
                valid_set=self.datasets["valid"] if validate else None,
                valid_loader_kwargs=self.valid_options,
            )
        finally:
            vars(brain).update(dict.fromkeys(self.holders, self.train_set))
        trained = get_arrays(brain)
        if name and (self.local or self.federation.keep_optimizer):
            lasting = self.lasting_state(trained, numbers)
            self.states.save(keep, task.server_round, lasting)
        sent = {n: a if n in self.local else trained[n] for n, a in arrays.items()}
        return sent, metrics

    def adjust(self, numbers, task, state, optimizers):
        """Set up optimizers and schedulers once they are there.

        Learning rates are those of YAML, then a client's own that it keeps, then the
        server's, then those of the federation's schedule.
        """
        for key, optimizer in optimizers.items():
            if key in state.get("optimizers", {}):
                load_optimizer(optimizer, state["optimizers"][key])
            rates = numbers.get(f"optimizers.{key}", ())
            for group, rate in zip(optimizer.param_groups, rates, strict=False):
                group["lr"] = float(rate)
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] if task.lr is None else task.lr
            if task.proximal_mu:
                optimizer.register_step_pre_hook(proximal(task.proximal_mu))
        self.first_rates = rates_of(optimizers)
        for key, numbers in state.get("numbers", {}).items():
            set_numbers(self.brain.schedulers[key][0], numbers)

    def lasting_state(self, trained, numbers):
        """Collect what a client keeps from round to round."""
        state = {"arrays": {name: trained[name] for name in self.local}}
        if self.federation.keep_optimizer:
            optimizers = self.brain.optimizers().items()
            state["optimizers"] = {key: o.state_dict() for key, o in optimizers}
            schedulers = {key: s for key, (s, _) in self.brain.schedulers.items()}
            state["numbers"] = moved(schedulers, numbers)
        return state

    def validate(self, arrays, numbers, server_round, train_loss=0.0):
        """Evaluate on the validation data, and return what the Brain reports."""
        if self.datasets["valid"] is None:
            return {}
        self.train_before_validation(numbers)
        set_arrays(self.brain, arrays)
        self.seed_all(server_round, SERVER_INDEX)
        return self.brain.validate(
            self.datasets["valid"],
            self.valid_options,
            numbers=numbers,
            epoch=server_round * math.ceil(self.federation.local_epochs),
            train_loss=train_loss,
            on_optimizers=partial(self.adjust, numbers, Task(server_round), {}),
        )

    def test(self, arrays, numbers):
        """Evaluate on the test data; several sets get names, as in ``clean_loss``."""
        set_arrays(self.brain, arrays)
        self.brain.set_numbers(numbers)
        sets = self.datasets.get("test")
        options = loader_options(self.hparams, "test") or self.valid_options
        if not isinstance(sets, dict):
            return {} if sets is None else self.brain.test(sets, options)
        found = {
            name: self.brain.test(test_set, options) for name, test_set in sets.items()
        }
        return {f"{n}_{key}": v for n, row in found.items() for key, v in row.items()}

    def server_data(self):
        """Return what the server trains on, if anything, and options of its loader.

        Raises
        ------
        ValueError
            When there is no such dataset, or no loader of it can be made.
        """
        name = (self.federation.server_training or {}).get("dataset")
        if name is None:
            return None
        if name not in self.datasets and self.federation.datasets:
            others = as_dict(self.federation.datasets(self.hparams))
            self.datasets = others | self.datasets
        if self.datasets.get(name) is None:
            there = sorted(n for n, data in self.datasets.items() if data is not None)
            raise ValueError(
                f"server_training: the datasets have no '{name}', only {there}; the "
                "federation's key 'datasets' may name a function that makes it."
            )
        data, options = self.datasets[name], self.train_options
        if name == "train":
            return self.train_set, options
        if options.get("batch_sampler") is None and not isinstance(data, LOADERS):
            return data, options
        if name != "valid" and not isinstance(data, LOADERS):
            raise ValueError(
                f"server_training: the batches of '{name}' cannot be made as those of "
                "'train', which its batch_sampler makes; let 'datasets' make a loader."
            )
        return take_apart(data, self.valid_options if name == "valid" else {})

    def rehearse(self):
        """Train and validate one batch, so that what fails does so before round 1.

        What a recipe makes of the outputs of an untrained network may fail where it
        would not after an epoch: that is a warning.

        Raises
        ------
        RuntimeError
            Naming the line of the recipe.
        """
        brain, client = self.brain, self.names()[0]
        arrays, numbers = get_arrays(brain), brain.numbers()
        known = brain.optimizers()
        self.server_data()
        try:
            self.train_one_batch(numbers)
            if not brain.optimizers():
                raise ValueError("the Brain has no optimizer; give it an opt_class")
            self.check_fraction()
            rates = rates_of(brain.optimizers())
            self.warms_up = any(rates) and not any(self.first_rates)
            with one_batch(brain):
                self.validate(arrays, brain.numbers(), 1)
        except Exception as error:
            steps = traceback.extract_tb(error.__traceback__)
            own = [step for step in steps if is_recipes(step.filename)]
            where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            cause = f"{type(error).__name__}: {error}{where}"
            if not any(step.name == "evaluate_batch" for step in steps):
                raise RuntimeError(
                    f"One batch of client {client} could not be trained and validated: "
                    f"{cause}"
                ) from error
            logger.warning(
                "The untrained model could not be validated: %s. If this goes on after "
                "round 1, training stops there.",
                cause,
            )
        brain.forget_optimizers(but=known)
        set_arrays(brain, arrays)
        brain.set_numbers(numbers)
        brain.reset()

    def check_fraction(self):
        """See, after a batch, that a fraction of an epoch can be counted."""
        brain, epochs = self.brain, self.federation.local_epochs
        counts = brain.grad_accumulation_factor > 1 or brain.optimizer_step
        if epochs % 1 and not counts:
            raise ValueError(
                f"local_epochs {epochs}: steps are counted in optimizers_step(), which "
                "fit_batch() does not call; let it be whole"
            )

    def train_one_batch(self, numbers):
        """Train one batch of the first client, and leave the Brain as that does."""
        data = self.client_data(self.names()[0])
        with one_batch(self.brain):
            task = Task(server_round=1, index=0, epochs=1)
            self.train(get_arrays(self.brain), numbers, data, task)

    def train_before_validation(self, numbers):
        """Train one batch, if none was trained here: recipes expect what that leaves.

        The server of real machines may have nothing to train on.
        """
        if self.train_set is None or self.brain.trained or self.tried:
            return
        self.tried = True
        try:
            self.train_one_batch(numbers)
        except Exception as error:
            logger.debug("Nothing can be trained here", exc_info=error)


@contextmanager
def one_batch(brain):
    """Let each epoch be of one batch."""
    short = {"debug": True, "debug_batches": 1, "debug_epochs": 1}
    before = {name: getattr(brain, name) for name in short}
    vars(brain).update(short)
    try:
        yield
    finally:
        vars(brain).update(before)


FOREIGN = [
    Path(__file__).parent,
    Path(speechbrain.__file__).parent,
    Path(torch.__file__).parents[1],
    Path(traceback.__file__).parent,
]
"""Folders of code that is nobody's recipe."""


def is_recipes(file):
    """Tell whether a file of a traceback may be the recipe's."""
    return not any(Path(file).resolve().is_relative_to(folder) for folder in FOREIGN)


def rates_of(optimizers):
    """List the learning rates of optimizers, given by name."""
    return [group["lr"] for o in optimizers.values() for group in o.param_groups]


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
