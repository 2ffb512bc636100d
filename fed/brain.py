"""What a Brain needs to serve in a federation, added to its class from outside."""

import copy
from numbers import Number

import numpy as np
import torch
from speechbrain import Brain, Stage
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.checkpoints import DEFAULT_SAVE_HOOKS, get_default_hook
from speechbrain.utils.train_logger import TrainLogger
from torch.utils.data import DataLoader

from fed.loading import KeptLoaders, stays


class NoCheckpointer:
    """Stands where a Brain expects its checkpointer; keeps and loads nothing.

    With a real one, ``fit()`` and ``evaluate()`` would load checkpoints over the
    weights that the server sent.
    """

    def add_recoverable(self, name, obj, *args, **kwargs):
        """Forget the object."""

    def add_recoverables(self, recoverables):
        """Forget the objects."""

    def save_checkpoint(self, *args, **kwargs):
        """Save nothing."""

    save_and_keep_only = save_checkpoint

    def recover_if_possible(self, *args, **kwargs):
        """Find nothing to load."""

    find_checkpoint = recover_if_possible

    def find_checkpoints(self, *args, **kwargs):
        """Find no checkpoints."""
        return []


class CapturingLogger(TrainLogger):
    """Keeps the statistics that a Brain logs, for the server to report."""

    def __init__(self):
        self.stats = {}

    def log_stats(
        self,
        stats_meta,
        train_stats=None,
        valid_stats=None,
        test_stats=None,
        verbose=False,
    ):
        """Keep the newest statistics of each stage."""
        logged = {"train": train_stats, "valid": valid_stats, "test": test_stats}
        self.stats |= {stage: scalars(s) for stage, s in logged.items() if s}


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

    def __init__(self, *args, **kwargs):
        self.on_optimizers = lambda optimizers: None
        self.sampler_offset = 0
        self.totals = ()
        self.stage_ends = {}
        self.loaders = KeptLoaders()
        super().__init__(*args, **kwargs)
        self.counts_itself = hasattr(self, "num_examples")
        if not self.counts_itself:
            self.num_examples = 0
        self.own_step_limit = self.optimizer_step_limit
        self.fresh_scaler = copy.deepcopy(self.scaler.state_dict())
        self.schedulers = {
            name: (value, copy.deepcopy(vars(value)))
            for name, value in vars(self.hparams).items()
            if is_scheduler(value)
        }

    def fit_batch(self, batch):
        """Count the examples."""
        loss = super().fit_batch(batch)
        if not self.counts_itself:
            self.num_examples += batch_size(batch)
        return loss

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Note the loss, and ``train_stats``, where recipes keep them for later."""
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
        if self.compile:
            self.compile = False
            for name in self.compile_module_keys or list(self.modules):
                if name not in self.modules:
                    raise ValueError(f"compile_module_keys: there is no module {name}.")
                self.modules[name].compile(
                    mode=self.compile_mode,
                    fullgraph=self.compile_using_fullgraph,
                    dynamic=self.compile_using_dynamic_shape_tracing,
                )
        super()._compile()

    def init_optimizers(self):
        """Let the local update adjust the new optimizers."""
        super().init_optimizers()
        self.on_optimizers(self.optimizers())

    def optimizers(self):
        """Map each name to its optimizer."""
        if self.optimizers_dict is not None:
            return self.optimizers_dict
        return {"opt_class": self.optimizer} if hasattr(self, "optimizer") else {}

    def _train_loader_specifics(self, dataset, loader_kwargs):
        loader_kwargs = super()._train_loader_specifics(dataset, loader_kwargs)
        if hasattr(self.train_sampler, "seed"):
            self.train_sampler.seed += self.sampler_offset
        return loader_kwargs

    def training_loader(self, train_set, options):
        """Make a loader; with ``persistent_workers``, its processes serve all clients.

        Results are the same, unless examples depend on random numbers of the
        processes, or on what changes in this one without them (as in any DataLoader
        whose workers persist from epoch to epoch). A Brain's own ``make_dataloader`` is
        called for each client, as always.
        """
        own = type(self).make_dataloader is not Brain.make_dataloader
        if own or not stays(train_set, options):
            return self.make_dataloader(train_set, Stage.TRAIN, **options)
        options = self._train_loader_specifics(train_set, options)
        return self.loaders.get(train_set, options, make_dataloader)

    def reset(self):
        """Forget the last client, even if it failed midway."""
        self.step = self.optimizer_step = self.nonfinite_count = 0
        self.avg_train_loss = 0.0
        self.train_sampler = self.optimizers_dict = None
        self.optimizer_step_limit = self.own_step_limit
        self.scaler.load_state_dict(self.fresh_scaler)
        self.sampler_offset = 0
        self.totals = ()
        self.on_optimizers = lambda optimizers: None
        self.stage_ends = {}
        self.hparams.train_logger.stats = {}
        for scheduler, state in self.schedulers.values():
            vars(scheduler).clear()
            vars(scheduler).update(copy.deepcopy(state))

    def local_update(self, train_set, first_epoch, epochs, loader_kwargs, **options):
        """Train on one client's data.

        Arguments
        ---------
        train_set : Dataset
            What the client holds.
        first_epoch : int
            Absolute over all rounds, so that each round shuffles anew.
        epochs : float
            How long; a fraction of an epoch stops early.
        loader_kwargs : dict
            Of the training loader.
        options : dict
            ``valid_set`` and ``valid_loader_kwargs`` as ``fit()`` knows them;
            ``sampler_offset`` is added to the shuffle's seed; ``on_optimizers`` is
            called with the new optimizers, by name; of the metrics that ``totals``
            names, epochs add up.

        Returns
        -------
        dict
            ``num-examples``, ``loss``, what the Brain keeps in ``train_stats``, and
            ``valid_...`` if there is a validation set; of the last epoch, except that
            examples and ``totals`` add up.
        """
        self.reset()
        self.sampler_offset = options.pop("sampler_offset", 0)
        self.on_optimizers = options.pop("on_optimizers", self.on_optimizers)
        self.totals = options.pop("totals", ())
        before = self.num_examples
        try:
            loader = self.training_loader(train_set, dict(loader_kwargs))
            whole = int(np.ceil(epochs))
            if epochs != whole:
                steps = np.ceil(epochs * len(loader) / self.grad_accumulation_factor)
                self.optimizer_step_limit = int(steps)
            self.fit(
                range(first_epoch, first_epoch + whole),
                loader,
                progressbar=False,
                **options,
            )
            valid = self.hparams.train_logger.stats.get("valid", {})
            return {
                "num-examples": self.num_examples - before,
                **self.stage_ends[Stage.TRAIN],
                **{f"valid_{key}": value for key, value in valid.items()},
            }
        except BaseException:
            self.loaders.clear()  # whose processes may have died
            raise
        finally:
            if self.optimizer_step_limit is not None or self.debug:
                self.loaders.clear()  # which read on for the rest of an epoch
            if self.optimizers():  # which a failure may have come before
                self.zero_grad(set_to_none=True)

    def validate(self, valid_set, epoch, train_loss, loader_kwargs):
        """Run the validation of an epoch whose training the clients have done.

        This is ``fit()`` with nothing to train on, so that recipes find what they
        expect in ``on_stage_end``: an epoch number, a training loss, an optimizer.

        Returns
        -------
        dict
            ``loss`` and what the Brain logs.
        """
        self.reset()
        self.avg_train_loss = train_loss
        self.fit(
            [epoch],
            DataLoader([]),
            valid_set,
            progressbar=False,
            valid_loader_kwargs=dict(loader_kwargs),
        )
        logged = self.hparams.train_logger.stats.get("valid", {})
        return {**self.stage_ends[Stage.VALID], **logged}

    def test(self, test_set, loader_kwargs):
        """Evaluate the weights as they are.

        Returns
        -------
        dict
            ``loss`` and what the Brain logs.
        """
        self.reset()
        loss = self.evaluate(
            test_set, progressbar=False, test_loader_kwargs=dict(loader_kwargs)
        )
        return {"loss": loss, **self.hparams.train_logger.stats.get("test", {})}


def is_scheduler(value):
    """Tells whether a hyperparameter has state that training changes.

    These are the objects that SpeechBrain would checkpoint, networks aside.
    """
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (torch.nn.Module, torch.optim.Optimizer, type))
        and get_default_hook(value, DEFAULT_SAVE_HOOKS) is not None
    )


def federate(brain_class, hparams, run_opts):
    """Builds a Brain that can serve in a federation from any Brain class.

    Arguments
    ---------
    brain_class : type or functools.partial
        What YAML's ``!name:`` gives.
    hparams : dict
        Of the experiment; ``modules`` and ``opt_class`` are used as always.
    run_opts : dict
        Of ``speechbrain.parse_arguments``.

    Returns
    -------
    Brain
    """
    keywords = getattr(brain_class, "keywords", {})
    base = getattr(brain_class, "func", brain_class)
    federated = type(f"Federated{base.__name__}", (Federated, base), {})
    if "skip_nonfinite_grads" not in hparams:
        run_opts = {"skip_nonfinite_grads": True, **run_opts}
    return federated(
        modules=hparams["modules"],
        opt_class=hparams.get("opt_class"),
        hparams={
            **hparams,
            "train_logger": CapturingLogger(),
            "checkpointer": NoCheckpointer(),
        },
        run_opts=run_opts,
        checkpointer=NoCheckpointer(),
        **keywords,
    )
