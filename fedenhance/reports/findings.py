"""The findings of FedEnhance (Tzinis et al., WASPAA 2021), tested on finished runs.

Each finding is a difference in dB that should be positive, taken seed by seed, so that
both sides of it started alike. It holds if it is positive with every seed. Runs from a
random start that differ in their number of clients alone are compared, unless the
finding is about another factor; ablations are left out, and so are runs that are not
finished. Both sides have as many rounds, the same network and the same test set.
"""

import logging
import math
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np

from fedenhance.data.opening import warn_once
from fedenhance.data.tables import grouped
from fedenhance.reports import markdown
from fedenhance.reports.runs import swept_runs

logger = logging.getLogger(__name__)


def check_findings(runs):
    """Test what the runs can tell.

    Arguments
    ---------
    runs : list of Run

    Returns
    -------
    list of dict
        One for each finding, case and number of noises: ``finding``, ``case``,
        ``noises``, ``mean``, ``deviation``, ``lowest`` and ``highest`` difference in dB
        over seeds, ``seeds``, ``holds``.

    Raises
    ------
    ValueError
        When no finding can be tested.
    """
    rows, runs = [], [run for run in runs if run.is_finished]
    for noises in (1, 2):
        for finding, case, found in differences(runs, f"test_si_sdri_{noises}"):
            if not all(map(math.isnan, found)):
                row = {"finding": finding, "case": case, "noises": noises}
                rows.append({**row, **describe(found)})
    if not rows:
        raise ValueError(
            "none of the findings can be tested: it takes two finished experiments "
            "with seed, rounds, network and test set in common"
        )
    return rows


def describe(values):
    """Mean, spread and verdict of differences, one a seed.

    Example
    -------
    >>> describe([1.0, 3.0])["mean"], describe([1.0, 3.0])["holds"]
    (2.0, 'yes')
    >>> describe([-1.0, 3.0])["holds"], describe([3.0, math.nan])["holds"]
    ('no', 'no')
    """
    known = all(map(math.isfinite, values))
    return {
        "mean": fmean(values),
        "deviation": stdev(values) if known and len(values) > 1 else math.nan,
        "lowest": float(np.min(values)),  # NaN where one is, as the mean
        "highest": float(np.max(values)),
        "seeds": len(values),
        "holds": "yes" if known and min(values) > 0 else "no",
    }


def by_seed(runs, value, but=()):
    """A value for each seed, the mean over runs of the same seed and conditions."""
    groups = grouped(runs, lambda run: run.conditions(but))
    return {key: fmean(map(value, own)) for key, own in groups.items()}


def gains(better, worse, value):
    """Differences of a value between runs, one for each seed that both have."""
    better, worse = by_seed(better, value), by_seed(worse, value)
    shared = sorted(better.keys() & worse.keys())
    if better and worse and not shared:
        pairs = zip(min(better), min(worse), strict=True)
        told = next(pair for pair in pairs if pair[0] != pair[1])
        warn_once(logger, "not compared: runs of {}, and of {}".format(*told))
    return [better[key] - worse[key] for key in shared]


def differences(runs, column):
    """What each finding is about.

    Arguments
    ---------
    runs : list of Run
    column : str
        Of rounds.csv: test SI-SDRi in dB.

    Yields
    ------
    finding, case : str
    differences : list of float
        In dB, one for each seed; empty where the runs cannot tell.
    """

    def reached(run):
        return run.reached(column)

    def mean(values):
        return float(values.mean()) if len(values) else math.nan

    def first(run):
        return mean(run.curve(column)[1][:1])

    def early(run):
        rounds, values = run.curve(column)
        return mean(values[rounds <= run.rounds["round"][-1] / 2])

    def late(run):
        rounds, values = run.curve(column)
        return mean(values[rounds > 0.75 * run.rounds["round"][-1]])

    scratch = [run for run in runs if not run.is_pretrained]
    federations = swept_runs(runs, "n_clients")
    for count, own in federations.items():
        alone = [run for run in scratch if run.is_individual]
        alone = [run for run in alone if run.hparams.get("n_clients") == count]
        gain = gains(own, alone, reached)
        yield "federation beats individual clients", f"C = {count:g}", gain
    for (few, faster), (many, slower) in pairwise(federations.items()):
        case = f"C = {few:g} and {many:g}, first half"
        yield "fewer clients converge faster", case, gains(faster, slower, early)
    for count, started in swept_runs(runs, "n_clients", pretrained=True).items():
        sides, case = (started, federations.get(count, [])), f"C = {count:g}"
        gain = gains(*sides, first)
        yield "pre-training starts higher", f"{case}, first evaluation", gain
        yield "pre-training stays higher", f"{case}, last quarter", gains(*sides, late)
    shares = swept_runs(runs, "p_supervised")
    if len(shares) > 1:
        count = next(iter(shares.values()))[0].hparams["n_clients"]
        case = f"C = {count:g}, none to all, {len(shares)} shares"
        yield "more supervised clients help", case, rises(shares, reached)
    iid = [run for run in scratch if run.is_iid]
    for count, own in federations.items():
        yield "IID is the upper bound", f"C = {count:g}", gains(iid, own, reached)


def rises(swept, value):
    """Rise of the straight line through a value of swept runs, seed by seed."""
    groups = [by_seed(group, value, ["p_supervised"]) for group in swept.values()]
    shared = sorted(set.intersection(*map(set, groups)))
    return [slope(list(swept), [values[key] for values in groups]) for key in shared]


def slope(places, values):
    """Slope of the straight line through values; NaN where one is."""
    known = all(map(math.isfinite, values))
    return float(np.polyfit(places, values, 1)[0]) if known else math.nan


def findings_table(rows):
    """A Markdown table of findings.

    Arguments
    ---------
    rows : list of dict
        Of :func:`check_findings`.

    Returns
    -------
    str
    """
    header = "finding", "case", "noises", "difference (dB)", "range", "seeds", "holds"
    lines = []
    for row in sorted(rows, key=lambda row: row["finding"]):
        spread = f" ± {row['deviation']:.2f}" if row["seeds"] > 1 else ""
        difference = f"{row['mean']:.2f}{spread}"
        ends = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        cells = row["finding"], row["case"], row["noises"], difference, ends
        lines.append([*cells, row["seeds"], row["holds"]])
    return markdown.table(header, lines)
