"""The figures of FedEnhance (Tzinis et al., WASPAA 2021) from logged runs.

Each function draws runs, as :func:`fedenhance.reports.runs.find_runs` finds them, and
returns a ``matplotlib.figure.Figure``. Colours are those of Okabe and Ito, which the
colour-blind tell apart; line styles and hatches say what else differs.
"""

import csv
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from speechbrain.utils.logger import get_logger

from fedenhance.reports.runs import FACTORS, common_curves, swept_runs, window_means

logger = get_logger(__name__)

COLOURS = ("#009E73", "#0072B2", "#E69F00", "#CC79A7", "#D55E00", "#56B4E9")
NOISES = {1: "one noise", 2: "two noises"}
BARS = (
    ("valid", 1, "#E69F00", "xx"),
    ("test", 1, "#E69F00", "//"),
    ("valid", 2, "#56B4E9", ".."),
    ("test", 2, "#56B4E9", "oo"),
)
SPLITS = {"valid": "Validation", "test": "Test"}
WINDOW = 10
NO_PAPER = {"convergence": [], "transfer": [], "supervision": []}


def read_paper(path):
    """The paper's own numbers, to lay over a figure.

    Arguments
    ---------
    path : str or Path
        A CSV with the columns ``figure,series,n_clients,noises,x,si_sdri``; ``x`` is a
        round, or a share of supervised clients, or empty for a level that is the same
        in all rounds.

    Returns
    -------
    dict
        Figure -> its rows, with numbers as floats, None where a cell is empty.
    """
    figures = {name: [] for name in NO_PAPER}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for key in ("n_clients", "noises", "x", "si_sdri"):
                row[key] = float(row[key]) if row[key] else None
            figures[row["figure"]].append(row)
    return figures


def convergence(runs, paper=NO_PAPER, vary="n_clients"):
    """Draw Figure 2: test SI-SDRi over rounds, with one and with two noises.

    Solid: federations from a random start, the mean over seeds and their range. Dotted:
    the mean of clients that train alone. Dashed: one learner with all data. The latter
    two are levels: of the model that is best in validation.

    Arguments
    ---------
    runs : list of Run
    paper : dict
        Of :func:`read_paper`.
    vary : str
        The factor that distinguishes the curves, of ``FACTORS`` in reports/runs.py.

    Returns
    -------
    matplotlib.figure.Figure
    """
    swept = _swept(runs, vary)
    alone = {value: [r for r in runs if _is_alone(r, vary, value)] for value in swept}
    bound = [run for run in runs if run.is_iid and not run.is_pretrained]
    names = {value: FACTORS[vary].format(value) for value in swept}
    colours = dict(zip(names.values(), cycle(COLOURS), strict=False))
    figure, panels = _panels()
    for noises, axes in panels.items():
        column = f"test_si_sdri_{noises}"
        for value, group in swept.items():
            name, (rounds, values) = names[value], common_curves(group, column)
            curve = (rounds, values.mean(0), values.min(0), values.max(0))
            _curve(axes, curve, color=colours[name], label=f"Federated, {name}")
        for value, group in alone.items():
            if group:
                _level(
                    axes,
                    [run.reached(column) for run in group],
                    color=colours[names[value]],
                    label=f"Individual, {names[value]}",
                    linestyle=":",
                )
        _bound(axes, bound, column)
        _lay_over(axes, paper["convergence"], noises, colours)
    _finish(figure, panels, swept.values())
    return figure


def transfer(runs, paper=NO_PAPER, vary="n_clients"):
    """Draw Figure 3: from a pre-trained and from a random start, rounds in log scale.

    Means over windows of ten rounds, with the range over window and seeds.

    Arguments
    ---------
    runs : list of Run
    paper : dict
        Of :func:`read_paper`.
    vary : str
        The factor that distinguishes the curves, of ``FACTORS`` in reports/runs.py.

    Returns
    -------
    matplotlib.figure.Figure
    """
    starts = {
        ("Pre-trained", "-."): _swept(runs, vary, pretrained=True),
        ("Random start", "-"): swept_runs(runs, vary),
    }
    bound = [run for run in runs if run.is_iid and run.is_pretrained]
    values = sorted({value for swept in starts.values() for value in swept})
    names = {value: FACTORS[vary].format(value) for value in values}
    colours = dict(zip(names.values(), cycle(COLOURS), strict=False))
    figure, panels = _panels()
    for noises, axes in panels.items():
        column = f"test_si_sdri_{noises}"
        for (start, line), swept in starts.items():
            for value, group in swept.items():
                _curve(
                    axes,
                    window_means(*common_curves(group, column), WINDOW),
                    color=colours[names[value]],
                    label=f"{start}, {names[value]}",
                    linestyle=line,
                )
        _bound(axes, bound, column)
        _lay_over(axes, paper["transfer"], noises, colours)
        axes.set_xscale("log")
    drawn = [group for swept in starts.values() for group in swept.values()]
    _finish(figure, panels, drawn)
    return figure


def supervision(runs, paper=NO_PAPER, vary="p_supervised"):
    """Draw Figure 4: SI-SDRi over the share of supervised clients, as hatched bars.

    Of the model that is best in validation: the mean over seeds and their range.

    Arguments
    ---------
    runs : list of Run
    paper : dict
        Of :func:`read_paper`.
    vary : str
        The factor on the axis, see ``fedenhance.reports.runs.FACTORS``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    swept = _swept(runs, vary)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.2
    for place, (split, noises, colour, hatch) in enumerate(BARS):
        at = np.arange(len(swept)) + (place - 1.5) * width
        reached = [
            [run.reached(f"{split}_si_sdri_{noises}") for run in group]
            for group in swept.values()
        ]
        means = np.array([np.mean(values) for values in reached])
        ends = np.array([[min(values), max(values)] for values in reached]).T
        axes.bar(
            at,
            means,
            width,
            yerr=np.abs(ends - means),
            label=f"{SPLITS[split]}, {NOISES[noises]}",
            color=colour,
            hatch=hatch,
            edgecolor="black",
            capsize=2,
        )
        theirs = {
            row["x"]: row["si_sdri"]
            for row in paper["supervision"]
            if (row["series"], row["noises"]) == (split, noises)
        }
        axes.plot(at, [theirs.get(v, np.nan) for v in swept], "wD", mec="black", ms=5)
    axes.set_xticks(range(len(swept)), [FACTORS[vary].format(v) for v in swept])
    axes.set(ylabel="SI-SDRi (dB)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    handles, _ = axes.get_legend_handles_labels()
    _legend(figure, handles, paper["supervision"])
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


def _is_alone(run, vary, value):
    alone = run.is_individual and not run.is_pretrained
    return alone and vary == "n_clients" and run.hparams[vary] == value


def _panels():
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(1, len(NOISES))
    for panel, title in zip(axes, NOISES.values(), strict=True):
        panel.set(xlabel="Communication rounds", title=title.capitalize())
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("Test SI-SDRi (dB)")
    return figure, dict(zip(NOISES, axes, strict=True))


def _curve(axes, curve, color, **style):
    rounds, mean, low, high = curve
    axes.plot(rounds, mean, color=color, linewidth=1.6, **style)
    axes.fill_between(rounds, low, high, color=color, alpha=0.2, linewidth=0)


def _level(axes, reached, **style):
    axes.axhline(np.mean(reached), linewidth=2, **style)


def _bound(axes, runs, column):
    if runs:
        reached = [run.reached(column) for run in runs]
        _level(axes, reached, color="black", linestyle="--", label="IID upper bound")


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


def _finish(figure, panels, experiments):
    """Add the axes of hours and one legend for all panels."""
    hours = np.array([run.hours_per_round() for group in experiments for run in group])
    if len(hours) and np.ptp(hours) <= 0.1 * hours.mean():
        mean = hours.mean()
        for axes in panels.values():
            scales = (lambda r: r * mean, lambda h: h / mean)
            twin = axes.secondary_xaxis("top", functions=scales)
            twin.set_xlabel("Audio processed by the clients (hours)")
    else:
        logger.info("No axis of hours: they are not the same a round in all runs.")
    handles = {
        label: handle
        for axes in panels.values()
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    marked = any(line.get_marker() == "D" for line in panels[2].lines)
    _legend(figure, list(handles.values()), marked)


def _legend(figure, handles, paper):
    if paper:
        style = {"color": "white", "markeredgecolor": "black"}
        mark = Line2D([], [], marker="D", ls="", label="The paper", **style)
        handles = [*handles, mark]
    longest = max(len(handle.get_label()) for handle in handles)
    fit = int(figure.get_figwidth() / (0.5 + 0.055 * longest))  # inches of an entry
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(4, fit, len(handles))),
        fontsize=9,
    )
