"""Figures of logged runs: of one, and those of FedEnhance's paper of many.

The latter (Tzinis et al., WASPAA 2021) take what
:func:`fedenhance.reports.runs.find_runs` finds. Colours are those of Okabe and Ito,
which the colour-blind tell apart; line styles and hatches say what else differs.
"""

import logging
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from statistics import fmean

import numpy as np

from fedenhance.data.tables import grouped, read_table
from fedenhance.reports.runs import FACTORS, common_curves, swept_runs, window_means

logger = logging.getLogger(__name__)

COLOURS = ("#009E73", "#0072B2", "#E69F00", "#CC79A7", "#D55E00", "#56B4E9")
NOISES = {1: "one noise", 2: "two noises"}
BARS = {
    ("valid", 1): {"color": "#E69F00", "hatch": "xx"},
    ("test", 1): {"color": "#E69F00", "hatch": "//"},
    ("valid", 2): {"color": "#56B4E9", "hatch": ".."},
    ("test", 2): {"color": "#56B4E9", "hatch": "oo"},
}
STAGES = {
    "valid": ("validation", "#E69F00"),
    "test": ("test", "#0072B2"),
    "train": ("training", "#009E73"),
}
CURVES = {
    "si_sdri_1": "SI-SDRi, one noise (dB)",
    "si_sdri_2": "SI-SDRi, two noises (dB)",
    "loss": "Loss",
}


def new_figure(**options):
    """Make a figure; matplotlib is slow to import, and only what draws waits for it."""
    from matplotlib.figure import Figure

    return Figure(**options)


def training_curves(run):
    """Draw the SI-SDRi and the loss of one run over its rounds or epochs.

    Arguments
    ---------
    run : Run

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each of ``CURVES`` that the run knows.
    """
    columns, unit = (run.rounds, "round") if run.rounds else (run.epochs, "epoch")
    panels = {
        title: {s: columns[f"{s}_{key}"] for s in STAGES if f"{s}_{key}" in columns}
        for key, title in CURVES.items()
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    figure = new_figure(figsize=(4 * len(panels) or 4, 3.2), layout="constrained")
    for place, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for stage, values in curves.items():
            label, colour = STAGES[stage]
            known = np.isfinite(values)  # where it was evaluated
            marker = "." if known.sum() < 50 else None
            at = columns[unit][known]
            axes.plot(at, values[known], color=colour, label=label, marker=marker)
        axes.set(title=title, xlabel=unit.capitalize())
        axes.grid(alpha=0.2)
        axes.legend()
    return figure


def read_paper(path, figure):
    """The paper's own numbers, to lay over a figure.

    Arguments
    ---------
    path : str or Path
        A CSV with the columns ``figure,series,n_clients,noises,x,si_sdri``; ``x`` is a
        round, or a share of supervised clients, or empty for a level that is the same
        in all rounds.
    figure : str
        Whose numbers.

    Returns
    -------
    list of dict
        With numbers as floats, None where a cell is empty.
    """
    rows = [row for row in read_table(path) if row["figure"] == figure]
    for row in rows:
        for key in ("n_clients", "noises", "x", "si_sdri"):
            row[key] = float(row[key]) if row[key] else None
    return rows


def convergence(runs, paper=(), vary="n_clients"):
    """Draw Figure 2: test SI-SDRi over rounds, with one and with two noises.

    Solid: federations from a random start, the mean over seeds and their range. Dotted:
    the mean of clients that train alone. Dashed: one learner with all data. The latter
    two are levels: of the model that is best in validation.

    Arguments
    ---------
    runs : list of Run
    paper : list of dict
        Of :func:`read_paper`.
    vary : str
        The factor that distinguishes the curves, of ``FACTORS`` in reports/runs.py.

    Returns
    -------
    matplotlib.figure.Figure
    """
    starts = {("Federated", "-"): _swept(runs, vary)}
    scratch = [run for run in runs if not run.is_pretrained]
    alone = [run for run in scratch if run.is_individual and vary == "n_clients"]
    alone = grouped(alone, lambda run: run.hparams[vary])

    def band(rounds, values):
        return rounds, values.mean(0), values.min(0), values.max(0)

    return _over_rounds(starts, vary, band, scratch, paper, alone)


def transfer(runs, paper=(), vary="n_clients"):
    """Draw Figure 3: from a pre-trained and from a random start, rounds in log scale.

    Means over windows of ten rounds, with the range over window and seeds.

    Takes and returns what :func:`convergence` does.
    """
    starts = {
        ("Pre-trained", "-."): _swept(runs, vary, pretrained=True),
        ("Random start", "-"): swept_runs(runs, vary),
    }
    started = [run for run in runs if run.is_pretrained]
    figure = _over_rounds(starts, vary, window_means, started, paper, {})
    for axes in figure.axes:
        axes.set_xscale("log")
    return figure


def supervision(runs, paper=(), vary="p_supervised"):
    """Draw Figure 4: SI-SDRi over the share of supervised clients, as hatched bars.

    Of the model that is best in validation: the mean over seeds and their range.

    Takes and returns what :func:`convergence` does; ``vary`` is on the axis.
    """
    swept = _swept(runs, vary)
    figure = new_figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.2
    for place, ((split, noises), style) in enumerate(BARS.items()):
        at = np.arange(len(swept)) + (place - 1.5) * width
        column = f"{split}_si_sdri_{noises}"
        reached = [[run.reached(column) for run in group] for group in swept.values()]
        means = np.array([np.mean(values) for values in reached])
        ends = np.array([[min(values), max(values)] for values in reached]).T
        label = f"{STAGES[split][0].capitalize()}, {NOISES[noises]}"
        style = {**style, "label": label, "edgecolor": "black", "capsize": 2}
        axes.bar(at, means, width, yerr=np.abs(ends - means), **style)
        theirs = {
            row["x"]: row["si_sdri"]
            for row in paper
            if (row["series"], row["noises"]) == (split, noises)
        }
        axes.plot(at, [theirs.get(v, np.nan) for v in swept], "wD", mec="black", ms=5)
    axes.set_xticks(range(len(swept)), [FACTORS[vary].format(v) for v in swept])
    axes.set(ylabel="SI-SDRi (dB)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _add_legend(figure, bool(paper))
    return figure


def over_seconds(rows):
    """Draw test SI-SDRi over seconds of training, a curve for each training.

    Arguments
    ---------
    rows : list of dict
        ``training``, ``seconds``, ``si_sdri_1`` and ``si_sdri_2`` in dB. Of several
        rows with the same training and seconds, mean and range are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each number of noises.
    """
    figure = new_figure(figsize=(9, 4), layout="constrained")
    trainings = grouped(rows, itemgetter("training"))
    for place, (noises, title) in enumerate(NOISES.items(), start=1):
        axes = figure.add_subplot(1, len(NOISES), place)
        column = itemgetter(f"si_sdri_{noises}")
        for (name, own), colour in zip(trainings.items(), cycle(COLOURS), strict=False):
            points = sorted(grouped(own, itemgetter("seconds")).items())
            at = [seconds for seconds, _ in points]
            values = [list(map(column, several)) for _, several in points]
            low, high = list(map(min, values)), list(map(max, values))
            axes.plot(at, list(map(fmean, values)), "o-", color=colour, label=name)
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel="Seconds of training", title=title.capitalize())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("Test SI-SDRi (dB)")
    _add_legend(figure, marked=False)
    return figure


def save(figure, folder, name):
    """Write a figure as PNG and as PDF.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
    folder : str or Path
        Made if need be.
    name : str
        Of the files, without extension.

    Returns
    -------
    list of Path
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{extension}" for extension in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _swept(runs, vary, pretrained=False):
    swept = swept_runs(runs, vary, pretrained)
    if not swept:
        start = "a pre-trained model" if pretrained else "a random start"
        raise ValueError(f"there is no federation from {start} among the runs")
    return swept


def _over_rounds(starts, vary, average, bounds, paper, alone):
    """Draw test SI-SDRi over rounds, in a panel for each number of noises.

    Arguments
    ---------
    starts : dict
        (Name in the legend, line style) -> value of ``vary`` -> runs.
    vary : str
        The factor of which each value has a colour.
    average : callable
        ``(rounds, values)`` of such runs -> rounds, mean, low, high.
    bounds : list of Run
        Those with one client among them give a level, the upper bound.
    paper : list of dict
        Rows of the figure, see :func:`read_paper`.
    alone : dict
        Value -> runs of clients that train alone, a level each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    drawn = [run for swept in starts.values() for own in swept.values() for run in own]
    iid = _alike([run for run in bounds if run.is_iid], drawn, vary)
    levels = {name: _alike(own, drawn, vary) for name, own in alone.items()}
    values = sorted(set().union(*starts.values()))
    names = {value: FACTORS[vary].format(value) for value in values}
    colours = dict(zip(names.values(), cycle(COLOURS), strict=False))
    figure = new_figure(figsize=(9, 4.4), layout="constrained")
    for place, (noises, title) in enumerate(NOISES.items(), start=1):
        column = f"test_si_sdri_{noises}"
        axes = figure.add_subplot(1, len(NOISES), place)
        for (start, line), swept in starts.items():
            for value, group in swept.items():
                at, mean, low, high = average(*common_curves(group, column))
                colour, label = colours[names[value]], f"{start}, {names[value]}"
                axes.plot(at, mean, line, color=colour, linewidth=1.6, label=label)
                axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        for value, name in names.items():
            style = {"color": colours[name], "linestyle": ":"}
            _level(axes, levels.get(value), column, f"Individual, {name}", **style)
        _level(axes, iid, column, "IID upper bound", color="black", linestyle="--")
        _lay_over(axes, paper, noises, colours)
        axes.set(xlabel="Communication rounds", title=title.capitalize())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("Test SI-SDRi (dB)")
    _add_hours(figure, drawn)
    _add_legend(figure, any(line.get_marker() == "D" for line in axes.lines))
    return figure


def _alike(runs, drawn, vary):
    """Those of runs that have the network, test set and supervision of one drawn."""
    but = ("seed", "rounds", "evaluate_every", vary)
    known = {run.conditions(but) for run in drawn}
    alike = [run for run in runs if run.conditions(but) in known]
    if len(alike) < len(runs):
        left = len(runs) - len(alike)
        logger.warning("%d runs are no level of what is drawn: tested otherwise", left)
    return alike


def _level(axes, runs, column, label, **style):
    if runs:
        reached = [run.reached(column) for run in runs]
        axes.axhline(np.mean(reached), linewidth=2, label=label, **style)


def _lay_over(axes, paper, noises, colours):
    """Mark the paper's numbers: at their rounds, levels at the right edge."""
    for row in paper:
        if row["noises"] != noises:
            continue
        name = f"C = {row['n_clients']:g}" if row["n_clients"] else "IID"
        colour = "black" if name == "IID" else colours.setdefault(name, "gray")
        style = {"color": colour, "markeredgecolor": "black", "clip_on": False}
        if row["x"] is None:
            at_edge = axes.get_yaxis_transform()
            axes.plot(1, row["si_sdri"], "<", transform=at_edge, **style)
        else:
            axes.plot(row["x"], row["si_sdri"], "D", markersize=4, **style)


def _add_hours(figure, runs):
    """Add axes of the hours that the clients process in so many rounds."""
    hours = [run.rounds.get("hours", np.array(np.nan)).mean() for run in runs]
    mean = np.mean(hours)
    if not np.ptp(hours) <= 0.1 * mean:
        logger.info("No axis of hours: they are not the same a round in all runs.")
        return
    for axes in figure.axes:
        scales = (lambda r: r * mean, lambda h: h / mean)
        twin = axes.secondary_xaxis("top", functions=scales)
        twin.set_xlabel("Audio processed by the clients (hours)")


def _add_legend(figure, marked):
    """Put one legend of all panels below them."""
    handles = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if marked:
        style = {"color": "white", "markeredgecolor": "black"}
        from matplotlib.lines import Line2D

        handles["The paper"] = Line2D([], [], marker="D", linestyle="", **style)
    place = {"loc": "outside lower center", "ncols": 3, "fontsize": 9}
    figure.legend(handles.values(), handles.keys(), **place)
