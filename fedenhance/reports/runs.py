"""Finished runs, read from their output folders: what figures and tables are made of.

Runs that differ in nothing but their seed, or in which clients train alone, are one
experiment; nothing else is averaged over.
"""

import logging
import re
from functools import cached_property, reduce
from operator import itemgetter
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml

from fedenhance.data.tables import grouped, read_table
from fedenhance.reports import markdown
from fedenhance.run_folder.best import best_by

logger = logging.getLogger(__name__)

FACTORS = {
    "n_clients": "C = {:g}",
    "p_supervised": "{:.0%} supervised",
    "local_epoch_p": "local epochs: {:g}",
    "p_available_users": "{:.1%} of clients a round",
}
"""What the experiments vary, and how a legend says it."""

REPLICATES = ("seed", "selected_clients", "rounds", "epochs", "evaluate_every")
REPLICATES += ("cuda_graphs",)
"""What may differ between runs of one experiment."""

PARTS = ("models", "objectives", "snr_range", "local")
"""Lists and mappings that make another experiment."""

CONDITIONS = ("data_folder", "test_csv", "noise_folder", "test_size", "valid_size")
CONDITIONS += ("snr_range", "loop_noise", "sample_rate", "models", "p_supervised")
"""Settings without which what two experiments reached is not compared."""


class Plain(yaml.SafeLoader):
    """Reads values; objects that tags would make are left out."""


Plain.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


class Run:
    """The output folder of one run of ``train.py``. What it lacks is empty.

    Arguments
    ---------
    folder : str or Path
        With ``hyperparams.yaml``; with ``rounds.csv`` if it was federated, else with
        ``test_metrics.csv``.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    @cached_property
    def hparams(self):
        """Plain values of hyperparams.yaml."""
        text = (self.folder / "hyperparams.yaml").read_text(encoding="utf-8")
        return yaml.load(text, Plain)

    @cached_property
    def rounds(self):
        """Columns of rounds.csv, ``(round,)``; empty for a central run."""
        return as_columns(self.read("rounds.csv"))

    @cached_property
    def epochs(self):
        """Columns of train_log.txt, of SpeechBrain's FileTrainLogger, ``(epoch,)``.

        ``epoch``, ``train_loss``, ``valid_loss``, ... An epoch that was trained again
        after an interruption counts once.
        """
        path = self.folder / "train_log.txt"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = {}
        for epoch, line in re.findall(r"^epoch: (\d+)(.*)$", text, re.MULTILINE):
            found = re.findall(r"(train|valid) (\w+): ([^ ,]+)", line)
            known = {f"{stage}_{name}": value for stage, name, value in found}
            rows[epoch] = {"epoch": epoch, **known}
        return as_columns(rows.values())

    @cached_property
    def test_scores(self):
        """Columns of test_metrics.csv by number of noises, in dB.

        Returns
        -------
        dict
            Number of noises, as text -> ``si_sdr_in``, ``si_sdr`` and ``si_sdri``
            -> ``(mixture,)``
        """
        rows = grouped(self.read("test_metrics.csv"), itemgetter("n_noises"))
        names = ("si_sdr_in", "si_sdr", "si_sdri")
        return {
            count: as_columns({name: row.get(name) for name in names} for row in own)
            for count, own in sorted(rows.items())
        }

    def read(self, name):
        """Rows of a table of its folder, as text; none without such a file."""
        path = self.folder / name
        return read_table(path) if path.exists() else []

    @property
    def seed(self):
        """Its seed."""
        return self.hparams.get("seed")

    @property
    def is_finished(self):
        """Whether all of its rounds are there."""
        done, wanted = self.rounds.get("round", ()), self.hparams.get("rounds")
        return len(done) > 0 and (wanted is None or done[-1] >= wanted)

    @property
    def is_iid(self):
        """Whether one learner has all data: the upper bound."""
        return self.hparams.get("n_clients") == 1

    @property
    def is_individual(self):
        """Whether chosen clients trained, without the others."""
        return bool(self.hparams.get("selected_clients"))

    @property
    def is_pretrained(self):
        """Whether it started from another model."""
        return bool(self.hparams.get("initial_model"))

    @cached_property
    def settings(self):
        """What makes it the same experiment as another: plain values but paths, parts.

        Returns
        -------
        dict
        """
        own = str(self.hparams["output_folder"])
        plain = {
            key: float(value) if isinstance(value, int) else value
            for key, value in self.hparams.items()
            if (isinstance(value, int | float | str | None) or key in PARTS)
            and key not in REPLICATES
            and not str(value).startswith(own)
        }
        kind = {"initial_model": self.is_pretrained, "alone": self.is_individual}
        return {**plain, **kind}

    def conditions(self, but=()):
        """What another run must share for a difference to mean something.

        Arguments
        ---------
        but : container of str
            Settings that may differ.

        Returns
        -------
        tuple of str
            The seed, how many rounds, how often evaluated, and ``CONDITIONS``.
        """
        keys = ("seed", "rounds", "evaluate_every")
        shared = {key: self.hparams.get(key) for key in keys}
        shared |= {key: self.settings.get(key) for key in CONDITIONS}
        return tuple(f"{k} {value}" for k, value in shared.items() if k not in but)

    def curve(self, column):
        """A column over the rounds in which it is known.

        Returns
        -------
        rounds, values : numpy.ndarray
            ``(evaluation,)``; empty without such a column.
        """
        if column not in self.rounds:
            return np.zeros(0), np.zeros(0)
        known = np.isfinite(self.rounds[column])
        return self.rounds["round"][known], self.rounds[column][known]

    def reached(self, column):
        """A metric of the model that is best in validation.

        Arguments
        ---------
        column : str
            Of rounds.csv, such as ``test_si_sdri_1``. For a central run, which has no
            such table, one of the test set.

        Returns
        -------
        float
            In the unit of the metric; NaN if it is not known.
        """
        if not self.rounds:
            tested = self.test_scores.get(column.removeprefix("test_si_sdri_"))
            return fmean(tested["si_sdri"].tolist()) if tested else float("nan")
        told = {"maximize", "minimize"} & self.hparams.keys()  # or it is an older run
        way, key = best_by(self.hparams if told else {"maximize": "si_sdri"})
        rounds, values = self.curve(f"valid_{key}")
        at, found = self.curve(column)
        if not len(rounds):
            return float("nan")
        best = values.argmax() if way == "max" else values.argmin()
        return float(found[at == rounds[best]].mean())

    def summary(self):
        """What it reached and what it cost.

        Returns
        -------
        dict
            ``seed``; ``si_sdri_1`` and ``si_sdri_2`` in dB, of the test set with one
            and with two noises; ``rounds``, ``hours`` of audio and ``minutes``, zero
            for a central run.
        """
        seconds, hours = (self.rounds.get(k, np.zeros(0)) for k in ("seconds", "hours"))
        return {
            "seed": self.seed,
            **{f"si_sdri_{n}": self.reached(f"test_si_sdri_{n}") for n in (1, 2)},
            "rounds": len(seconds),
            "hours": float(hours.sum()),
            "minutes": float(seconds.sum()) / 60,
        }


def as_columns(rows):
    """Columns of numbers.

    Arguments
    ---------
    rows : iterable of dict
        Name -> text; it may be absent.

    Returns
    -------
    dict
        Name -> numpy array of floats, NaN where a cell is empty.

    Example
    -------
    >>> as_columns([{"round": "1", "loss": ""}, {"round": "2", "loss": "0.5"}])
    {'round': array([1., 2.]), 'loss': array([nan, 0.5])}
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.array([float(row.get(name) or "nan") for row in rows])
        for name in names
    }


def find_runs(folders):
    """All federated runs in or below folders; those not finished are named.

    Arguments
    ---------
    folders : list of str or Path

    Returns
    -------
    list of Run

    Raises
    ------
    FileNotFoundError
        Naming a folder without any.
    """
    runs = {}
    for folder in map(Path, folders):
        below = [table.parent for table in sorted(folder.rglob("rounds.csv"))]
        found = [
            path
            for path in below
            if (path / "hyperparams.yaml").exists() and path.name != "debug"
        ]
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no federated run of train.py: a folder with "
                "hyperparams.yaml and rounds.csv"
            )
        runs |= {path.resolve(): Run(path) for path in found}
    for run in runs.values():
        if not run.is_finished:
            done = len(run.rounds.get("round", ()))
            logger.warning("%s is not finished: round %d", run.folder, done)
    return list(runs.values())


def swept_runs(runs, factor, pretrained=False):
    """The federations that differ in one factor, and in their seeds, alone.

    Arguments
    ---------
    runs : list of Run
        Of those that differ in nothing else, the set with the most values is taken.
    factor : str
        Of ``FACTORS``.
    pretrained : bool
        Where they started.

    Returns
    -------
    dict
        Value -> list of Run, ascending; empty without such federations.
    """
    federations = [
        run
        for run in runs
        if run.is_pretrained == pretrained
        and not (run.is_individual or run.is_iid)
        and factor in run.settings
    ]

    def others(run):
        return str(sorted(item for item in run.settings.items() if item[0] != factor))

    sweeps = [
        grouped(alike, lambda run: run.settings[factor])
        for alike in grouped(federations, others).values()
    ]
    taken = max(sweeps, key=len, default={})
    left = len(federations) - sum(map(len, taken.values()))
    if left:
        logger.info("%d runs do not belong to the sweep over %s.", left, factor)
    return dict(sorted(taken.items()))


def experiments_table(rows):
    """What experiments reached, over their seeds.

    Arguments
    ---------
    rows : list of dict
        ``experiment`` and :meth:`Run.summary` of each run.

    Returns
    -------
    str
        GitHub-flavoured Markdown.

    Example
    -------
    >>> row = {"experiment": "iid", "si_sdri_1": 1.0, "si_sdri_2": 2.0, "minutes": 3.0}
    >>> print(experiments_table([row, {**row, "si_sdri_1": 3.0}]))
    | experiment | seeds | one noise | two noises | minutes a run |
    |---|---|---|---|---|
    | iid | 2 | 2.00 ± 1.41 | 2.00 ± 0.00 | 3.0 |
    """
    header = ["experiment", "seeds", "one noise", "two noises", "minutes a run"]
    lines = []
    for name, own in grouped(rows, itemgetter("experiment")).items():
        one, two = ([row[f"si_sdri_{count}"] for row in own] for count in (1, 2))
        minutes = f"{fmean(row['minutes'] for row in own):.1f}"
        reached = markdown.spread(one), markdown.spread(two)
        lines.append([name, len(own), *reached, minutes])
    return markdown.table(header, lines)


def common_curves(runs, column):
    """Curves of several runs over the rounds that all of them know.

    Arguments
    ---------
    runs : list of Run
    column : str

    Returns
    -------
    rounds : numpy.ndarray
        ``(evaluation,)``
    values : numpy.ndarray
        ``(run, evaluation)``
    """
    curves = [run.curve(column) for run in runs]
    rounds = reduce(np.intersect1d, [at for at, _ in curves])
    return rounds, np.array([values[np.isin(at, rounds)] for at, values in curves])


def window_means(rounds, values, width=10):
    """Means and ranges over windows of rounds.

    Arguments
    ---------
    rounds : numpy.ndarray
        ``(evaluation,)``, from 1.
    values : numpy.ndarray
        ``(run, evaluation)``
    width : int
        Rounds a window: 1 to 10, 11 to 20, ...

    Returns
    -------
    first, mean, low, high : numpy.ndarray
        ``(window,)``: its first round; mean, minimum and maximum over it and all runs.

    Example
    -------
    >>> window_means(np.array([1, 10, 11]), np.array([[0.0, 2.0, 5.0]]))
    (array([ 1, 11]), array([1., 5.]), array([0., 5.]), array([2., 5.]))
    """
    window = (rounds - 1) // width
    parts = [values[:, window == place] for place in np.unique(window)]
    statistics = ([f(part) for part in parts] for f in (np.mean, np.min, np.max))
    return np.unique(window).astype(int) * width + 1, *map(np.array, statistics)
