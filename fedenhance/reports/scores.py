"""From scores of utterances to a table, a figure, and a comparison of two models.

Rows are dicts, one an utterance, as ``measure_utterances`` of ``reports.metrics`` makes
them: ``id``, ``n_noises``, ``noise_class``, ``spk_id``, and ``<metric>_in``,
``<metric>`` and ``<metric>i`` for each metric. NaN means that a metric is undefined:
it is counted, and left out.
"""

import csv
import math
from pathlib import Path

import numpy as np

SNR_EDGES = (-10, -5, 0, 5, 10, 15, 20)
"""Edges in dB of the bins of input SNR."""

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
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    chunk = max(1, 10**6 // len(values))  # bounds memory
    means = [
        values[generator.integers(len(values), size=(count, len(values)))].mean(1)
        for count in np.diff([*range(0, resamples, chunk), resamples])
    ]
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(np.concatenate(means), ends)
    return float(low), float(high)


def snr_bin(value, edges=SNR_EDGES):
    """Name of the bin of an input SNR.

    Arguments
    ---------
    value : float
        In dB.
    edges : sequence of float
        In dB, ascending; a value on an edge belongs to the upper bin.

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
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"< {edges[0]}"
    if place == len(edges):
        return f">= {edges[-1]}"
    return f"{edges[place - 1]} to {edges[place]}"


def metrics_of(rows):
    """Names of the metrics that rows have: whatever has a column ``<metric>_in``.

    Example
    -------
    >>> metrics_of([{"id": "a", "pesq_in": 1.0, "pesq": 2.0, "pesqi": 1.0}])
    ['pesq']
    """
    columns = rows[0] if rows else []
    return [name.removesuffix("_in") for name in columns if name.endswith("_in")]


def read_table(path):
    """Read a CSV file of a run as it is.

    Arguments
    ---------
    path : Path

    Returns
    -------
    list of dict
        Strings; none if there is no such file.
    """
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    metrics = metrics_of(rows)
    if not metrics or "id" not in rows[0]:
        raise ValueError(
            f"{path} is not a table of utterances: it needs rows, a column id, and "
            "columns such as si_sdr_in and si_sdr"
        )
    columns = [f"{name}{end}" for name in metrics for end in ("_in", "", "i")]
    for row in rows:
        row.update({name: float(row[name] or "nan") for name in columns})
    return rows


def write_rows(path, rows):
    """Write dicts as a CSV file; NaN becomes an empty cell.

    Arguments
    ---------
    path : str or Path
    rows : list of dict
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v != v else _short(v) for k, v in row.items()})


def _short(value):
    return round(value, 6) if isinstance(value, float) else value


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
        found = {}
        for row in rows:
            if grouping == "input_snr":
                value = snr_bin(float(row.get("si_sdr_in", "nan")))
            else:
                value = str(row.get(grouping, ""))
            if value:
                found.setdefault(value, []).append(row)
        for value in sorted(found, key=_natural):
            groups[grouping, value] = found[value]
    return groups


def _natural(value):
    """Order bins by their lower edge, speakers and counts as numbers."""
    if value.startswith("< "):
        return (0, -math.inf, value)
    try:
        return (0, float(value.removeprefix(">= ").split(" to ")[0]), value)
    except ValueError:
        return (1, 0.0, value)


def summarize(rows, columns=None):
    """Statistics of every group of utterances.

    Arguments
    ---------
    rows : list of dict
    columns : list of str or None
        What is summarized; by default each metric before and after enhancement, and
        its improvement.

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
        columns = [f"{m}{end}" for m in metrics_of(rows) for end in ("_in", "", "i")]
    return [
        {"grouping": grouping, "group": group, "metric": column}
        | _statistics([row[column] for row in members])
        for (grouping, group), members in group_rows(rows).items()
        for column in columns
    ]


def _statistics(values):
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    low, high = bootstrap_interval(defined)
    nan = float("nan")
    return {
        "n": len(defined),
        "failures": len(values) - len(defined),
        "mean": float(defined.mean()) if len(defined) else nan,
        "low": low,
        "high": high,
        "median": float(np.median(defined)) if len(defined) else nan,
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
    others = {row["id"]: row for row in other_rows}
    metrics = [m for m in metrics_of(rows) if m in metrics_of(other_rows)]
    if not metrics:
        raise ValueError("the two models have no metric in common")
    pairs = []
    for row in rows:
        other = others.pop(row["id"], None)
        if other is None or not _same_mixture(row, other, metrics):
            raise ValueError(
                f"the models were not scored on the same mixtures: {row['id']} is "
                f"{'missing' if other is None else 'another mixture'} in the second; "
                "evaluate both with the same --test_mixtures"
            )
        differences = {name: row[name] - other[name] for name in metrics}
        pairs.append({**row, **differences})
    if others:
        raise ValueError(
            "the models were not scored on the same mixtures: "
            f"{next(iter(others))} is missing in the first; evaluate both with the "
            "same --test_mixtures"
        )
    summary = summarize(pairs, metrics)
    groups = group_rows(pairs)
    for line in summary:
        members = groups[line["grouping"], line["group"]]
        line.update(_paired_test([row[line["metric"]] for row in members]))
    return summary


def _same_mixture(row, other, metrics):
    """Whether the scores before enhancement agree; undefined ones agree too."""
    before = [f"{name}_in" for name in metrics]
    return np.allclose(
        [row[name] for name in before],
        [other[name] for name in before],
        atol=1e-2,
        equal_nan=True,
    )


def _paired_test(differences):
    from scipy.stats import wilcoxon

    differences = np.asarray(differences)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return {"wins": float("nan"), "p": float("nan")}
    wins = float(np.mean(differences > 0))
    p = float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return {"wins": wins, "p": p}


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
    header += ["wins", "p"] if paired else []
    lines = [header, ["---"] * len(header)]
    for line in summary:
        if line["grouping"] == grouping:
            cells = [line["group"], line["metric"], str(line["n"])]
            cells += [str(line["failures"]), f"{line['mean']:.3f}"]
            cells += [f"{line['low']:.3f} to {line['high']:.3f}"]
            cells += [f"{line['median']:.3f}"]
            cells += [f"{line['wins']:.0%}", f"{line['p']:.2g}"] if paired else []
            lines.append(cells)
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return text.replace("| --- ", "|---").replace(" --- |", "---|").replace("- |", "-|")


def plot_summary(path, summary, metric, label, most=20):
    """Draw means and intervals of one metric, a panel for each grouping.

    Arguments
    ---------
    path : str or Path
        Where the figure is written.
    summary : list of dict
        See :func:`summarize` or :func:`compare`.
    metric : str
        Which of its metrics.
    label : str
        Of the axis, with its unit.
    most : int
        Panels with more groups show those with the most utterances.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [line for line in summary if line["metric"] == metric and line["n"]]
    (overall,) = [line for line in lines if line["grouping"] == "all"]
    panels = {
        grouping: [line for line in lines if line["grouping"] == grouping]
        for grouping in GROUPINGS
    }
    panels = {grouping: members for grouping, members in panels.items() if members}
    columns = 1 if len(panels) < 2 else 2
    lines = max(1, -(-len(panels) // columns))
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(4.8 * columns, 3.6 * lines),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (grouping, members) in zip(axes.flat, panels.items(), strict=False):
        if len(members) > most:
            frequent = sorted(members, key=lambda line: -line["n"])[:most]
            members = [line for line in members if line in frequent]
        _draw_panel(axis, members)
        axis.axvline(overall["mean"], color="gray", linewidth=1, linestyle="--")
        axis.set(title=f"By {GROUPINGS[grouping]}", xlabel=label)
    figure.savefig(Path(path), dpi=150)
    pyplot.close(figure)


def _shortened(name, most=24):
    name = name.replace("_", " ")
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _draw_panel(axis, members):
    places = np.arange(len(members))[::-1]
    means = np.array([line["mean"] for line in members])
    ends = np.array([[line["low"], line["high"]] for line in members]).T
    errors = np.nan_to_num(np.abs(ends - means))
    axis.errorbar(means, places, xerr=errors, fmt="o", markersize=4, capsize=2)
    names = [f"{_shortened(line['group'])} ({line['n']})" for line in members]
    axis.set_yticks(places, names, fontsize=7)
    axis.set_ylim(-0.7, len(members) - 0.3)
    axis.grid(axis="x", alpha=0.3)
