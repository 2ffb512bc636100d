"""Tables of the paper's findings: ours as ``experiments.py findings`` tested them."""

from operator import itemgetter
from statistics import fmean

import numpy as np

from benchmarks.tables import read, those
from fedenhance.data.tables import grouped
from fedenhance.reports import markdown
from fedenhance.reports.markdown import spread

PAPER = "fedenhance/recipes/LibriFSD50K/paper.csv"
NOISES = ("1", "2")
MEASURES = {
    "fewer clients converge faster": "mean over the first half",
    "pre-training starts higher": "first evaluation",
    "pre-training stays higher": "mean over the last quarter",
    "more supervised clients help": "rise of a fitted line, none to all",
}


def table(rows):
    """A row for each finding and case, beside the paper's differences.

    Arguments
    ---------
    rows : list of dict
        Of a findings.csv: as :func:`fedenhance.reports.findings.check_findings` makes
        them. Three numbers of clients stand for the paper's three.

    Returns
    -------
    str
        Markdown; differences in dB, mean ± standard deviation, in brackets the lowest.
    """
    theirs, lines = paper(read(PAPER)), []
    for finding, own in grouped(rows, itemgetter("finding")).items():
        title = ": ".join(filter(None, [finding, MEASURES.get(finding)]))
        cases = grouped(own, itemgetter("case")).items()
        for (case, pair), differences in zip(cases, theirs[finding], strict=True):
            pair = sorted(pair, key=itemgetter("noises"))
            found = dict.fromkeys(row["holds"] for row in pair)
            cells = [case.split(",")[0], *map(difference, pair), ", ".join(found)]
            lines.append([title, *cells, ", ".join(differences)])
            title = ""
    heads = ["finding", "case", "one noise", "two noises", "holds", "paper"]
    return markdown.table(heads, lines)


def difference(row):
    """A difference, how it varies, and the lowest.

    Example
    -------
    >>> difference({"mean": "0.5", "deviation": "0.25", "lowest": "-0.125"})
    '0.50 ± 0.25 (-0.12)'
    """
    mean, deviation, lowest = (float(row[k]) for k in ("mean", "deviation", "lowest"))
    return f"{mean:.2f} ± {deviation:.2f} ({lowest:.2f})"


def paper(rows):
    """The paper's differences, by the same measures.

    Arguments
    ---------
    rows : list of dict
        Of paper.csv: numbers read off the figures.

    Returns
    -------
    dict
        Finding -> for each case, from few clients to many, dB with one and with two
        noises as text; "–" where it shows no number.
    """

    def values(series, count, noises, figure="convergence", within=(1000, 1000)):
        where = {"figure": figure, "series": series}
        where |= {"n_clients": count, "noises": noises}
        low, high = within
        return [
            float(row["si_sdri"])
            for row in those(rows, where)
            if not row["x"] or low <= float(row["x"]) <= high
        ]

    def gain(better, worse):
        return f"{fmean(better) - fmean(worse):.1f}" if better and worse else "–"

    def over_alone(count, noises):
        alone = values("individual", count, noises)
        return gain(values("federated", count, noises), alone)

    def over_more(pair, noises):
        return gain(*(values("federated", c, noises, within=(50, 500)) for c in pair))

    def over_scratch(count, noises):
        started = values("pretrained", count, noises, "transfer", (980, 980))
        return gain(started, values("federated", count, noises))

    def rise(count, noises):
        found = values("test", count, noises, "supervision", (0, 1))
        return f"{np.polyfit(np.linspace(0, 1, len(found)), found, 1)[0]:.1f}"

    def over_federation(count, noises):
        return gain(values("iid", "", noises), values("federated", count, noises))

    counts = ("16", "64", "256")
    measures = {
        "federation beats individual clients": (over_alone, counts),
        "fewer clients converge faster": (over_more, [counts[:2], counts[1:]]),
        "pre-training stays higher": (over_scratch, counts),
        "more supervised clients help": (rise, counts[1:2]),
        "IID is the upper bound": (over_federation, counts),
    }
    found = {
        finding: [[measure(count, noises) for noises in NOISES] for count in cases]
        for finding, (measure, cases) in measures.items()
    }
    return found | {"pre-training starts higher": [["–"]] * len(counts)}


def reached(rows):
    """What each experiment reached.

    Arguments
    ---------
    rows : list of dict
        Of an experiments.csv.

    Returns
    -------
    str
        Markdown; SI-SDRi in dB, mean ± standard deviation over seeds.
    """
    lines = []
    for name, own in grouped(rows, itemgetter("experiment")).items():
        gains = ([float(row[f"si_sdri_{n}"]) for row in own] for n in NOISES)
        lines.append([name, len(own), *map(spread, gains)])
    return markdown.table(["experiment", "seeds", "one noise", "two noises"], lines)
