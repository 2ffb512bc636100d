"""The server's side of federated learning: this file reads as the algorithm."""

import math
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
from flwr.app import ConfigRecord
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fed import personal
from fed.arrays import set_arrays, to_arrays, to_record, view
from fed.compression import layout
from fed.guard import Guard, groups_of
from fed.ledger import Ledger
from fed.replies import (
    PATIENCE,
    Checker,
    accept,
    begin_row,
    client_row,
    collect,
    failures,
    summarize,
    withhold,
)
from fed.schema import Schema, line, may_set
from fed.secure.server import SecureAggregation
from fed.site import Task
from fed.strategy import Mixture, build, cast, follow, layers, put_back, remember
from fed.weighting import uniform

logger = get_logger(__name__)


class Server:
    """Runs the rounds of a federation.

    Arguments
    ---------
    federation : Federation
        Says what to do.
    site : Site
        The server's own Brain and data.
    command : str
        Tells other processes how to make a site of their own.
    roster : callable
        Lists (client name, node id) of all clients, in the order of their names; in a
        simulation the node is None.
    grid : flwr.serverapp.Grid
        Takes messages to nodes.
    """

    def __init__(self, federation, site, command, roster, grid):
        self.federation = federation
        self.site = site
        self.command = command
        self.roster = roster
        self.grid = grid
        self.strategy = build(federation.strategy, self.privacy())
        if federation.secure:
            self.strategy = SecureAggregation(self.strategy, federation)
        self.ledger = Ledger(federation, site, self.strategy)
        self.arrays = None  # the model that the clients go on from
        self.numbers = {}  # what the recipe counts outside of it
        self.average = None  # its moving average, if that is evaluated instead
        self.private = federation.privacy or federation.mods or federation.secure
        self.simulated = False  # where clients live nowhere in particular
        self.slowest = 0.0  # seconds that a client has trained in a round
        self.interrupted = False

    def privacy(self):
        """Tell differential privacy, if there is any, how many clients there are."""
        if self.federation.privacy:
            population = len(self.roster())
            count = self.federation.sampled(population)
            return partial(
                self.federation.privacy,
                population=population,
                sampled=count,
                rounds=self.federation.rounds,
            )

    # ------------------------------------------------------------- the algorithm

    def run(self):
        """Train for all rounds that are left, then load the best model."""
        self.arrays, self.numbers, self.average = self.ledger.resume()
        done = len(self.ledger.rows)
        total = done if self.site.brain.test_only else self.federation.rounds
        rounds = range(done + 1, total + 1)
        with finishing_on_interrupt(self):
            bar = self.progress(rounds, desc="rounds", initial=done, total=total)
            for server_round in bar:
                row = self.round(server_round)
                if (name := self.federation.metric) in row:
                    bar.set_postfix({name: f"{row[name]:.2f}"})
        self.ledger.load_best(self.model)
        if self.federation.personal and not self.site.brain.test_only:
            personal.ask(self)

    def round(self, server_round):
        """Send the model out, average what comes back, evaluate, keep."""
        start = time.perf_counter()
        clients, sums = self.train_clients(server_round)
        row = self.report(server_round, clients, sums)
        row |= self.train_on_server(server_round)
        if self.federation.average:
            share = self.federation.average
            self.average = follow(self.average, self.arrays, share, server_round)
        row |= self.evaluate(server_round, row.get("train_loss", math.nan))
        row["seconds"] = time.perf_counter() - start
        clients = withhold(clients, self.federation)
        self.ledger.log(row)  # twice, if killed before the round counts
        self.ledger.keep(self.arrays, self.numbers, self.average, row, clients)
        for callback in self.federation.callbacks:
            set_arrays(self.site.brain, self.model)
            callback(server_round, self.site.brain, row)
        return row

    @property
    def model(self):
        """What is evaluated and kept: the moving average if there is one."""
        return self.average or self.arrays

    def train_clients(self, server_round):
        """Do local updates until enough clients succeed, and average them.

        Returns
        -------
        list of dict
            One row for each client asked: ``client``, ``status``, ...
        dict
            What is known of all clients together only.
        """
        needed, rows = self.federation.min_clients, []
        for attempt in range(self.federation.max_failures + 1):
            participants, dropped = self.sample(server_round, attempt)
            attempted = [client_row(client, "dropped out") for client, _, _ in dropped]
            before = remember(self.strategy)
            found = self.attempt(server_round, participants, attempted)
            mean, numbers, sums = found
            rows += attempted
            good = [row for row in attempted if row["status"] == "ok"]
            if mean is not None and (len(good) >= needed or not participants):
                self.update(to_arrays(mean))
                self.numbers |= numbers
                return rows, sums
            put_back(self.strategy, before)
            for row in good:
                row |= {"weight": 0.0, "status": "left out: too few other clients"}
            failed = "Round %d: %d clients succeeded of %d needed; attempt %d failed."
            logger.warning(failed, server_round, len(good), needed, attempt + 1)
        self.ledger.append_clients(server_round, withhold(rows, self.federation))
        state = self.site.state_file
        kept = f"; the last good model is in {state}" if state.exists() else ""
        raise RuntimeError(
            f"Round {server_round} failed {attempt + 1} times{kept}. "
            f"Failures: {failures(attempted)}"
        )

    def attempt(self, server_round, participants, rows):
        """Ask the participants once.

        Returns
        -------
        flwr.app.ArrayRecord or None
            What the strategy makes of the replies.
        dict of numpy.ndarray
            The mean of what clients count outside of the model.
        dict
            What is known of all clients together only.
        """
        strategy, multiple = self.strategy, self.federation.clip_updates
        layers(strategy)[-1].participants = participants
        if self.federation.privacy or self.federation.secure:
            multiple = None  # clips by itself, or sees no single update
        strategy.patience = patience = self.patience
        numbers, record = Mixture(multiple), to_record(self.sent())
        self.arrays |= (sent := view(record))  # once in memory
        config = self.configure(server_round)
        asked = strategy.configure_train(server_round, record, config, self.grid)
        messages = list(asked)
        for message in [] if self.private else messages:
            message.content["numbers"] = to_record(self.numbers)
        participants = self.asked(participants, messages, rows)
        replies = collect(self.grid, messages, patience, self.report_waiting)
        replies = self.progress(replies, desc="clients", total=len(participants))
        check = self.checker(sent, patience)
        accepted = accept(replies, participants, rows, check, numbers)
        guarded = Guard(multiple, sent, check.groups, self.ledger.rows)(accepted)
        guarded = self.interruptible(guarded)
        mean, sums = strategy.aggregate_train(server_round, guarded)
        took = [row["seconds"] for row in rows if row["status"] == "ok"]
        self.slowest = max([self.slowest, *took])
        return mean, numbers.arrays(), dict(sums or {})

    def asked(self, participants, messages, rows):
        """Tell who gets a message; of others, add rows that say why not."""
        nodes = {message.metadata.dst_node_id for message in messages}
        lost = getattr(self.strategy, "lost", {})
        for client, _, node in participants:
            if node not in nodes:
                status = lost.get(node, "left out: too few other clients")
                rows.append(client_row(client, line(status)))
                logger.warning("Client %s left out: %s", client, rows[-1]["status"])
        return [p for p in participants if p[-1] in nodes]

    def checker(self, sent, patience):
        """Make what judges replies."""
        if self.federation.secure:
            return self.strategy
        name = self.federation.compress
        arrays = layout(sent, name) if name else sent
        rule = None if self.private else may_set(self.site.brain)
        schema = Schema(arrays, rule, self.federation.totals)
        groups = groups_of(sent, self.site.trained)
        still = self.site.warms_up and not self.ledger.rows
        limits = self.most_examples, patience, still
        return Checker(self.federation, schema, sent, groups, *limits)

    def report(self, server_round, clients, sums):
        """Begin a round's row with what may be told of training."""
        if self.federation.privacy:
            row = {"round": server_round, "seconds": 0.0}
            return row | {"epsilon": self.strategy.privacy_spent().epsilon}
        if self.federation.secure:
            return begin_row(server_round, clients) | sums
        return summarize(server_round, clients, self.federation.totals)

    def sample(self, server_round, attempt):
        """Choose clients by seed and round, and which of them drop out.

        Returns
        -------
        participants, dropped : list of tuple
            (client name, index, node id), in the roster's order.
        """
        federation, roster = self.federation, self.roster()
        number = federation.sampled(len(roster))
        if federation.privacy:
            # By chances of their own, which must not follow from the seed.
            generator = np.random.default_rng()
            chosen = np.flatnonzero(
                generator.random(len(roster)) < number / len(roster)
            )
        else:
            key = [self.site.seed, server_round, attempt]
            generator = np.random.default_rng(key)
            chosen = generator.choice(len(roster), number, replace=False)
        drops = generator.random(len(chosen)) < federation.p_dropout
        nodes = iter(self.grid.get_node_ids())
        self.simulated = all(node is None for _, node in roster)
        participants, dropped = [], []
        for index, drop in sorted(zip(chosen.tolist(), drops.tolist(), strict=True)):
            client, node = roster[index]
            # A client that lives nowhere in particular goes to any node.
            node = next(nodes) if node is None else node
            (dropped if drop else participants).append((client, index, node))
        return participants, dropped

    def update(self, mean):
        """Replace the model by the mean, or by what the strategy made of it.

        Buffers such as running means are no parameters: whatever a server optimizer
        does to them is undone, and they become the plain mean.
        """
        plain = vars(layers(self.strategy)[-1]).pop("mean", {})
        buffers = {name for name, _ in self.site.brain.modules.named_buffers()}
        new = self.arrays | mean | {name: plain[name] for name in buffers & set(plain)}
        self.arrays = {n: cast(new[n], old.dtype) for n, old in self.arrays.items()}

    def train_on_server(self, server_round):
        """Do one more local update, on the server's own data, if there is any."""
        data = self.site.server_data()
        if data is None:
            return {}
        options = self.federation.server_training
        epochs, lr = options.get("epochs", 1), options.get("lr")
        task = Task(server_round, epochs=epochs, lr=lr)
        self.arrays, metrics = self.site.train(self.arrays, self.numbers, data, task)
        return {f"server_{key}": value for key, value in metrics.items()}

    def evaluate(self, server_round, train_loss):
        """Evaluate on the server's validation and test data."""
        site, last = self.site, server_round == self.federation.rounds
        if server_round % self.federation.evaluate_every and not last:
            return {}
        valid = site.validate(self.model, self.numbers, server_round, train_loss)
        if valid:
            self.numbers |= site.brain.numbers()
        test = site.test(self.model, self.numbers)
        stages = {"valid": valid, "test": test}.items()
        return {f"{s}_{key}": value for s, row in stages for key, value in row.items()}

    # ------------------------------------------------------ messages and replies

    def configure(self, server_round):
        """Say how clients must train in this round."""
        config = ConfigRecord({"command": self.command, "run": self.ledger.identity})
        if schedule := self.federation.schedule:
            config["lr"] = float(schedule(server_round, self.ledger.rows))
        return config

    def sent(self):
        """Choose what is sent: differential privacy can only blur real numbers."""
        arrays = self.arrays.items()
        return {n: a for n, a in arrays if not self.private or a.dtype.kind == "f"}

    def interruptible(self, replies):
        """Stop between clients if somebody has pressed Ctrl-C."""
        for reply, _ in replies:
            yield reply
            if self.interrupted:
                logger.info("Interrupted; the same command goes on from here.")
                raise SystemExit(130)

    @property
    def patience(self):
        """Seconds that clients have for a round; simulated ones have what they need.

        By default ten times as long as the slowest so far has trained, within limits:
        a machine that is stuck does not hold up each round for an hour.
        """
        if self.federation.timeout or self.simulated:
            return self.federation.timeout or math.inf
        least, most = PATIENCE
        return min(most, max(least, 10 * self.slowest)) if self.slowest else most

    def most_examples(self, client):
        """Tell how many examples a client may count in a round."""
        most = self.federation.max_examples
        if most is not None:
            return most
        if not self.simulated:
            if self.federation.weighting is not uniform:
                logger.warning_once(
                    "Clients say themselves how many examples they have: give "
                    "max_examples, or weighting: !name:fed.weighting.uniform, unless "
                    "all can be trusted."
                )
            return math.inf
        if "looped_nominal_epoch" in self.site.train_options:
            return math.inf  # its epochs have any length
        epochs, rows = self.federation.local_epochs, len(self.site.partition[client])
        most = math.ceil(epochs) * rows
        batch = self.site.train_options.get("batch_size")
        if epochs == math.ceil(epochs) or not batch:
            return most
        accumulated = self.site.brain.grad_accumulation_factor
        steps = math.ceil(epochs * math.ceil(rows / batch) / accumulated)
        return min(most, steps * accumulated * batch)

    def report_waiting(self, message, seconds):
        """Say whose reply fails to come."""
        if self.simulated:
            return  # others have their turn
        config, node = message.content["config"], message.metadata.dst_node_id
        there = "is" if node in set(self.grid.get_node_ids()) else "is not"
        logger.info(
            "Round %d: waiting for client %s, %.0f of at most %.0f s; its SuperNode %d "
            "%s connected, and its log says what it does.",
            config["server-round"],
            config["client"],
            seconds,
            self.patience,
            node,
            there,
        )

    def progress(self, iterable, desc, **options):
        """Show a progress bar where somebody can see it."""
        hidden = self.site.brain.noprogressbar or None
        options |= {"disable": hidden, "leave": desc == "rounds", "dynamic_ncols": True}
        return tqdm(iterable, desc, **options)


@contextmanager
def finishing_on_interrupt(server):
    """Let Ctrl-C wait for the client that is training; a second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum, frame):
        server.interrupted = True
        signal.signal(signal.SIGINT, previous)
        logger.info("Stopping after this client; press Ctrl-C again to stop now.")

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
