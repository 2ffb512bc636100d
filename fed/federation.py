"""What YAML says about a federation."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fed import command
from fed import weighting as weightings
from fed.claim import fingerprint, held_at_fit
from fed.compression import FORMATS
from fed.ledger import best_checkpointer
from fed.loading import rows_of
from fed.memory import keep_freed_memory
from fed.personal import settings_of
from fed.runtime import RUNTIMES
from fed.secure.server import refuse
from fed.server import Server
from fed.site import Site
from fed.strategy import compares_replies


@dataclass
class Federation:
    """Trains a SpeechBrain Brain on data that stays with the clients.

    Arguments
    ---------
    datasets : callable
        What is trained, where no script says so, and what ``server_training`` may name.
        Takes hparams; returns a dict with ``train``, ``valid``, ``test``, or a tuple in
        that order, as recipes do. ``train`` is what the clients hold together.
    rounds : int
        How often the model goes to the clients and back.
    local_epochs : float
        That a client trains in a round; a fraction of one trains on a part of its
        data, another one each time.
    schedule : callable
        From round and past rows to the clients' learning rate. See
        :mod:`fed.schedule`.
    keep_optimizer : bool
        Whether a client's optimizers and schedulers go on where they stopped.
    local : list of str
        Shell patterns of weights and buffers that every client keeps for itself.
    personal : dict
        After the last round each client tests the model on the dataset ``own``, and one
        that it makes its own: ``epochs`` more on its data (0), at the rate ``lr``, of
        the weights that match the patterns ``train`` (all), ``proximal_mu`` near the
        model. Results go to ``personal.csv``. See :mod:`fed.personal`.
    initial_model : str
        Path to a model that was trained centrally.
    server_training : dict
        ``dataset`` (a key of ``datasets``, or null for none), ``epochs``, ``lr`` of
        training on the server after each aggregation.
    seed : int
        Of sampling and of local training; ``seed`` of the YAML by default.
    partition : callable
        Who takes part. From the rows of ``train`` to a dict from client name to ids.
        See :mod:`fed.partition`. By default the attribute ``clients`` of ``train`` is
        that dict, if it is there; else rows are dealt to ten clients at random.
    selected_clients : list of str
        Train these only.
    fraction : float
        Of the clients that take part in a round, drawn anew each time; at least one.
    compress : str
        ``float16`` or ``int8``: how updates are sent. See :mod:`fed.compression`.
    runtime : str or callable
        ``process``, ``ray``, or one of :mod:`fed.runtime` with arguments.
    weighting : callable
        What is trusted. From a client's metrics to its weight. See
        :mod:`fed.weighting`.
    validate_clients : bool
        Whether clients report metrics on ``valid`` too, to be weighed by.
    strategy : type or functools.partial
        A strategy of Flower, such as ``!name:flwr.serverapp.strategy.FedAdam``; FedAvg
        by default.
    average : float
        Share that a moving average of the models keeps each round, 0.9 say. The
        average is what is evaluated and kept, and the clients go on from the newest
        model. 0: the newest model is.
    min_clients : int
        Updates that a round needs; with fewer it is tried again.
    max_failures : int
        How often in a row a round may fail before the run stops.
    max_update : float
        The largest norm of an update, in norms of the model (at least 1); clients that
        send a larger one are left out.
    clip_updates : float
        The norm to which longer updates are scaled down, in medians of the round's; see
        :class:`fed.guard.Guard`. None: they are averaged as they are. With ``privacy``,
        which clips by itself, it is not used.
    max_examples : float
        That a client may count in a round; more are not believed. By default what it
        holds, in each local epoch; without limit on real machines, of which the server
        cannot know what they hold.
    timeout : float
        Seconds that a round may take; later clients are left out. By default on real
        machines ten times what the slowest client so far has trained, from ten minutes
        to an hour, and no limit where clients are simulated.
    p_dropout : float
        Probability that a client vanishes, to study what that does.
    secure : bool
        Secure aggregation: the server learns sums alone. See :mod:`fed.secure`.
    privacy : callable
        Central differential privacy. See :mod:`fed.privacy`.
    mods : list of callable
        Flower's ClientApp mods, such as LocalDpMod.
    maximize, minimize : str
        What is recorded. The validation metric by which the best model is kept, as the
        Brain logs it or as rounds.csv has it: ``loss`` or ``valid_loss``.
    evaluate_every : int
        Rounds from one evaluation to the next; the last is always evaluated.
    totals : list of str
        Metrics that add up over local epochs and clients; of others, those of the last
        epoch are averaged.
    holdings : callable
        Called with rows, partition and output folder before training, to show what
        the clients hold. See :func:`fed.holdings.report`.
    loggers : list of TrainLogger
        Beside the recipe's ``train_logger``.
    callbacks : list of callable
        Called after each round with round, Brain and its row of rounds.csv.

    Raises
    ------
    ValueError
        When the arguments do not fit together.
    """

    # What is trained
    datasets: Callable | None = None
    rounds: int = 10
    local_epochs: float = 1
    schedule: Callable | None = None
    keep_optimizer: bool = False
    local: Sequence[str] = ()
    personal: dict | None = None
    initial_model: str | None = None
    server_training: dict | None = None
    seed: int | None = None
    # Who takes part
    partition: Callable | None = None
    selected_clients: Sequence[str] | None = None
    fraction: float = 1.0
    compress: str | None = None
    runtime: str | Callable = "process"
    # What is trusted
    weighting: Callable = weightings.by_examples
    validate_clients: bool = False
    strategy: Callable | None = None
    average: float = 0.0
    min_clients: int = 1
    max_failures: int = 3
    max_update: float = 100.0
    clip_updates: float | None = 3.0
    max_examples: float | None = None
    timeout: float | None = None
    p_dropout: float = 0.0
    # Privacy
    secure: bool = False
    privacy: Callable | None = None
    mods: Sequence[Callable] = ()
    # Records
    maximize: str | None = None
    minimize: str | None = None
    evaluate_every: int = 1
    totals: Sequence[str] = ()
    holdings: Callable | None = None
    loggers: Sequence = ()
    callbacks: Sequence[Callable] = ()

    def __post_init__(self):
        """Refuse arguments that do not fit together."""
        metric = self.maximize or self.minimize or "loss"
        self.metric = f"valid_{metric.removeprefix('valid_')}"
        if self.maximize and self.minimize:
            raise ValueError("Give maximize or minimize, not both.")
        if self.metric.startswith("valid_test_"):
            raise ValueError(
                "The best model is chosen on validation, not on test data."
            )
        for name, fits, interval in (
            ("fraction", 0 < self.fraction <= 1, "(0, 1]"),
            ("local_epochs", self.local_epochs > 0, "(0, inf)"),
            ("average", 0 <= self.average < 1, "[0, 1)"),
            ("p_dropout", 0 <= self.p_dropout < 1, "[0, 1)"),
            ("clip_updates", (self.clip_updates or 1) >= 1, "[1, inf) or null"),
        ):
            if not fits:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}; it must be in {interval}.")
        if isinstance(self.runtime, str) and self.runtime not in RUNTIMES:
            raise ValueError(f"runtime '{self.runtime}' is none of {list(RUNTIMES)}.")
        if self.compress not in {None, *FORMATS}:
            raise ValueError(f"compress '{self.compress}' is none of {list(FORMATS)}.")
        if self.personal:
            self.personal = settings_of(self.personal)
            if self.privacy or self.secure or self.mods:
                raise ValueError(
                    "personal: each client would tell what it reaches, which privacy, "
                    "secure and mods are to hide."
                )
        if self.secure:
            refuse(self)
        if self.privacy and self.weighting is not weightings.uniform:
            raise ValueError(
                "Differential privacy bounds what one client can change only if all "
                "weigh alike, and weights made of a client's data reveal it. Set "
                "weighting: !name:fed.weighting.uniform."
            )
        if self.privacy and compares_replies(self.strategy):
            raise ValueError("With privacy, strategies that compare updates see none.")
        if self.privacy and self.min_clients > 1:
            raise ValueError(
                "min_clients: with privacy a round counts whoever takes part, or it "
                "would say how many do."
            )

    def choose_as(self, asked, reported):
        """Choose the best model as the recipe does, unless YAML says by what.

        Arguments
        ---------
        asked : dict
            What the recipe gives to ``save_and_keep_only``.
        reported : container of str
            Columns that there are.
        """
        if not (self.maximize or self.minimize):
            for kind, keys in (("maximize", "max_keys"), ("minimize", "min_keys")):
                for key in asked.get(keys) or ():
                    if f"valid_{key}" in reported and self.metric == "valid_loss":
                        self.metric = f"valid_{key}"
                        setattr(self, kind, self.metric)

    def sampled(self, num_clients):
        """Return how many of the clients take part in a round.

        Example
        -------
        >>> Federation(datasets=None, fraction=0.25).sampled(10)
        2
        """
        return max(1, int(self.fraction * num_clients + 1e-9))

    def is_better(self, value, best):
        """Tell whether a validation metric is a new best."""
        if value is None or not np.isfinite(value):
            return False
        return best is None or (value > best if self.maximize else value < best)

    def fit(
        self,
        brain,
        epoch_counter,
        train_set,
        valid_set=None,
        progressbar=None,
        train_loader_kwargs=None,
        valid_loader_kwargs=None,
        datasets=None,
    ):
        """Train, or go on training, in place of ``brain.fit``; load the best model.

        Writes ``rounds.csv``, ``clients.csv`` and ``save/`` into the output folder.

        Arguments
        ---------
        brain : Brain
        epoch_counter
            Not used: rounds are counted, of ``local_epochs`` each.
        train_set, valid_set, progressbar, train_loader_kwargs, valid_loader_kwargs
            As ``brain.fit`` takes them.
        datasets : dict
            Others by name: ``test``, which may be a dict of several, is tested in each
            evaluation; any may be trained on by the server.
        """
        quieten_rounds()
        keep_freed_memory()
        if progressbar is False:
            brain.noprogressbar = True
        options = train_loader_kwargs, valid_loader_kwargs
        site = Site(self, brain, train_set, valid_set, *options, datasets)
        command.Process.federated = True
        if command.Process.stops_at_fit:
            raise command.Reached(site)
        command.keep(command.current(), site)
        try:
            with held_at_fit(command.Process.claim, site) as claim:
                if claim is not None:
                    claim.check_data(fingerprint(site), "the training data")
                (command.Process.serve or self.simulate)(site)
                if claim is not None:  # the recipe may have said what is best
                    way = "maximize" if self.maximize else "minimize"
                    claim.write(metric=f"{way} {self.metric.removeprefix('valid_')}")
        finally:
            site.leave()
        if brain.checkpointer is not None:  # evaluate() finds the best model there
            brain.checkpointer = best_checkpointer(site)

    def simulate(self, site):
        """Train on clients that live nowhere in particular, whose data are all here."""
        start = self.runtime if callable(self.runtime) else RUNTIMES[self.runtime]
        roster = [(client, None) for client in site.names()]
        if self.holdings:
            rows = rows_of(site.train_set)
            self.holdings(rows, site.partition, site.output_folder)
        if not site.state_file.exists():
            if site.brain.test_only:
                raise ValueError(f"{site.save_folder} holds no model to test")
            site.rehearse()

        def serve(grid):
            Server(self, site, command.current(), lambda: roster, grid).run()

        # With privacy each client is drawn by itself, so that all may be.
        start(serve, len(roster) if self.privacy else self.sampled(len(roster)))


def quieten_rounds():
    """Keep what others say of each round and client out of the log; warnings show."""
    for name in ("flwr", "httpx", "httpcore"):  # the last two say every request
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("speechbrain.core").addFilter(is_news)


def is_news(record):
    """Tell whether a line of the log says more than that a fraction of an epoch ended.

    Example
    -------
    >>> is_news(logging.makeLogRecord({"msg": "Train iteration limit exceeded"}))
    False
    """
    return record.msg != "Train iteration limit exceeded"
