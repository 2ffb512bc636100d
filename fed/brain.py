"""What a Brain needs to serve in a federation, mixed into the class of one that is."""

import copy
import math
from numbers import Number
from types import SimpleNamespace

import numpy as np
import torch
from speechbrain import Stage
from speechbrain.utils.train_logger import TrainLogger
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from fed.intact import plain_data
from fed.loading import LOADERS
from fed.numbers import numbers_of, set_numbers, set_state, state_of, stateful

COUNT = "optimizer_step"


class NoCheckpointer:
    """Stands where a Brain expects its checkpointer; keeps and loads nothing.

    With a real one, ``fit()`` and ``evaluate()`` would load checkpoints over the
    weights that the server sent.

    Attributes
    ----------
    asked : dict
        How the recipe last asked to keep a checkpoint: ``meta``, ``min_keys``, ...
    """

    def __init__(self):
        self.asked = {}

    def save_and_keep_only(self, meta=None, **options):
        """Note what is asked for."""
        self.asked = {"meta": meta or {}, **options}

    def nothing(self, *args, **kwargs):
        """Do nothing."""

    add_recoverable = add_recoverables = save_checkpoint = nothing
    recover_if_possible = find_checkpoint = delete_checkpoints = nothing

    def find_checkpoints(self, *args, **kwargs):
        """Find no checkpoints."""
        return []


class CapturingLogger(TrainLogger):
    """Keeps the statistics that a Brain logs, for the server to report."""

    def __init__(self):
        self.stats = {}

    def log_stats(
        self,
        stats_meta=None,
        train_stats=None,
        valid_stats=None,
        test_stats=None,
        verbose=False,
        **others,
    ):
        """Keep the newest statistics of each stage, by position or by name."""
        stages = {"train": train_stats, "valid": valid_stats, "test": test_stats}
        stats = {f"{stage}_stats": values for stage, values in stages.items()} | others
        self.stats |= {key: scalars(values) for key, values in stats.items() if values}


def scalars(stats):
    """Keeps what is, or can be averaged into, a number."""
    numbers = {}
    for key, value in stats.items():
        if isinstance(value, torch.Tensor):
            value = value.tolist()
        if isinstance(value, list) and value and isinstance(value[0], Number):
            value = sum(value) / len(value)
        if isinstance(value, Number) and not isinstance(value, bool):
            numbers[key] = float(value)
    return numbers


def batch_size(batch):
    """Counts the examples of a batch: a PaddedBatch, a tensor, or a tuple of either."""
    if isinstance(batch, (tuple, list)):
        batch = batch[0]
    elif isinstance(batch, dict):
        batch = next(iter(batch.values()))
    return len(batch)


class Federated:
    """Mixed in before a Brain's class: local updates that start from a clean state.

    Attributes
    ----------
    num_examples : int
        Training examples so far; counted here unless the Brain does so itself.
    """

    def begin(self):
        """Note what each client must find as it was."""
        self.own_data = plain_data(self)
        self.depth, self.trained = 0, False
        self.counts_itself = hasattr(self, "num_examples")
        if not self.counts_itself:
            self.num_examples = 0
        self.own_step_limit = self.optimizer_step_limit
        self.fresh_scaler = copy.deepcopy(self.scaler.state_dict())
        given = self.optimizers().values()
        self.fresh_optimizers = {o: copy.deepcopy(o.state_dict()) for o in given}
        self.stateful, self.counters = stateful(self)
        self.schedulers = {
            name: (value, copy.deepcopy(state_of(value)))
            for name, value in self.stateful.items()
            if not isinstance(value, torch.nn.Module)
        }
        self.checkpointer = self.hparams.checkpointer = NoCheckpointer()
        self.hparams.train_logger = CapturingLogger()
        if not hasattr(self.hparams, "skip_nonfinite_grads"):
            self.skip_nonfinite_grads = True
        self.reset()

    def reset(self, numbers=None, on_optimizers=None, sampler_offset=0, totals=()):
        """Forget the last client, even if it failed midway.

        Arguments
        ---------
        numbers : dict of numpy.ndarray
            Of :meth:`numbers`, from which to start.
        on_optimizers : callable
            Called with the new optimizers, by name.
        sampler_offset : int
            Added to the shuffle's seed.
        totals : list of str
            Metrics of which epochs add up.
        """
        self.step = self.optimizer_step = self.nonfinite_count = 0
        self.avg_train_loss = 0.0
        self.train_sampler = None
        self.optimizer_step_limit = self.own_step_limit
        self.scaler.load_state_dict(self.fresh_scaler)
        for optimizer in self.optimizers().values():  # its moments are two models
            optimizer.state.clear()
        for optimizer, state in self.fresh_optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state))
        self.sampler_offset, self.totals = sampler_offset, totals
        self.on_optimizers = on_optimizers or (lambda optimizers: None)
        self.stage_ends = {}
        self.hparams.train_logger.stats = {}
        for scheduler, state in self.schedulers.values():
            if state_of(scheduler) is vars(scheduler):
                vars(scheduler).clear()
            set_state(scheduler, copy.deepcopy(state))
        self.set_numbers(numbers or {})

    # ----------------------------------------------- between SpeechBrain and the recipe

    def fit(self, *args, **kwargs):
        """Train; a recipe's own ``fit()`` within an epoch is a part of it."""
        limit, step = self.optimizer_step_limit, self.optimizer_step
        self.depth += 1
        if self.is_within:
            self.optimizer_step_limit = self.own_step_limit
        try:
            super().fit(*args, **kwargs)
        finally:
            if self.is_within and limit != self.own_step_limit:
                limit += self.optimizer_step - step
            self.optimizer_step_limit = limit
            self.depth -= 1

    @property
    def is_within(self):
        """Tell whether this is a ``fit()`` that a recipe calls within another."""
        return self.depth > 1

    def fit_batch(self, batch):
        """Count the examples."""
        loss = super().fit_batch(batch)
        if not (self.counts_itself or self.is_within):
            self.in_batch = batch_size(batch)
            self.num_examples += self.in_batch
        return loss

    def evaluate_batch(self, batch, stage):
        """Count the examples."""
        if not self.counts_itself:
            self.in_batch = batch_size(batch)
        return super().evaluate_batch(batch, stage)

    def update_average(self, loss, avg_loss):
        """Average over examples, unless the Brain does so itself."""
        counted = not (self.counts_itself or self.is_within)
        if not (counted and torch.isfinite(loss) and self.in_batch):
            return super().update_average(loss, avg_loss)
        self.averaged += self.in_batch
        batches = self.averaged / self.in_batch  # of this size
        return avg_loss - avg_loss / batches + float(loss) / batches

    def on_stage_start(self, stage, epoch=None):
        """Tell the epoch to what asks the recipe's counter for it."""
        if not self.is_within:
            for counter in self.counters if epoch is not None else ():
                counter.current = epoch
            self.averaged = 0
        super().on_stage_start(stage, epoch)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Note the loss, and ``train_stats``, where recipes keep them for later."""
        if self.is_within:
            return super().on_stage_end(stage, stage_loss, epoch)
        if not (self.averaged or self.counts_itself or stage == Stage.TRAIN):
            stage_loss = math.nan  # of no examples; SpeechBrain says 0.0
        super().on_stage_end(stage, stage_loss, epoch)
        stats = getattr(self, "train_stats", None) if stage == Stage.TRAIN else None
        stats = scalars(stats) if isinstance(stats, dict) else {}
        before = self.stage_ends.get(stage, {})
        for name in self.totals:
            if name in stats:
                stats[name] += before.get(name, 0.0)
        self.stage_ends[stage] = {"loss": float(stage_loss), **stats}

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Evaluate the weights as they are, whatever the recipe would load."""

    def _compile(self):
        """Compile in place and once, where ``--compile`` asks for it.

        SpeechBrain wraps the modules in each ``fit()``, which renames their weights.
        """
        names = self.compile_module_keys or list(self.modules)
        for name in names if self.compile else ():
            if name not in self.modules:
                raise ValueError(f"compile_module_keys: there is no module {name}.")
            self.modules[name].compile(
                mode=self.compile_mode,
                fullgraph=self.compile_using_fullgraph,
                dynamic=self.compile_using_dynamic_shape_tracing,
            )
        self.compile = False
        super()._compile()

    def init_optimizers(self):
        """Let the local update adjust the new optimizers."""
        super().init_optimizers()
        self.on_optimizers(self.optimizers())

    def optimizers(self):
        """Map each name to its optimizer, wherever the recipe keeps it."""
        if self.optimizers_dict is not None:
            return self.optimizers_dict
        found = {k: o for k, o in vars(self).items() if isinstance(o, Optimizer)}
        return {"opt_class": found["optimizer"]} if [*found] == ["optimizer"] else found

    def forget_optimizers(self, but):
        """Be without optimizers, and so without their rates, but for some, by name."""
        for name in [k for k, v in vars(self).items() if isinstance(v, Optimizer)]:
            if vars(self)[name] not in but.values():
                delattr(self, name)
        self.optimizers_dict, self.trained = but or None, False

    def _train_loader_specifics(self, dataset, loader_kwargs):
        loader_kwargs = super()._train_loader_specifics(dataset, loader_kwargs)
        sampler = loader_kwargs.get("sampler")
        if hasattr(sampler, "seed"):
            sampler.seed += self.sampler_offset
        return loader_kwargs

    def end_processes(self):
        """End the reading processes, where a Brain keeps them from client to client."""
        getattr(super(), "end_processes", lambda: None)()

    # ------------------------------------------------------ numbers outside of modules

    def numbers(self):
        """Collect numbers that the recipe keeps outside of ``state_dict``, by name.

        Those of schedulers, statistics such as of ``InputNormalization``, learning
        rates, and the count of steps.

        Returns
        -------
        dict of numpy.ndarray
        """
        found = {f"brain.{COUNT}": np.array(self.optimizer_step)}
        for name, owner in self.stateful.items():
            numbers = numbers_of(owner).items()
            found |= {f"{name}.{key}": value for key, value in numbers}
        for name, optimizer in self.optimizers().items():
            rates = [group["lr"] for group in optimizer.param_groups]
            found[f"optimizers.{name}"] = np.float64(rates)
        return found

    def set_numbers(self, numbers):
        """Take over what :meth:`numbers` collected; optimizers take their rates."""
        for name, owner in {**self.stateful, "brain": self}.items():
            own = [key for key in numbers if key.rpartition(".")[0] == name]
            set_numbers(owner, {k.rpartition(".")[2]: numbers[k] for k in own})

    # ------------------------------------------------------------- training, evaluation

    def local_update(
        self,
        train_set,
        loader_kwargs,
        first_epoch,
        epochs,
        valid_set=None,
        valid_loader_kwargs=None,
        **start,
    ):
        """Train on one client's data.

        Arguments
        ---------
        train_set : Dataset
            What the client holds.
        loader_kwargs : dict
            Of the training loader.
        first_epoch : int
            Absolute over all rounds, so that each round shuffles anew.
        epochs : float
            How long; a fraction of an epoch stops early.
        valid_set, valid_loader_kwargs
            As ``fit()`` knows them.
        **start
            Of :meth:`reset`.

        Returns
        -------
        dict
            ``num-examples``, ``loss``, what the Brain keeps in ``train_stats``, and
            ``valid_...`` if there is a validation set; of the last epoch, except that
            examples and ``totals`` add up.
        """
        self.reset(**start)
        before, whole = self.num_examples, math.ceil(epochs)
        servers = {name: vars(self)[name] for name in self.own_data}
        clients = copy.deepcopy(self.own_data)
        vars(self).update(clients)
        finished = False
        try:
            loader = self.make_dataloader(train_set, Stage.TRAIN, **loader_kwargs)
            if epochs != whole:
                steps = epochs * len(loader) / self.grad_accumulation_factor
                self.optimizer_step_limit = self.optimizer_step + math.ceil(steps)
            self.fit(
                range(first_epoch, first_epoch + whole),
                loader,
                valid_set,
                progressbar=False,
                valid_loader_kwargs=dict(valid_loader_kwargs or {}),
            )
            self.trained = True
            finished = self.optimizer_step_limit is None and not self.debug
        finally:
            if not finished:
                # Processes that may have died, or that read on for the rest of an epoch
                self.end_processes()
            self.modules.zero_grad(set_to_none=True)
            for name, collected in clients.items():
                if vars(self).get(name) is collected:
                    vars(self)[name] = servers[name]
        valid = self.hparams.train_logger.stats.get("valid_stats", {})
        return {
            "num-examples": self.num_examples - before,
            **self.stage_ends[Stage.TRAIN],
            **{f"valid_{key}": value for key, value in valid.items()},
        }

    def validate(self, valid_set, loader_kwargs, epoch=1, train_loss=0.0, **start):
        """Evaluate the weights as they are, as after an epoch of training.

        Recipes then expect what training leaves: statistics, an optimizer. That of the
        newest client is there; where none was trained in this process, an epoch without
        data comes first.

        Returns
        -------
        dict
            ``loss`` and what the Brain logs.
        """
        self.reset(**start)
        self.avg_train_loss = train_loss
        if not isinstance(valid_set, LOADERS):
            options = {"ckpt_prefix": None, **loader_kwargs}
            valid_set = self.make_dataloader(valid_set, Stage.VALID, **options)
        if self.trained:
            self.on_optimizers(self.optimizers())
            self._fit_valid(valid_set, epoch, enable=False)
        else:
            self.fit([epoch], DataLoader([]), valid_set, progressbar=False)
        logged = self.hparams.train_logger.stats.get("valid_stats", {})
        return {**self.stage_ends[Stage.VALID], **logged}

    def test(self, test_set, loader_kwargs):
        """Evaluate the weights as they are.

        Returns
        -------
        dict
            ``loss`` and what the Brain logs.
        """
        self.reset()
        self.evaluate(
            test_set, progressbar=False, test_loader_kwargs=dict(loader_kwargs)
        )
        logged = self.hparams.train_logger.stats.get("test_stats", {})
        return {**self.stage_ends[Stage.TEST], **logged}


def join(brain):
    """Makes a Brain serve in a federation.

    Arguments
    ---------
    brain : Brain
        Any one, ready to fit. Its class gets :class:`Federated` mixed in.

    Returns
    -------
    callable
        Gives back the Brain's class, checkpointer, loggers and options.
    """
    if not hasattr(brain, "hparams"):
        brain.hparams = SimpleNamespace()
    own, options, hparams = type(brain), dict(vars(brain)), dict(vars(brain.hparams))

    def leave():
        brain.end_processes()
        brain.reset()
        brain.__class__ = own
        for name in ("checkpointer", "skip_nonfinite_grads"):
            setattr(brain, name, options[name])
        for name in added:
            vars(brain).pop(name, None)
        vars(brain.hparams).clear()
        vars(brain.hparams).update(hparams)

    brain.__class__ = type(f"Federated{own.__name__}", (Federated, own), {})
    brain.begin()
    added = vars(brain).keys() - options.keys()
    return leave
