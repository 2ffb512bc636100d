"""Finished runs, read from their output folders: what figures and tables are made of.

Runs that differ in nothing but their seed, or in which clients train alone, are one
experiment; nothing else is averaged over.
"""

import csv
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import yaml
from speechbrain.utils.logger import get_logger

from fedenhance.reports.results import read_rounds

logger = get_logger(__name__)

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


class Plain(yaml.SafeLoader):
    """Reads values; objects that tags would make are left out."""


def _leave_out(loader, suffix, node):
    return f"!{suffix}"


Plain.add_multi_constructor("!", _leave_out)


class Run:
    """The output folder of one run of ``train.py``.

    Arguments
    ---------
    folder : str or Path
        With ``hyperparams.yaml``; with ``rounds.csv`` if it was federated, else with
        ``test_metrics.csv``.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        with open(self.folder / "hyperparams.yaml", encoding="utf-8") as file:
            self.hparams = yaml.load(file, Plain)

    @cached_property
    def rounds(self):
        """Columns of rounds.csv as arrays; empty for a central run."""
        federated = (self.folder / "rounds.csv").exists()
        return read_rounds(self.folder) if federated else {}

    @property
    def seed(self):
        """Its seed."""
        return self.hparams["seed"]

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
        """What makes it the same experiment as another: all plain values but paths.

        Returns
        -------
        dict
        """
        own = str(self.hparams["output_folder"])
        plain = {
            key: float(value) if isinstance(value, int) else value
            for key, value in self.hparams.items()
            if isinstance(value, int | float | str | None)
            and key not in REPLICATES
            and not str(value).startswith(own)
        }
        kind = {"initial_model": self.is_pretrained, "alone": self.is_individual}
        return {**plain, **kind}

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

    def hours_per_round(self):
        """Hours of audio that the clients process in a round; NaN if unknown."""
        hours = self.rounds.get("hours", np.zeros(0))
        return float(hours.mean()) if len(hours) else float("nan")

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
            return self._tested(column)
        criterion = self.hparams.get("maximize") or "valid_si_sdri"
        rounds, values = self.curve(criterion)
        at, found = self.curve(column)
        if not len(rounds):
            return float("nan")
        return float(found[at == rounds[values.argmax()]].mean())

    def summary(self):
        """What it reached and what it cost.

        Returns
        -------
        dict
            ``seed``; ``si_sdri_1`` and ``si_sdri_2`` in dB, of the test set with one
            and with two noises; ``rounds``, ``hours`` of audio and ``minutes``, zero
            for a central run.
        """
        seconds = self.rounds.get("seconds", np.zeros(0))
        return {
            "seed": self.seed,
            **{f"si_sdri_{n}": self.reached(f"test_si_sdri_{n}") for n in (1, 2)},
            "rounds": len(seconds),
            "hours": float(self.rounds.get("hours", np.zeros(0)).sum()),
            "minutes": float(seconds.sum()) / 60,
        }

    def _tested(self, column):
        count = column.removeprefix("test_si_sdri_")
        path = self.folder / "test_metrics.csv"
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["n_noises"] == count]
        return fmean(float(r["si_sdri"]) for r in rows) if rows else float("nan")


def find_runs(folders):
    """All federated runs in or below folders.

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
    runs = []
    for folder in map(Path, folders):
        tables = sorted(folder.rglob("rounds.csv"))
        found = [
            Run(path.parent)
            for path in tables
            if (path.parent / "hyperparams.yaml").exists()
        ]
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no federated run of train.py: a folder with "
                "hyperparams.yaml and rounds.csv"
            )
        runs += found
    return list({run.folder.resolve(): run for run in runs}.values())


def is_federated(run, pretrained=False):
    """Whether clients trained together, none of them with all data, from that start."""
    alone = run.is_individual or run.is_iid
    return not alone and run.is_pretrained == pretrained


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
    sweeps = {}
    for group in group_runs(run for run in runs if is_federated(run, pretrained)):
        settings = {**group[0].settings}
        value = settings.pop(factor)
        sweeps.setdefault(str(sorted(settings.items())), {})[value] = group
    taken = max(sweeps.values(), key=len, default={})
    left = sum(len(group) for sweep in sweeps.values() for group in sweep.values())
    left -= sum(map(len, taken.values()))
    if left:
        logger.info("%d runs do not belong to the sweep over %s.", left, factor)
    return dict(sorted(taken.items()))


def group_runs(runs):
    """Experiments: runs with the same settings.

    Arguments
    ---------
    runs : iterable of Run

    Returns
    -------
    list of list of Run
    """
    groups = {}
    for run in runs:
        key = tuple(sorted((k, str(v)) for k, v in run.settings.items()))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def table(rows):
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
    >>> print(table([row, {**row, "si_sdri_1": 3.0}]))
    | experiment | seeds | one noise | two noises | minutes a run |
    |---|---|---|---|---|
    | iid | 2 | 2.00 ± 1.41 | 2.00 ± 0.00 | 3.0 |
    """
    lines = ["| experiment | seeds | one noise | two noises | minutes a run |"]
    lines.append("|---|---|---|---|---|")
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        cells = [spread([row[f"si_sdri_{n}"] for row in own]) for n in (1, 2)]
        minutes = fmean(row["minutes"] for row in own)
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {minutes:.1f} |")
    return "\n".join(lines)


def spread(values):
    """Mean, and standard deviation where there is one.

    Example
    -------
    >>> spread([1.0, 3.0]), spread([2.0])
    ('2.00 ± 1.41', '2.00')
    """
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation}"


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
    rounds = sorted(set.intersection(*(set(at) for at, _ in curves)))
    rounds = np.array(rounds)
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
    window = ((rounds - 1) // width).astype(int)
    parts = [values[:, window == w] for w in np.unique(window)]
    return (
        np.unique(window) * width + 1,
        np.array([part.mean() for part in parts]),
        np.array([part.min() for part in parts]),
        np.array([part.max() for part in parts]),
    )
