"""What a finished run leaves to read, to look at and to listen to.

Each function is named under ``results`` in YAML and called as
``function(brain, datasets, hparams)`` once the best model has been tested.
"""

import logging
from pathlib import Path

import soundfile
import torch

from fedenhance.data.tables import write_table
from fedenhance.networks.scaling import separate
from fedenhance.reports.figures import training_curves
from fedenhance.reports.runs import Run
from fedenhance.training.separation import mean_scores

logger = logging.getLogger(__name__)

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
    columns = dict.fromkeys(UTTERANCE_COLUMNS) | (brain.utterances or [{}])[0]
    write_table(path, brain.utterances, columns)


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
    for item in spread_evenly(datasets["test"], count):
        for name, signal in example_signals(brain, item).items():
            path = folder / f"{item['id']}_{name}.wav"
            soundfile.write(path, signal.numpy(), hparams["sample_rate"])


def spread_evenly(dataset, count):
    """Examples from all over a dataset; those that cannot be read are left out.

    Arguments
    ---------
    dataset : sequence of dict
        With ``sources``, None where a recording is damaged.
    count : int
        How many, if there are so many.

    Returns
    -------
    list of dict

    Example
    -------
    >>> dataset = [{"id": i, "sources": [0.0]} for i in range(6)]
    >>> [item["id"] for item in spread_evenly(dataset, 3)]
    [0, 2, 4]
    """
    count = min(count, len(dataset))
    items = [dataset[i * len(dataset) // count] for i in range(count)]
    return [item for item in items if item["sources"] is not None]


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


def plot_convergence(brain, datasets, hparams):
    """Draw the training curves of a federated run to ``figures/convergence.png``.

    Arguments
    ---------
    brain, datasets
        Not used here.
    hparams : dict
        With ``output_folder``; without ``rounds.csv`` in it nothing is drawn.
    """
    run = Run(hparams["output_folder"])
    if run.rounds:
        path = run.folder / "figures" / "convergence.png"
        path.parent.mkdir(exist_ok=True)
        training_curves(run).savefig(path, dpi=150)


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
    stats = mean_scores(brain.utterances)
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
