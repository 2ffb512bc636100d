"""What a run leaves on disk: tables, the best model, and a state to go on from."""

import csv
import io
import shutil
from pathlib import Path
from uuid import uuid4

import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fed.arrays import get_arrays, set_arrays
from fed.strategy import restore_strategy, strategy_state
from fedenhance.run_folder import states
from fedenhance.run_folder.checkpoints import Checkpoints, check, check_reported
from fedenhance.run_folder.files import inert, sweep, whole_file
from fedenhance.run_folder.models import load_initial

logger = get_logger(__name__)


class Ledger:
    """Keeps finished rounds; a kill at any moment loses none.

    Arguments
    ---------
    federation : Federation
    site : Site
    strategy : flwr.serverapp.strategy.Strategy
        Its momentum and the like are kept too.
    """

    def __init__(self, federation, site, strategy):
        self.federation = federation
        self.site = site
        self.strategy = strategy
        folder = site.output_folder
        self.rounds_table = Table(folder / "rounds.csv")
        self.clients_table = Table(folder / "clients.csv")
        self.checkpointer = best_checkpointer(site)
        self.rows = []
        self.best = None
        self.identity = uuid4().hex

    def resume(self):
        """Go on from the last finished round, or start.

        Returns
        -------
        arrays, numbers, average : dict of numpy.ndarray
            The model, what the recipe counts outside of it, and the model's moving
            average, which may be None.
        """
        site, numbers, average = self.site, self.site.brain.numbers(), None
        if site.state_file.exists():
            state = states.load(site.state_file)
            arrays, self.rows = state["arrays"], state["rows"]
            numbers |= state.get("numbers", {})
            if self.federation.average:  # else one of before would be evaluated
                average = state["average"]
            self.best, self.identity = state["best"], state["identity"]
            # Raises if they are those of another network.
            set_arrays(site.brain, arrays)
            restore_strategy(self.strategy, state["strategy"])
            logger.info("Going on after round %d.", len(self.rows))
        else:
            shutil.rmtree(site.states.folder, ignore_errors=True)
            if self.federation.initial_model:
                load_initial(site.brain.modules, self.federation.initial_model)
            arrays = get_arrays(site.brain)
        last = len(self.rows)
        # A kill may have left a checkpoint of a later round, or an older one that was
        # to be removed.
        self.checkpointer.delete_checkpoints(
            num_to_keep=0, ckpt_predicate=lambda c: c.meta["round"] > last
        )
        self.checkpointer.delete_checkpoints(max_keys=["round"], importance_keys=[])
        sweep(site.save_folder)
        self.check_best()
        self.rounds_table.rewrite(self.rows)
        self.clients_table.start(last)
        return arrays, numbers, average

    def keep(self, arrays, numbers, average, row, clients):
        """Put a finished round on disk.

        Arguments
        ---------
        arrays, numbers, average : dict of numpy.ndarray
            Of the server; if there is an average, it is what was evaluated.
        row : dict
            Of rounds.csv.
        clients : list of dict
            Of clients.csv.
        """
        self.keep_best(average or arrays, numbers, row)
        self.rows.append(row)
        total = sum(client.get("weight", 0.0) for client in clients)
        for client in clients if total else ():
            client["weight"] /= total
        self.append_clients(row["round"], clients)
        state = {"arrays": arrays, "numbers": numbers, "average": average}
        state |= {"rows": self.rows, "best": self.best, "identity": self.identity}
        state["strategy"] = strategy_state(self.strategy)
        states.save(self.site.state_file, state)
        # Only now: what was best before is needed if the round is done again.
        self.checkpointer.delete_checkpoints(max_keys=["round"], importance_keys=[])
        self.rounds_table.rewrite(self.rows)

    def keep_best(self, arrays, numbers, row):
        """Save the model if it is better on validation than all before."""
        asked = self.site.brain.checkpointer.asked
        self.federation.choose_as(asked, row)
        metric = self.federation.metric
        reported = [key for key in row if key.startswith("valid_")]
        if reported:
            check_reported(metric, reported)
        if self.federation.is_better(row.get(metric), self.best):
            self.best = row[metric]
            set_arrays(self.site.brain, arrays)
            self.site.brain.set_numbers(numbers)
            own = {"round": row["round"], metric: self.best}
            self.checkpointer.save_checkpoint(meta=asked.get("meta", {}) | own)

    def check_best(self):
        """See that the best model so far is there, and is what was saved.

        Raises
        ------
        ValueError
            Naming the folder or the file.
        """
        found = self.checkpointer.find_checkpoint(max_key="round")
        if found is not None:
            check(found, f"put {found.path} back as it was, or start anew")
        elif self.best is not None:
            raise ValueError(
                f"{self.site.save_folder} lacks the checkpoint of the best model, of "
                f"{self.federation.metric} {self.best:.4g}: put it back, or start anew"
            )

    def append_clients(self, server_round, rows):
        """Add a round's rows to clients.csv."""
        self.clients_table.append([{"round": server_round, **row} for row in rows])

    def load_best(self, arrays):
        """Load the model that was best on validation, else the last one."""
        set_arrays(self.site.brain, arrays)
        self.check_best()
        self.checkpointer.recover_if_possible(max_key="round")

    def log(self, row):
        """Write a line on the round through SpeechBrain's loggers, or print one."""
        meta, stats = {}, {}
        for key, value in row.items():
            stage, _, name = key.partition("_")
            if stage in ("train", "valid", "test") and name:
                stats.setdefault(f"{stage}_stats", {})[name] = value
            else:
                meta[key] = value
        own = self.site.hparams.get("train_logger")
        loggers = [*([own] if own else []), *self.federation.loggers]
        for train_logger in loggers:
            train_logger.log_stats(meta, **stats)
        if not loggers:
            tqdm.write(line_of(meta, stats))


def line_of(meta, stats):
    """One line on a round, for scripts that have no ``train_logger``.

    Example
    -------
    >>> meta, train = {"round": 3, "clients": 2, "seconds": 1.25}, {"loss": 0.123456}
    >>> print(line_of(meta, {"train_stats": train, "valid_stats": {"loss": 2.0}}))
    round 3, clients 2, seconds 1.2, train loss 0.1235, valid loss 2
    """
    told = {key: meta[key] for key in ("round", "clients", "failures") if meta.get(key)}
    if "seconds" in meta:
        told["seconds"] = round(meta["seconds"], 1)
    for stage, values in stats.items():
        named = {f"{stage.partition('_')[0]} {key}": v for key, v in values.items()}
        told |= {k: f"{v:.4g}" for k, v in named.items() if isinstance(v, int | float)}
    return ", ".join(f"{key} {value}" for key, value in told.items())


class BestModel(Checkpoints):
    """Keeps the best model of a federation, and sees no other checkpoint."""

    def list_checkpoints(self):
        """List those that tell their round."""
        return [c for c in super().list_checkpoints() if "round" in c.meta]


def best_checkpointer(site):
    """Make the checkpointer of the best model; it covers what the recipe's does.

    Its names are the recipe's, so that the recipe finds the model in it.
    """
    given = getattr(site.checkpointer, "recoverables", {}).items()
    recoverables = {n: v for n, v in given if isinstance(v, torch.nn.Module)}
    covered = {id(m) for value in recoverables.values() for m in value.modules()}
    for name, module in site.brain.modules.items():
        empty = not module.state_dict() and module not in site.stateful
        if id(module) not in covered and not empty:
            recoverables[name] = module
    return BestModel(site.save_folder, recoverables)


class ClientStates:
    """What clients keep from round to round, in one file a client and round.

    A client that is asked to train round r goes on from its newest state before r, so
    that a round that is repeated after a crash starts from the same state.

    Arguments
    ---------
    folder : Path
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def _files(self, key):
        folder = self.folder.joinpath(*map(states.file_name, key))
        return folder, {int(path.stem): path for path in folder.glob("[0-9]*.pt")}

    def load(self, key, server_round):
        """Return the state of a (run, client) before a round, or nothing."""
        _, files = self._files(key)
        rounds = [r for r in files if r < server_round]
        if not rounds:
            return {}
        state = states.load_tensors(files[max(rounds)])
        names = ("arrays", "numbers")
        return state | {n: states.with_arrays(state.get(n, {})) for n in names}

    def save(self, key, server_round, state):
        """Save the state of a (run, client) after a round; keep the one before."""
        folder, files = self._files(key)
        states.save(folder / f"{server_round}.pt", state)
        for old in sorted(r for r in files if r < server_round)[:-1]:
            files[old].unlink()


class Table:
    """A csv file of rows that have a ``round``.

    Arguments
    ---------
    path : Path
    """

    def __init__(self, path):
        self.path = Path(path)
        self.columns = []

    def start(self, last_round):
        """Drop what was written after a round; forget everything for round -1."""
        rows = []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                # A line that was cut off by a kill belongs to a later round.
                complete = (r for r in reader if None not in r.values())
                rows = [r for r in complete if int(r["round"]) <= last_round]
        self.rewrite(rows)

    def rewrite(self, rows):
        """Write all rows anew."""
        self.columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(map(inert_row, rows))
        with whole_file(self.path) as partial:
            partial.write_bytes(text.getvalue().encode())

    def append(self, rows):
        """Add rows; new columns make it write the file anew."""
        if any(key not in self.columns for row in rows for key in row):
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rewrite([*csv.DictReader(file), *rows])
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerows(map(inert_row, rows))


def inert_row(row):
    """Clients may call themselves what a spreadsheet takes for a formula."""
    return {key: inert(cell) for key, cell in row.items()}
