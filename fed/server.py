"""The server's side of federated learning: this file reads as the algorithm."""

import math
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from flwr.app import ConfigRecord
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fed import state as files
from fed.brain import get_arrays, set_arrays, to_arrays, to_record, view
from fed.experiment import SERVER_INDEX
from fed.strategy import build, cast

logger = get_logger(__name__)


class Server:
    """Runs the rounds of a federation.

    Arguments
    ---------
    federation : Federation
        Says what to do.
    experiment : Experiment
        The server's own Brain and data.
    description : str
        Tells clients in other processes which experiment to load.
    roster : callable
        Lists (client name, node id) of all clients, in the order of their names; in a
        simulation the node is None.
    grid : flwr.serverapp.Grid
        Takes messages to nodes.
    """

    def __init__(self, federation, experiment, description, roster, grid):
        self.federation = federation
        self.experiment = experiment
        self.description = description
        self.roster = roster
        self.grid = grid
        self.strategy = build(federation.strategy, self.privacy())
        folder = experiment.output_folder
        self.rounds_table = files.Table(folder / "rounds.csv")
        self.clients_table = files.Table(folder / "clients.csv")
        self.state_file = experiment.save_folder / "federation.pt"
        self.checkpointer = best_checkpointer(experiment)
        self.arrays = experiment.initial
        self.rows = []
        self.best = None
        self.identity = uuid4().hex
        self.interrupted = False

    def privacy(self):
        """Tell differential privacy how many clients there are."""
        if self.federation.privacy is None:
            return None
        population = len(self.roster())
        return partial(
            self.federation.privacy,
            population=population,
            sampled=self.federation.sampled(population),
        )

    # ------------------------------------------------------------- the algorithm

    def run(self):
        """Train for all rounds that are left, then load the best model."""
        federation = self.federation
        self.resume()
        rounds = range(len(self.rows) + 1, federation.rounds + 1)
        with finishing_on_interrupt(self):
            for server_round in self.progress(
                rounds, desc="rounds", initial=len(self.rows), total=federation.rounds
            ):
                self.round(server_round)
        self.load_best()

    def round(self, server_round):
        """Send the model out, average what comes back, evaluate, keep."""
        start = time.perf_counter()
        clients = self.train_clients(server_round)
        row = self.summarize(server_round, clients)
        if self.federation.privacy:
            row["epsilon"] = self.strategy.privacy_spent().epsilon
        row |= self.train_on_server(server_round)
        row |= self.evaluate(server_round, row["train_loss"])
        row["seconds"] = time.perf_counter() - start
        self.keep(server_round, row, clients)
        self.log(row)
        for callback in self.federation.callbacks:
            set_arrays(self.experiment.brain, self.arrays)
            callback(server_round, self.experiment.brain, row)

    def train_clients(self, server_round):
        """Do local updates until enough clients succeed, and average them.

        Returns
        -------
        list of dict
            One row for each client asked: ``client``, ``status``, ...
        """
        federation = self.federation
        rows = []
        for attempt in range(federation.max_failures + 1):
            participants, dropped = self.sample(server_round, attempt)
            attempted = [self.client_row(c, "dropped out") for c, _, _ in dropped]
            before = [dict(vars(layer)) for layer in layers(self.strategy)]
            config = self.configure(server_round)
            layers(self.strategy)[-1].participants = participants
            messages = self.strategy.configure_train(
                server_round, self.sent(), config, self.grid
            )
            replies = self.grid.send_and_receive(messages, timeout=federation.timeout)
            accepted = self.accept(replies, participants, attempted)
            mean, _ = self.strategy.aggregate_train(server_round, accepted)
            rows += attempted
            good = sum(row["status"] == "ok" for row in attempted)
            if mean is not None and good >= federation.min_clients:
                self.update(to_arrays(mean))
                return rows
            for layer, attributes in zip(layers(self.strategy), before, strict=True):
                vars(layer).clear()
                vars(layer).update(attributes)
            for row in attempted:
                row["weight"] = 0.0
                if row["status"] == "ok":
                    row["status"] = "left out: too few other clients"
            logger.warning(
                "Round %d: %d clients succeeded of %d needed; attempt %d failed.",
                server_round,
                good,
                federation.min_clients,
                attempt + 1,
            )
        self.clients_table.append([{"round": server_round, **row} for row in rows])
        reasons = sorted({f"{row['client']}: {row['status']}" for row in attempted})
        raise RuntimeError(
            f"Round {server_round} failed {federation.max_failures + 1} times; the "
            f"last good model is in {self.state_file}. Failures: {'; '.join(reasons)}"
        )

    def sample(self, server_round, attempt):
        """Choose clients by seed and round, and which of them drop out.

        Returns
        -------
        participants, dropped : list of tuple
            (client name, index, node id), in the roster's order.
        """
        federation, roster = self.federation, self.roster()
        key = [self.experiment.seed, server_round, attempt]
        generator = np.random.default_rng(key)
        count = federation.sampled(len(roster))
        chosen = generator.choice(len(roster), count, replace=False)
        drops = generator.random(count) < federation.p_dropout
        nodes = iter(self.grid.get_node_ids())
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
        plain = getattr(layers(self.strategy)[-1], "mean", {})
        buffers = {name for name, _ in self.experiment.brain.modules.named_buffers()}
        new = mean | {name: plain[name] for name in buffers & set(plain)}
        self.arrays = {
            name: cast(new.get(name, old), old.dtype)
            for name, old in self.arrays.items()
        }

    def train_on_server(self, server_round):
        """Do one more local update, on the server's own data, if there is any."""
        options = self.federation.server_training
        if not options:
            return {}
        dataset = self.experiment.datasets.get(options["dataset"])
        if dataset is None:
            raise ValueError(
                f"server_training: the datasets have no '{options['dataset']}', only "
                f"{sorted(self.experiment.datasets)}."
            )
        self.arrays, metrics = self.experiment.train(
            self.arrays,
            dataset,
            server_round,
            SERVER_INDEX,
            epochs=options.get("epochs", 1),
            lr=options.get("lr"),
        )
        return {f"server_{key}": value for key, value in metrics.items()}

    def evaluate(self, server_round, train_loss):
        """Evaluate on the server's validation and test data."""
        federation, experiment = self.federation, self.experiment
        last = server_round == federation.rounds
        if server_round % federation.evaluate_every and not last:
            return {}
        valid = experiment.validate(self.arrays, server_round, train_loss)
        test = experiment.test(self.arrays)
        return {f"valid_{key}": value for key, value in valid.items()} | {
            f"test_{key}": value for key, value in test.items()
        }

    # ------------------------------------------------------ messages and replies

    def configure(self, server_round):
        """Say how clients must train in this round."""
        config = ConfigRecord({"experiment": self.description, "run": self.identity})
        if self.federation.schedule is not None:
            config["lr"] = float(self.federation.schedule(server_round, self.rows))
        return config

    def sent(self):
        """Pack the model; differential privacy can only clip and blur real numbers."""
        private = self.federation.privacy or self.federation.mods
        sent = {
            name: array
            for name, array in self.arrays.items()
            if not private or np.issubdtype(array.dtype, np.floating)
        }
        self.sent_names = sent.keys()
        return to_record(sent)

    def accept(self, replies, participants, rows):
        """Pass on good replies, weighed; note all, and why the others are left out."""
        pending = {node: client for client, _, node in participants}
        replies = in_order(replies, [node for _, _, node in participants])
        for reply in self.progress(replies, desc="clients", total=len(participants)):
            client = pending.pop(reply.metadata.src_node_id)
            row = self.client_row(client)
            row["status"] = self.check(reply, row)
            rows.append(row)
            if row["status"] == "ok":
                reply.content["metrics"].clear()
                reply.content["metrics"]["weight"] = row["weight"]
                yield reply
            else:
                logger.warning("Client %s left out: %s", client, row["status"])
                reply = None
            if self.interrupted:
                logger.info("Interrupted; the same command goes on from here.")
                raise SystemExit(130)
        for client in pending.values():
            logger.warning("Client %s left out: no reply", client)
            rows.append(self.client_row(client, "no reply"))
        if self.federation.privacy:
            # Noise must not follow from the seed, which everybody knows.
            np.random.seed()

    def client_row(self, client, status="ok"):
        """Start the row of a client in clients.csv."""
        return {
            "client": client,
            "status": status,
            "seconds": 0.0,
            "examples": 0,
            "weight": 0.0,
        }

    def check(self, reply, row):
        """Judge a reply; fill its metrics and weight into the client's row.

        Returns
        -------
        str
            ``ok``, or what is wrong.
        """
        if reply.has_error():
            return reply.error.reason
        metrics = dict(reply.content["metrics"])
        row |= {k: v for k, v in metrics.items() if k != "num-examples"}
        row["examples"] = metrics.get("num-examples", 0)
        if not row["examples"]:
            return "trained on no examples (fewer than a batch, with drop_last?)"
        if self.federation.timeout and row["seconds"] > self.federation.timeout:
            return f"took {row['seconds']:.1f} s, over the timeout"
        try:
            fault = self.check_arrays(view(reply.content["arrays"]))
            if fault:
                return fault
            weight = self.federation.weighting(metrics)
        except (KeyError, ValueError) as error:
            return str(error.args[0])
        if not (math.isfinite(weight) and weight > 0):
            return f"weight {weight}; it must be positive"
        row["weight"] = weight
        return "ok"

    def check_arrays(self, arrays):
        """Compare an update with what was sent; return what is wrong, or None."""
        if arrays.keys() != self.sent_names:
            odd = sorted(arrays.keys() ^ self.sent_names)
            return f"sent back other arrays than it got: {odd}"
        squares, scale = 0.0, 0.0
        for name, array in arrays.items():
            old = self.arrays[name]
            if array.shape != old.shape or array.dtype != old.dtype:
                got = f"{array.dtype}{array.shape}"
                return f"{name} is {got} instead of {old.dtype}{old.shape}"
            difference = np.subtract(array, old).ravel()
            squares += float(np.vdot(difference, difference))
            scale += float(np.vdot(old, old))
        if not math.isfinite(squares):
            return "update is not finite"
        limit = self.federation.max_update * max(1.0, math.sqrt(scale))
        if math.sqrt(squares) > limit:
            return f"update of norm {math.sqrt(squares):.3g} exceeds {limit:.3g}"
        return None

    # ------------------------------------------------------------------- results

    def summarize(self, server_round, clients):
        """Make a round's row: totals add up, other metrics are means by example."""
        good = [row for row in clients if row["status"] == "ok"]
        examples = sum(row["examples"] for row in good)
        totals = self.federation.totals
        row = {
            "round": server_round,
            "seconds": 0.0,
            "clients": len(good),
            "failures": len(clients) - len(good),
            "examples": examples,
        }
        row |= {key: sum(r.get(key, 0.0) for r in good) for key in totals}
        for key in list(good[0])[len(self.client_row("")) :]:
            if key not in totals:
                mean = sum(r.get(key, math.nan) * r["examples"] for r in good)
                row[f"train_{key}"] = mean / examples
        return row

    def keep(self, server_round, row, clients):
        """Put a finished round on disk; a kill at any moment loses no earlier one."""
        federation = self.federation
        total = sum(client["weight"] for client in clients)
        clients = [
            {"round": server_round, **c, "weight": c["weight"] / total} for c in clients
        ]
        value = row.get(federation.metric)
        if federation.is_better(value, self.best):
            self.best = value
            set_arrays(self.experiment.brain, self.arrays)
            self.checkpointer.save_and_keep_only(
                meta={"round": server_round, federation.metric: value},
                importance_keys=[lambda checkpoint: checkpoint.meta["round"]],
                keep_recent=False,
            )
        self.rows.append(row)
        self.clients_table.append(clients)
        files.save(
            self.state_file,
            {
                "arrays": self.arrays,
                "rows": self.rows,
                "best": self.best,
                "identity": self.identity,
                "strategy": [strategy_state(layer) for layer in layers(self.strategy)],
            },
        )
        self.rounds_table.rewrite(self.rows)

    def resume(self):
        """Go on from the last finished round, or start."""
        experiment = self.experiment
        if self.state_file.exists():
            state = files.load(self.state_file)
            self.arrays, self.rows = state["arrays"], state["rows"]
            self.best, self.identity = state["best"], state["identity"]
            set_arrays(experiment.brain, self.arrays)
            for layer, saved in zip(
                layers(self.strategy), state["strategy"], strict=True
            ):
                restore_strategy(layer, saved)
            logger.info("Going on after round %d.", len(self.rows))
        else:
            shutil.rmtree(experiment.states.folder, ignore_errors=True)
            if self.federation.initial_model:
                load_initial(experiment, self.federation.initial_model)
                self.arrays = experiment.initial
        last = len(self.rows)
        # A kill may have left a checkpoint, perhaps half of one, of a later round.
        self.checkpointer.delete_checkpoints(
            num_to_keep=0, ckpt_predicate=lambda c: c.meta.get("round", 0) > last
        )
        self.rounds_table.rewrite(self.rows)
        self.clients_table.start(last)

    def load_best(self):
        """Load the model that was best on validation, else the last one."""
        set_arrays(self.experiment.brain, self.arrays)
        self.checkpointer.recover_if_possible(
            importance_key=lambda checkpoint: checkpoint.meta["round"],
            ckpt_predicate=lambda checkpoint: "round" in checkpoint.meta,
        )

    def log(self, row):
        """Write a line about the round through SpeechBrain's loggers."""
        stats = {"train": {}, "valid": {}, "test": {}}
        meta = {}
        for key, value in row.items():
            stage, _, name = key.partition("_")
            if stage in stats and name:
                stats[stage][name] = value
            else:
                meta[key] = value
        stats = {f"{s}_stats": values for s, values in stats.items() if values}
        for train_logger in self.loggers():
            train_logger.log_stats(meta, **stats)

    def loggers(self):
        """Collect the recipe's train_logger, and those that the federation adds."""
        own = self.experiment.hparams.get("train_logger")
        return [*([own] if own else []), *self.federation.loggers]

    def progress(self, iterable, **options):
        """Show a progress bar where somebody can see it."""
        hidden = self.experiment.brain.noprogressbar
        return tqdm(
            iterable,
            disable=True if hidden else None,
            leave=options["desc"] == "rounds",
            dynamic_ncols=True,
            **options,
        )


def layers(strategy):
    """List a strategy and those that it wraps, outermost first."""
    found = [strategy]
    while hasattr(found[-1], "strategy"):
        found.append(found[-1].strategy)
    return found


def strategy_state(strategy):
    """Collect what a strategy remembers from round to round, such as momentum."""
    accountant = getattr(strategy, "accountant", None)
    state = {
        name: value
        for name, value in vars(strategy).items()
        if name in ("m_t", "v_t", "momentum_vector", "clipping_norm")
    }
    return state | ({"accountant": accountant.state_dict()} if accountant else {})


def restore_strategy(strategy, state):
    """Put back what :func:`strategy_state` collected."""
    state = dict(state)
    if "accountant" in state:
        strategy.accountant.load_state_dict(state.pop("accountant"))
    vars(strategy).update(state)


def in_order(replies, nodes):
    """Sort replies as their messages were, so that sums are the same in any runtime."""
    if not isinstance(replies, list):
        return replies
    place = {node: i for i, node in enumerate(nodes)}
    return sorted(replies, key=lambda reply: place[reply.metadata.src_node_id])


def best_checkpointer(experiment):
    """Find the recipe's checkpointer, or make one; it must cover all modules."""
    checkpointer = experiment.hparams.get("checkpointer")
    if checkpointer is None:
        checkpointer = Checkpointer(experiment.save_folder)
    covered = {id(obj) for obj in checkpointer.recoverables.values()}
    covered |= {
        id(child)
        for obj in checkpointer.recoverables.values()
        if isinstance(obj, torch.nn.Module)
        for child in obj.modules()
    }
    for name, module in experiment.brain.modules.items():
        if id(module) not in covered and module.state_dict():
            checkpointer.add_recoverable(name, module)
    return checkpointer


def load_initial(experiment, path):
    """Load the model before round 1, which was trained centrally.

    Arguments
    ---------
    experiment : Experiment
    path : str
        The output or save folder of another experiment (its newest checkpoint is
        taken), a folder of ``<module>.ckpt`` files, or one file with a state dict of
        all modules or of the only one that has weights.

    Raises
    ------
    ValueError
        When there is nothing to load.
    """
    path = Path(path)
    modules = {n: m for n, m in experiment.brain.modules.items() if m.state_dict()}
    if path.is_dir():
        load_folder(path, modules)
    elif path.is_file():
        weights = torch.load(path, map_location="cpu", weights_only=True)
        prefixes = tuple(f"{name}." for name in modules)
        if len(modules) == 1 and not all(key.startswith(prefixes) for key in weights):
            next(iter(modules.values())).load_state_dict(weights)
        else:
            set_arrays(experiment.brain, {k: w.numpy() for k, w in weights.items()})
    else:
        raise ValueError(f"initial_model: there is no file or folder '{path}'.")
    experiment.initial = get_arrays(experiment.brain)


def load_folder(path, modules):
    """Load modules from a checkpoint's folder, or from the newest one below."""
    for folder in (path, path / "save"):
        found = Checkpointer(folder).find_checkpoint()
        if found:
            path = found.path
    for name, module in modules.items():
        file = path / f"{name}.ckpt"
        if not file.exists():
            raise ValueError(f"initial_model: there is no '{file}'.")
        module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


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
