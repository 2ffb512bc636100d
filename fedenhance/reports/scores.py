"""From scores of utterances to a table, a figure, and a comparison of two models.

Rows are dicts, one an utterance, as ``measure_utterances`` of ``reports.metrics`` makes
them: ``id``, ``n_noises``, ``noise_class``, ``spk_id``, and ``<metric>_in``,
``<metric>`` and ``<metric>i`` for each metric. NaN means that a metric is undefined:
it is counted, and left out.
"""

import math
from functools import partial
from itertools import pairwise
from operator import itemgetter

import numpy as np

from fedenhance.data.tables import grouped, read_table, write_table
from fedenhance.reports import markdown

SNR_EDGES = (-10, -5, 0, 5, 10, 15, 20)
"""Edges in dB of the bins of input SNR."""

SNR_BINS = (
    f"< {SNR_EDGES[0]}",
    *(f"{low} to {high}" for low, high in pairwise(SNR_EDGES)),
    f">= {SNR_EDGES[-1]}",
)
"""Their names, in order."""

GROUPINGS = {
    "n_noises": "number of noises",
    "input_snr": "input SI-SDR (dB)",
    "noise_class": "noise class",
    "spk_id": "speaker",
}
"""Column -> title, for each way in which utterances are grouped."""


def bootstrap_interval(values, level=0.95, resamples=2000, seed=0):
    """Percentile bootstrap interval of the mean (Efron and Tibshirani, 1993).

    Arguments
    ---------
    values : numpy.ndarray
        One number an utterance.
    level : float
        Probability with which the interval covers the mean.
    resamples : int
        Number of bootstrap samples.
    seed : int
        The interval of given values is always the same.

    Returns
    -------
    tuple of float
        Lower and upper end; NaN for fewer than two values.

    Example
    -------
    >>> low, high = bootstrap_interval(np.array([0.0, 1.0] * 50))
    >>> round(low, 2), round(high, 2)
    (0.4, 0.6)
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return math.nan, math.nan
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10**6 // len(values)),  # bounds memory
        confidence_level=level,
        method="percentile",
        rng=seed,
    )
    return tuple(map(float, found.confidence_interval))


def snr_bin(value):
    """Name of the bin of an input SNR, of ``SNR_BINS``.

    Arguments
    ---------
    value : float
        In dB; a value on an edge belongs to the upper bin.

    Returns
    -------
    str
        Empty where the SNR is undefined.

    Example
    -------
    >>> snr_bin(-12.0), snr_bin(0.0), snr_bin(25.0)
    ('< -10', '0 to 5', '>= 20')
    """
    if math.isnan(value):
        return ""
    return SNR_BINS[np.searchsorted(SNR_EDGES, value, side="right")]


def metrics_of(rows):
    """Names of the metrics that rows have: whatever has a column ``<metric>_in``.

    Example
    -------
    >>> metrics_of([{"id": "a", "pesq_in": 1.0, "pesq": 2.0, "pesqi": 1.0}])
    ['pesq']
    """
    columns = rows[0] if rows else []
    return [name.removesuffix("_in") for name in columns if name.endswith("_in")]


def columns_of(metrics):
    """Columns of metrics: before and after enhancement, and the improvement.

    Example
    -------
    >>> columns_of(["pesq"])
    ['pesq_in', 'pesq', 'pesqi']
    """
    return [f"{name}{end}" for name in metrics for end in ("_in", "", "i")]


def read_rows(path):
    """Read scores of utterances.

    Arguments
    ---------
    path : str or Path
        CSV file, as :func:`write_rows` writes it.

    Returns
    -------
    list of dict
        With floats for metrics, NaN where a cell is empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has no rows, or none of a metric.
    """
    rows = read_table(path)
    metrics = metrics_of(rows)
    if not metrics or "id" not in rows[0]:
        raise ValueError(
            f"{path} is not a table of utterances: it needs rows, a column id, and "
            "columns such as si_sdr_in and si_sdr"
        )
    for row in rows:
        row.update({name: float(row[name] or "nan") for name in columns_of(metrics)})
    return rows


def write_rows(path, rows):
    """Write dicts as a CSV file: NaN as an empty cell, floats with six decimals.

    Arguments
    ---------
    path : str or Path
    rows : list of dict
    """

    def cell(value):
        if isinstance(value, float):
            return "" if math.isnan(value) else round(value, 6)
        return value

    write_table(path, [{k: cell(value) for k, value in row.items()} for row in rows])


def group_rows(rows):
    """All groups of utterances: everything, then each value of each grouping.

    Arguments
    ---------
    rows : list of dict

    Returns
    -------
    dict
        ``(grouping, group)`` -> rows, in order; ``("all", "all")`` comes first.

    Example
    -------
    >>> list(group_rows([{"n_noises": 1, "spk_id": "a"}, {"n_noises": 2}]))
    [('all', 'all'), ('n_noises', '1'), ('n_noises', '2'), ('spk_id', 'a')]
    """
    groups = {("all", "all"): rows}
    for grouping in GROUPINGS:
        found = grouped(rows, partial(_group_of, grouping))
        found.pop("", None)
        groups |= {(grouping, name): found[name] for name in sorted(found, key=_rank)}
    return groups


def _group_of(grouping, row):
    if grouping == "input_snr":
        return snr_bin(float(row.get("si_sdr_in", "nan")))
    return str(row.get(grouping, ""))


def _rank(value):
    """Order bins by their edges, speakers and counts as numbers, names by letters."""
    if value in SNR_BINS:
        return SNR_BINS.index(value), value
    return int(value) if value.isdecimal() else math.inf, value


def summarize(rows, columns=None, also=lambda values: {}):
    """Statistics of every group of utterances.

    Arguments
    ---------
    rows : list of dict
    columns : list of str or None
        What is summarized; by default each metric before and after enhancement, and
        its improvement.
    also : callable
        The values that count -> further statistics, by name.

    Returns
    -------
    list of dict
        One for each group and column: ``grouping``, ``group``, ``metric``, ``n``
        (utterances that count), ``failures`` (that do not), ``mean``, ``low`` and
        ``high`` (95 % bootstrap interval of the mean), ``median``.

    Example
    -------
    >>> rows = [{"id": i, "pesq": value} for i, value in enumerate([1.0, 2.0, 2.0])]
    >>> (row,) = summarize(rows, ["pesq"])
    >>> row["n"], round(row["mean"], 2), row["median"]
    (3, 1.67, 2.0)
    """
    if columns is None:
        columns = columns_of(metrics_of(rows))
    return [
        {"grouping": grouping, "group": group, "metric": column}
        | _statistics(np.array([row[column] for row in members], float), also)
        for (grouping, group), members in group_rows(rows).items()
        for column in columns
    ]


def _statistics(values, also):
    defined = values[~np.isnan(values)]
    low, high = bootstrap_interval(defined)
    return {
        "n": len(defined),
        "failures": len(values) - len(defined),
        "mean": float(defined.mean()) if len(defined) else math.nan,
        "low": low,
        "high": high,
        "median": float(np.median(defined)) if len(defined) else math.nan,
        **also(defined),
    }


def compare(rows, other_rows):
    """Paired differences of two models on the same mixtures.

    Arguments
    ---------
    rows, other_rows : list of dict
        Scores of the first and of the second model.

    Returns
    -------
    list of dict
        As :func:`summarize` returns, of the first model minus the second, with
        ``wins`` (share of the utterances for which the first is better) and ``p``
        (two-sided Wilcoxon signed-rank test).

    Raises
    ------
    ValueError
        If the models were not scored on the same mixtures.
    """
    metrics = [m for m in metrics_of(rows) if m in metrics_of(other_rows)]
    if not metrics:
        raise ValueError("the two models have no metric in common")
    pairs = [
        {**row, **{name: row[name] - other[name] for name in metrics}}
        for row, other in _paired(rows, other_rows, metrics)
    ]
    return summarize(pairs, metrics, _paired_test)


def _paired(rows, other_rows, metrics):
    """Rows of the same mixture, in the order of the first."""
    first, second = ({row["id"]: row for row in table} for table in (rows, other_rows))
    for key in first | second:
        if key not in first or key not in second:
            problem = f"missing in the {'second' if key in first else 'first'}"
        elif not _same_mixture(first[key], second[key], metrics):
            problem = "another mixture in the second"
        else:
            continue
        raise ValueError(
            f"the models were not scored on the same mixtures: {key} is {problem}; "
            "evaluate both with the same --test_mixtures"
        )
    return [(row, second[key]) for key, row in first.items()]


def _same_mixture(row, other, metrics):
    """Whether the scores before enhancement agree; undefined ones agree too."""
    before, others = ([r[f"{name}_in"] for name in metrics] for r in (row, other))
    return np.allclose(before, others, atol=1e-2, equal_nan=True)


def _paired_test(differences):
    from scipy.stats import wilcoxon

    if not len(differences):
        return {"wins": math.nan, "p": math.nan}
    p = float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return {"wins": float(np.mean(differences > 0)), "p": p}


def format_summary(summary, grouping="all"):
    """A table of one grouping, to be read.

    Arguments
    ---------
    summary : list of dict
        See :func:`summarize` or :func:`compare`.
    grouping : str
        ``"all"`` or a key of ``GROUPINGS``.

    Returns
    -------
    str
        GitHub-flavoured Markdown.

    Example
    -------
    >>> rows = [{"id": "a", "pesq": 1.5}, {"id": "b", "pesq": 1.5}]
    >>> print(format_summary(summarize(rows, ["pesq"])))
    | group | metric | n | failures | mean | 95 % interval | median |
    |---|---|---|---|---|---|---|
    | all | pesq | 2 | 0 | 1.500 | 1.500 to 1.500 | 1.500 |
    """
    header = ["group", "metric", "n", "failures", "mean", "95 % interval", "median"]
    paired = any("wins" in line for line in summary)
    rows = []
    for line in summary:
        if line["grouping"] == grouping:
            cells = [line[name] for name in header[:4]]
            interval = f"{line['low']:.3f} to {line['high']:.3f}"
            cells += [f"{line['mean']:.3f}", interval, f"{line['median']:.3f}"]
            cells += [f"{line['wins']:.0%}", f"{line['p']:.2g}"] if paired else []
            rows.append(cells)
    return markdown.table(header + ["wins", "p"] * paired, rows)


def draw_summary(summary, metric, label):
    """Draw means and intervals of one metric, a panel for each grouping.

    A panel shows the 20 groups with the most utterances.

    Arguments
    ---------
    summary : list of dict
        See :func:`summarize` or :func:`compare`.
    metric : str
        Which of its metrics.
    label : str
        Of the axis, with its unit.

    Returns
    -------
    matplotlib.figure.Figure
    """
    lines = [line for line in summary if line["metric"] == metric and line["n"]]
    panels = grouped(lines, itemgetter("grouping"))
    (overall,) = panels.pop("all")
    from matplotlib.figure import Figure

    columns = min(2, len(panels)) or 1
    height = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(4.8 * columns, 3.6 * height), layout="constrained")
    for place, (grouping, members) in enumerate(panels.items(), start=1):
        frequent = sorted(members, key=lambda line: -line["n"])[:20]
        axes = figure.add_subplot(height, columns, place)
        _draw_panel(axes, [line for line in members if line in frequent])
        axes.axvline(overall["mean"], color="gray", linewidth=1, linestyle="--")
        axes.set(title=f"By {GROUPINGS[grouping]}", xlabel=label)
    return figure


def _draw_panel(axes, members):
    places = np.arange(len(members))[::-1]
    means = np.array([line["mean"] for line in members])
    ends = np.array([[line["low"], line["high"]] for line in members]).T
    errors = np.nan_to_num(np.abs(ends - means))
    axes.errorbar(means, places, xerr=errors, fmt="o", markersize=4, capsize=2)
    names = [f"{_shortened(line['group'])} ({line['n']})" for line in members]
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(-0.7, len(members) - 0.3)
    axes.grid(axis="x", alpha=0.3)


def _shortened(name, most=24):
    name = name.replace("_", " ")
    return name if len(name) <= most else f"{name[: most - 1]}…"
