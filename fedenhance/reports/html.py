"""A finished run as one HTML file: curves, tables, clients, and audio to listen to.

Everything is inside the file, so that it opens from disk, without a network, and can be
sent to others. Colours follow the reader's light or dark theme. The page itself is
``report.html.j2``.
"""

import base64
import io
import re
from operator import itemgetter
from pathlib import Path

import numpy as np
import soundfile

from fedenhance.data.tables import grouped
from fedenhance.reports.figures import training_curves
from fedenhance.reports.judging import read_verdict
from fedenhance.reports.runs import Run

INK = "#123456"
"""Stands for the theme's text colour in a figure."""

SECRET = re.compile(
    "(?i)passw|secret|token(?!izer)|credential|private|(api|access|auth|hmac|ssh).?key"
)
"""What keys are called whose values are nobody else's."""

INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
INKED += ("ytick.color", "grid.color")

KINDS = ("noisy", "enhanced", "clean")
"""What there is to listen to, in this order."""

SVG_STYLE = {
    **dict.fromkeys(INKED, INK),
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


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
    from jinja2 import StrictUndefined, Template

    run = Run(hparams["output_folder"])
    examples = example_sounds(run.folder / "audio")
    values = {
        key: "(not shown)" if SECRET.search(str(key)) and value else value
        for key, value in hparams.items()
        if isinstance(value, int | float | str | None)
    }
    page = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    page = Template(page, autoescape=True, undefined=StrictUndefined).render(
        folder=run.folder.as_posix(),
        verdict=read_verdict(run.folder).get("sentence"),
        scores=score_rows(run.test_scores),
        extent=extent(run),
        curves=svg_curves(run),
        clients=client_rows(run.read("clients.csv")),
        examples=examples,
        gains=example_gains(run),
        opinions=example_opinions(run),
        kinds=[k for k in KINDS if any(k in sounds for sounds in examples.values())],
        settings=values,
    )
    (run.folder / "report.html").write_text(page, encoding="utf-8")


def score_rows(scores):
    """SI-SDR before and after, in dB, by number of noises.

    Arguments
    ---------
    scores : dict
        See :attr:`fedenhance.reports.runs.Run.test_scores`.

    Returns
    -------
    list of dict
    """
    return [
        {
            "noises": count,
            "mixtures": len(columns["si_sdri"]),
            "before": columns["si_sdr_in"].mean(),
            "after": columns["si_sdr"].mean(),
            "gain": columns["si_sdri"].mean(),
            "median": np.median(columns["si_sdri"]),
            "worse": 100 * np.mean(columns["si_sdri"] < 0),
        }
        for count, columns in scores.items()
    ]


def extent(run):
    """How long a run trained, in words."""
    if not run.rounds:
        return f"{len(run.epochs.get('epoch', []))} epochs"
    seconds, hours = run.rounds["seconds"], run.rounds.get("hours", np.zeros(1)).sum()
    said = f"{len(seconds)} rounds in {seconds.sum() / 60:.1f} minutes"
    return said + f"; the clients processed {hours:.2f} hours of audio" * bool(hours)


def svg_curves(run):
    """The training curves as an SVG element whose text has the colour of the page's.

    Arguments
    ---------
    run : Run

    Returns
    -------
    str
        Empty where the run knows no curve.
    """
    import matplotlib

    with matplotlib.rc_context(SVG_STYLE):
        figure = training_curves(run)
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor") * bool(figure.axes)


def client_rows(rows):
    """What each client contributed, those with the largest share first.

    Arguments
    ---------
    rows : list of dict
        Of clients.csv, as text.

    Returns
    -------
    list of dict
    """

    def total(rows, column):
        return sum(float(row.get(column) or 0) for row in rows)

    clients = []
    everything = total(rows, "weight") or 1.0
    for name, own in grouped(rows, itemgetter("client")).items():
        good = [row for row in own if row["status"] == "ok"]
        last = good[-1] if good else {}
        clients.append(
            {
                "name": name,
                "rounds": len(good),
                "failures": len(own) - len(good),
                "examples": int(total(good, "examples")),
                "hours": total(good, "hours"),
                "share": total(own, "weight") / everything,
                "loss": float(last.get("loss") or "nan"),
            }
        )
    return sorted(clients, key=lambda client: -client["share"])


def example_gains(run):
    """SI-SDR improvement in dB of the test mixtures that have one, by name."""
    rows = run.read("test_metrics.csv")
    return {row["id"]: float(row["si_sdri"]) for row in rows if row.get("si_sdri")}


def example_opinions(run):
    """DNSMOS overall of what there is to listen to, where a run was judged by it.

    Returns
    -------
    dict
        Example -> kind -> score; of the model that was kept.
    """
    kept = read_verdict(run.folder).get("kept")
    columns = {"noisy": "ovrl_before"}
    columns["enhanced"] = "ovrl_after" if kept else "ovrl_start"
    return {
        row["id"]: {
            kind: float(row[column])
            for kind, column in columns.items()
            if row.get(column) not in (None, "", "nan")  # no judge, or silence
        }
        for row in run.read("judged.csv")
    }


def spectrogram(signal, rate):
    """Draw a spectrogram, 80 dB from its loudest point down, up to half the rate.

    Arguments
    ---------
    signal : numpy.ndarray
        ``(time,)``
    rate : int
        In Hz.

    Returns
    -------
    str
        Base64 of a PNG, some hundred pixels wide.
    """
    size = max(2 * (rate // 62), 16)  # 32 ms
    signal = np.pad(signal, (0, max(size - len(signal), 0)))
    hop = max((len(signal) - size) // 256, size // 4)
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size))).T[::-1] ** 2
    decibels = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-8)
    packed = io.BytesIO()
    from matplotlib import image

    image.imsave(packed, decibels, cmap="magma", format="png", vmin=-80, vmax=0)
    return base64.b64encode(packed.getvalue()).decode("ascii")


def example_sounds(folder):
    """Examples by name: base64 of FLAC, and of a picture.

    Arguments
    ---------
    folder : Path
        With ``<example>_<kind>.wav``, as ``write_audio`` of ``reports.results`` leaves
        them.

    Returns
    -------
    dict
        Example -> kind -> ``sound``, ``picture`` -> text.
    """
    examples = {}
    for path in sorted(folder.glob("*.wav")):
        name, _, kind = path.stem.rpartition("_")
        signal, rate = soundfile.read(path, dtype="float32")
        packed = io.BytesIO()
        soundfile.write(packed, signal, rate, format="FLAC", subtype="PCM_16")
        text = base64.b64encode(packed.getvalue()).decode("ascii")
        picture = spectrogram(signal if signal.ndim == 1 else signal[:, 0], rate)
        examples.setdefault(name, {})[kind] = {"sound": text, "picture": picture}
    return examples
