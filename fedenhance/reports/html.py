"""A finished run as one HTML file: curves, tables, clients, and audio to listen to.

Everything is inside the file, so that it opens from disk, without a network, and can be
sent to others. Colours follow the reader's light or dark theme.
"""

import base64
import io
import re
from html import escape
from pathlib import Path
from statistics import fmean, median

import numpy as np
import soundfile

from fedenhance.reports.results import read_rounds
from fedenhance.reports.scores import read_table

INK = "#123456"
"""Stands for the theme's text colour in a figure."""

COLOURS = {"valid": "#E69F00", "test": "#0072B2", "train": "#009E73"}
SPLITS = {"train": "training", "valid": "validation", "test": "test"}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }}
h2 {{ margin-top: 2.5rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #8886; }}
th:first-child, td:first-child {{ text-align: left; }}
.scroll {{ overflow-x: auto; }}
svg {{ width: 100%; height: auto; }}
meter {{ width: 8rem; }}
audio {{ width: 15rem; max-width: 100%; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_report(brain, datasets, hparams):
    """Write ``report.html``; named under ``results`` in YAML, after what it shows.

    Arguments
    ---------
    brain, datasets
        Not used here.
    hparams : dict
        With ``output_folder``. What is there is shown: ``rounds.csv`` or
        ``train_log.txt``, ``clients.csv``, ``test_metrics.csv``, ``audio/``, and the
        plain values of hparams.
    """
    folder = Path(hparams["output_folder"])
    sections = [
        ("Test set", _test_table(read_table(folder / "test_metrics.csv"))),
        ("Training", _curves(folder)),
        ("Clients", _clients_table(read_table(folder / "clients.csv"))),
        ("Audio", _players(folder / "audio")),
        ("Settings", _settings(hparams)),
    ]
    body = "\n".join(
        f"<h2>{title}</h2>\n{content}" for title, content in sections if content
    )
    page = PAGE.format(title=escape(folder.as_posix()), body=body)
    (folder / "report.html").write_text(page, encoding="utf-8")


def html_table(header, rows):
    """An HTML table.

    Arguments
    ---------
    header : list of str
    rows : list of list
        Strings are escaped, floats shortened; ``(html,)`` is taken as it is.

    Returns
    -------
    str

    Example
    -------
    >>> print(html_table(["a", "b"], [["<", 0.123]]))
    <div class="scroll"><table>
    <tr><th>a</th><th>b</th></tr>
    <tr><td>&lt;</td><td>0.12</td></tr>
    </table></div>
    """

    def cell(value):
        if isinstance(value, tuple):
            return value[0]
        return f"{value:.2f}" if isinstance(value, float) else escape(str(value))

    lines = ["".join(f"<th>{cell(name)}</th>" for name in header)]
    lines += ["".join(f"<td>{cell(value)}</td>" for value in row) for row in rows]
    lines = [f"<tr>{line}</tr>" for line in lines]
    return "\n".join(['<div class="scroll"><table>', *lines, "</table></div>"])


def _test_table(utterances):
    """SI-SDR before and after, by number of noises."""
    if not utterances:
        return ""
    rows = []
    for count in sorted({row["n_noises"] for row in utterances}):
        own = [row for row in utterances if row["n_noises"] == count]
        means = [
            fmean(float(r[key]) for r in own)
            for key in ("si_sdr_in", "si_sdr", "si_sdri")
        ]
        gains = [float(row["si_sdri"]) for row in own]
        worse = f"{100 * np.mean(np.array(gains) < 0):.0f} %"
        rows.append([count, len(own), *means, median(gains), worse])
    header = ["Noises", "Mixtures", "SI-SDR before (dB)", "after", "Improvement"]
    return html_table([*header, "Median", "Made worse"], rows)


def _curves(folder):
    """SI-SDR improvement and loss over rounds or epochs, as SVG."""
    if (folder / "rounds.csv").exists():
        name, columns = "round", read_rounds(folder)
        hours, minutes = (
            columns.get("hours", np.zeros(0)).sum(),
            columns["seconds"].sum(),
        )
        said = f"{len(columns[name])} rounds in {minutes / 60:.1f} minutes"
        said += f"; the clients processed {hours:.2f} hours of audio" if hours else ""
    else:
        name, columns = "epoch", read_epochs(folder / "train_log.txt")
        said = f"{len(columns[name])} epochs"
    panels = {
        "SI-SDRi, one noise (dB)": "si_sdri_1",
        "SI-SDRi, two noises (dB)": "si_sdri_2",
        "Loss": "loss",
    }
    panels = {
        title: {s: columns[f"{s}_{key}"] for s in COLOURS if f"{s}_{key}" in columns}
        for title, key in panels.items()
    }
    if not any(panels.values()):
        return ""
    return f"<p>{said}.</p>\n" + draw(columns[name], panels, name.capitalize())


def read_epochs(path):
    """The epochs of a central run, as columns, from SpeechBrain's FileTrainLogger.

    Arguments
    ---------
    path : Path
        An epoch that was trained again after an interruption counts once.

    Returns
    -------
    dict
        ``epoch``, ``train_loss``, ``valid_loss``, ... -> ``(epoch,)``, NaN where it is
        not known.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1 - train loss: 2.00 - valid loss: -1.00e+00")
    >>> {name: column.tolist() for name, column in read_epochs(path).items()}
    {'epoch': [1.0], 'train_loss': [2.0], 'valid_loss': [-1.0]}
    """
    rows = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for epoch, line in re.findall(r"^epoch: (\d+)(.*)$", text, re.MULTILINE):
        found = re.findall(r"(train|valid) (\w+): ([^ ,]+)", line)
        rows[float(epoch)] = {f"{s}_{key}": float(value) for s, key, value in found}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    columns = {n: [row.get(n, np.nan) for row in rows.values()] for n in names}
    return {name: np.array(c) for name, c in {"epoch": list(rows), **columns}.items()}


def draw(rounds, panels, label):
    """Draw curves as an SVG element whose text has the colour of the page's.

    Arguments
    ---------
    rounds : numpy.ndarray
        ``(round,)``
    panels : dict
        Title -> {split: ``(round,)``}, NaN where it is not known; empty ones are left
        out.
    label : str
        Of the axis.

    Returns
    -------
    str
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = {title: curves for title, curves in panels.items() if curves}
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
    style = {name: INK for name in (*names, "ytick.color", "grid.color")}
    style |= {"axes.facecolor": "none", "legend.facecolor": "none", "font.size": 9}
    style |= {"svg.fonttype": "none", "svg.hashsalt": "report"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, curves) in zip(axes, panels.items(), strict=True):
            for split, values in curves.items():
                known = np.isfinite(values)
                style = {"color": COLOURS[split], "label": SPLITS[split]}
                style["marker"] = "." if known.sum() < 50 else None
                axis.plot(rounds[known], values[known], **style)
            axis.set(title=title, xlabel=label)
            axis.grid(alpha=0.2)
            axis.legend()
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _clients_table(rows):
    """What each client contributed, those with the largest share first."""
    clients = {}
    for row in rows:
        clients.setdefault(row["client"], []).append(row)
    total = sum(float(row["weight"] or 0) for row in rows) or 1.0
    shares = {
        name: sum(float(row["weight"] or 0) for row in own) / total
        for name, own in clients.items()
    }
    lines = []
    for name, own in sorted(clients.items(), key=lambda item: -shares[item[0]]):
        good = [row for row in own if row["status"] == "ok"]
        share, largest = shares[name], max(shares.values())
        bar = f'<meter value="{share:.4f}" max="{largest:.4f}"></meter> {share:.1%}'
        lines.append(
            [
                name,
                len(good),
                len(own) - len(good),
                sum(int(row["examples"] or 0) for row in good),
                sum(float(row.get("hours") or 0) for row in good),
                (bar,),
                float(good[-1].get("loss") or "nan") if good else float("nan"),
            ]
        )
    header = ["Client", "Rounds", "Failures", "Examples", "Hours"]
    return html_table([*header, "Share of all updates", "Last loss"], lines) * bool(
        rows
    )


def _players(folder):
    """Players for each example, in the order noisy, enhanced, clean."""
    examples = {}
    for path in sorted(folder.glob("*.wav")):
        name, _, kind = path.stem.rpartition("_")
        examples.setdefault(name, {})[kind] = path
    kinds = [
        kind
        for kind in ("noisy", "enhanced", "clean")
        if any(kind in paths for paths in examples.values())
    ]
    rows = [
        [name, *((player(paths[kind]),) if kind in paths else "" for kind in kinds)]
        for name, paths in examples.items()
    ]
    return html_table(["Mixture", *(k.capitalize() for k in kinds)], rows) * bool(rows)


def player(path):
    """An audio element that holds a file, as FLAC.

    Arguments
    ---------
    path : Path

    Returns
    -------
    str
    """
    signal, rate = soundfile.read(path, dtype="float32")
    packed = io.BytesIO()
    soundfile.write(packed, signal, rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    label = escape(path.stem.replace("_", " "), quote=True)
    return (
        f'<audio controls preload="metadata" aria-label="{label}" '
        f'src="data:audio/flac;base64,{data}"></audio>'
    )


def _settings(hparams):
    """Plain values of the experiment."""
    rows = [
        [key, "null" if value is None else value]
        for key, value in hparams.items()
        if isinstance(value, int | float | str | None)
    ]
    table = html_table(["Key", "Value"], [[key, str(value)] for key, value in rows])
    return f"<details><summary>{len(rows)} values</summary>\n{table}\n</details>"
