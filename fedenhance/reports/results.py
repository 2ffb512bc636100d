"""What a finished run leaves to read, to look at and to listen to.

Each function is named under ``results`` in YAML and called as
``function(brain, datasets, hparams)`` once the best model has been tested.
"""

import csv
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.utils.logger import get_logger

from fedenhance.networks.scaling import separate
from fedenhance.training.separation import summarize

logger = get_logger(__name__)

UTTERANCE_COLUMNS = ["id", "n_noises", "si_sdr_in", "si_sdr", "si_sdri"]


def write_test_metrics(brain, datasets, hparams):
    """Write one row an utterance to ``test_metrics.csv``.

    Arguments
    ---------
    brain : fedenhance.training.separation.Separation
        Just tested: its ``utterances`` are those of the test set.
    datasets : dict
        Not used here.
    hparams : dict
        With ``output_folder``.
    """
    path = Path(hparams["output_folder"]) / "test_metrics.csv"
    others = [k for row in brain.utterances[:1] for k in row]
    names = list(dict.fromkeys(UTTERANCE_COLUMNS + others))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(brain.utterances)


def write_audio(brain, datasets, hparams, count=4):
    """Write test mixtures as they are, enhanced, and clean.

    Arguments
    ---------
    brain : fedenhance.training.separation.Separation
    datasets : dict
        With ``test``.
    hparams : dict
        With ``output_folder`` and ``sample_rate``.
    count : int
        Number of mixtures, spread evenly over the test set.
    """
    folder = Path(hparams["output_folder"]) / "audio"
    folder.mkdir(exist_ok=True)
    test = datasets["test"]
    count = min(count, len(test))
    for item in (test[i * len(test) // count] for i in range(count)):
        if item["sources"] is None:
            continue
        for name, signal in example_signals(brain, item).items():
            path = folder / f"{item['id']}_{name}.wav"
            soundfile.write(path, signal.numpy(), hparams["sample_rate"])


@torch.no_grad()
def example_signals(brain, item):
    """The noisy, enhanced and clean signal, at one level that does not clip."""
    sources = item["sources"]
    mixture = sources.sum(0)
    brain.modules.eval()
    estimates = separate(
        brain.modules.separator,
        mixture.unsqueeze(0).to(brain.device),
        brain.hparams.consistency,
    )
    signals = {"noisy": mixture, "enhanced": estimates[0, 0].cpu()}
    if item["group"] == "supervised":
        signals["clean"] = sources[0]
    peak = max(float(signal.abs().max()) for signal in signals.values())
    return {name: signal / max(peak, 1.0) for name, signal in signals.items()}


def read_rounds(folder):
    """The table of rounds of a run, as columns.

    Arguments
    ---------
    folder : str or Path
        Output folder of a federated run.

    Returns
    -------
    dict
        Column -> numpy array of floats, NaN where a cell is empty.
    """
    with open(Path(folder) / "rounds.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]
    }


def plot_convergence(brain, datasets, hparams):
    """Draw SI-SDR improvement over rounds, one panel for each number of noises.

    Without references, the loss.

    Arguments
    ---------
    brain, datasets
        Not used here.
    hparams : dict
        With ``output_folder``; needs its ``rounds.csv``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = read_rounds(hparams["output_folder"])
    panels = [
        (f"si_sdri_{count}", f"{count} noise{'s' * (count > 1)}", "SI-SDRi (dB)")
        for count in (1, 2)
        if f"valid_si_sdri_{count}" in columns
    ] or [("loss", "No references", "Loss (dB)")]
    size = (4.5 * len(panels), 3.6)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (key, title, label) in zip(axes[0], panels, strict=True):
        for split, style in (("valid", "o--"), ("test", "o-")):
            values = columns[f"{split}_{key}"]
            known = np.isfinite(values)  # rounds that were evaluated
            axis.plot(columns["round"][known], values[known], style, label=split)
        axis.set(title=title, xlabel="Round", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    folder = Path(hparams["output_folder"]) / "figures"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "convergence.png", dpi=150)
    pyplot.close(figure)


def announce(brain, datasets, hparams):
    """Say what was reached and where to look; the last line of a run.

    Arguments
    ---------
    brain : fedenhance.training.separation.Separation
        Just tested.
    datasets : dict
        Not used here.
    hparams : dict
        With ``output_folder``.
    """
    stats = summarize(brain.utterances)
    improvements = [
        f"{stats[key]:.2f} dB with {noises}"
        for key, noises in (("si_sdri_1", "one noise"), ("si_sdri_2", "two noises"))
        if key in stats
    ]
    reached = " and ".join(improvements) or "not known without references"
    folder = hparams["output_folder"]
    where = f"Listen to {folder}/audio, look at {folder}/figures"
    if (Path(folder) / "report.html").exists():
        where += f", or open {folder}/report.html"
    logger.info("Test SI-SDR improvement: %s. %s.", reached, where)
