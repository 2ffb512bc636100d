"""The findings of FedEnhance (Tzinis et al., WASPAA 2021), tested on finished runs.

Each finding is a difference in dB that should be positive, taken seed by seed, so that
both sides of it started alike. It holds if it is positive with every seed. Runs from a
random start that differ in their number of clients alone are compared, unless the
finding is about another factor; ablations are left out.
"""

import math
from itertools import pairwise
from operator import attrgetter
from statistics import fmean, stdev

import numpy as np

from fedenhance.data.tables import grouped
from fedenhance.reports import markdown
from fedenhance.reports.runs import swept_runs


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
    rows = []
    for noises in (1, 2):
        for compare in FINDINGS:
            for finding, case, found in compare(runs, f"test_si_sdri_{noises}"):
                if found:
                    row = {"finding": finding, "case": case, "noises": noises}
                    rows.append({**row, **describe(found)})
    if not rows:
        raise ValueError(
            "none of the findings can be tested: it takes two experiments with a seed "
            "in common"
        )
    return rows


def describe(differences):
    """Mean, spread and verdict of differences, one a seed.

    Example
    -------
    >>> describe([1.0, 3.0])["mean"], describe([1.0, 3.0])["holds"]
    (2.0, 'yes')
    >>> describe([-1.0, 3.0])["holds"]
    'no'
    """
    return {
        "mean": fmean(differences),
        "deviation": stdev(differences) if len(differences) > 1 else math.nan,
        "lowest": min(differences),
        "highest": max(differences),
        "seeds": len(differences),
        "holds": "yes" if min(differences) > 0 else "no",
    }


def by_seed(runs, value):
    """A value for each seed, the mean over runs that share it."""
    groups = grouped(runs, attrgetter("seed"))
    return {seed: fmean(map(value, own)) for seed, own in groups.items()}


def gains(better, worse, value):
    """Differences of a value between runs, one for each seed that both have."""
    better, worse = by_seed(better, value), by_seed(worse, value)
    return [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]


def beats_individuals(runs, column):
    """Federation against the mean of clients of the same size that train alone."""
    for count, together in swept_runs(runs, "n_clients").items():
        alone = [r for r in runs if r.is_individual and r.hparams["n_clients"] == count]
        differences = gains(together, alone, lambda run: run.reached(column))
        yield "federation beats individual clients", f"C = {count:g}", differences


def few_converge_faster(runs, column):
    """Mean over the first half of the rounds, of fewer against more clients."""

    def early(run):
        rounds, values = run.curve(column)
        return float(values[rounds <= run.hparams["rounds"] / 2].mean())

    groups = swept_runs(runs, "n_clients").items()
    for (few, faster), (many, slower) in pairwise(groups):
        case = f"C = {few:g} and {many:g}, first half"
        yield "fewer clients converge faster", case, gains(faster, slower, early)


def pretraining_helps(runs, column):
    """From a pre-trained against from a random start, first and late."""

    def first(run):
        return float(run.curve(column)[1][0])

    def late(run):
        rounds, values = run.curve(column)
        return float(values[rounds > 0.75 * run.hparams["rounds"]].mean())

    scratch = swept_runs(runs, "n_clients")
    for count, started in swept_runs(runs, "n_clients", pretrained=True).items():
        sides, case = (started, scratch.get(count, [])), f"C = {count:g}"
        early = gains(*sides, first)
        yield "pre-training starts higher", f"{case}, first evaluation", early
        yield "pre-training stays higher", f"{case}, last quarter", gains(*sides, late)


def supervision_helps(runs, column):
    """Rise of the straight line through what is reached over shares of clients."""
    swept = swept_runs(runs, "p_supervised")
    if len(swept) < 2:
        return
    reached = [by_seed(g, lambda run: run.reached(column)) for g in swept.values()]
    rises = [
        float(np.polyfit(list(swept), [values[seed] for values in reached], 1)[0])
        for seed in sorted(set.intersection(*map(set, reached)))
    ]
    count = next(iter(swept.values()))[0].hparams["n_clients"]
    case = f"C = {count:g}, none to all, {len(swept)} shares"
    yield "more supervised clients help", case, rises


def iid_is_the_bound(runs, column):
    """One learner with all data against the federations."""
    iid = [run for run in runs if run.is_iid and not run.is_pretrained]
    for count, together in swept_runs(runs, "n_clients").items():
        differences = gains(iid, together, lambda run: run.reached(column))
        yield "IID is the upper bound", f"C = {count:g}", differences


FINDINGS = (
    beats_individuals,
    few_converge_faster,
    pretraining_helps,
    supervision_helps,
    iid_is_the_bound,
)


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
