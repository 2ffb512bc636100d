"""A federation to watch while it trains: curves, audio and spectrograms.

``callbacks`` of the federation names :class:`Live`, and ``live`` of the experiment says
where it sends what it has: to TensorBoard, to Weights & Biases, to both.
"""

from dataclasses import dataclass
from numbers import Number
from pathlib import Path

import numpy as np
from speechbrain.utils.train_logger import TensorboardLogger, WandBLogger

from fedenhance.data.datasets import evaluation_set
from fedenhance.data.manifests import load_manifest
from fedenhance.reports.metrics import require
from fedenhance.reports.results import example_signals, spread_evenly


class TensorBoard(TensorboardLogger):
    """SpeechBrain's logger; ``tensorboard --logdir results`` shows what it writes.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run; the files go to ``tensorboard/`` in it.
    """

    def __init__(self, folder):
        require("live: TensorBoard", "tensorboard")
        super().__init__(Path(folder) / "tensorboard")

    def log_round(self, number, values, sounds, figures, sample_rate):
        """Log numbers, signals ``(time,)`` and figures of matplotlib, all by name."""
        # It counts its calls; a run that goes on does not start at 1.
        self.global_step["meta"] = number - 1
        self.log_stats(values)
        for name, signal in sounds.items():
            self.log_audio(name, signal.unsqueeze(0), sample_rate)
        for name, figure in figures.items():
            self.writer.add_figure(name, figure, number)
        self.writer.flush()


class WandB(WandBLogger):
    """SpeechBrain's logger of Weights & Biases.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run, where its files go. A run that goes on there goes on
        in Weights & Biases too.
    **options : dict
        Of ``wandb.init``: ``project``, ``entity``, ``mode``, ...
    """

    def __init__(self, folder, **options):
        require("live: Weights & Biases", "wandb")
        import wandb

        name = Path(folder).as_posix().replace("/", "-")
        settings = {"project": "fedenhance", "id": name, "resume": "allow"}
        super().__init__(wandb.init, dir=str(folder), **{**settings, **options})
        self.wandb = wandb

    def log_round(self, number, values, sounds, figures, sample_rate):
        """Log numbers, signals ``(time,)`` and figures of matplotlib, all by name."""
        audio = {
            name: self.wandb.Audio(signal.numpy(), sample_rate=sample_rate)
            for name, signal in sounds.items()
        }
        images = {name: self.wandb.Image(figure) for name, figure in figures.items()}
        self.log_stats({"epoch": number, **values, **audio, **images})


@dataclass
class Live:
    """Callback of a federation: each round's numbers, and examples every few rounds.

    Arguments
    ---------
    sinks : list of callable
        Each makes what :class:`TensorBoard` is from the output folder, once the first
        round is done; empty: nothing happens.
    folder : str
        Output folder of the run.
    data_folder : str
        What ``$data_root`` stands for in ``valid_mixtures.csv``, whose mixtures are the
        examples.
    sample_rate : int
        In Hz.
    loop_noise : bool
        As for the experiment's mixing.
    every : int
        Rounds from examples to examples; the first round has some.
    count : int
        Examples, spread evenly over the validation set.
    """

    sinks: list
    folder: str
    data_folder: str
    sample_rate: int
    loop_noise: bool = False
    every: int = 10
    count: int = 2

    def __post_init__(self):
        self.opened, self.examples = [], []

    def start(self):
        """Open the sinks; read the examples."""
        self.opened = [sink(folder=self.folder) for sink in self.sinks]
        path = Path(self.folder) / "valid_mixtures.csv"
        mixtures = load_manifest(path, self.data_folder)
        found = evaluation_set(mixtures, self.sample_rate, self.loop_noise)
        self.examples = spread_evenly(found, self.count)

    def __call__(self, server_round, brain, row):
        """Send what a round has to show.

        Arguments
        ---------
        server_round : int
            From 1.
        brain : fedenhance.training.separation.Separation
            With the model of the round.
        row : dict
            Of rounds.csv.
        """
        if not self.sinks:
            return
        if not self.opened:
            self.start()
        values = {
            tag(name): float(value)
            for name, value in row.items()
            if isinstance(value, Number) and np.isfinite(value)
        }
        sounds, figures = {}, {}
        if server_round == 1 or server_round % self.every == 0:
            for item in self.examples:
                signals = example_signals(brain, item)
                sounds |= {f"{item['id']}/{kind}": s for kind, s in signals.items()}
                figure = spectrograms(signals, self.sample_rate)
                figures[f"{item['id']}/spectrogram"] = figure
        for sink in self.opened:
            sink.log_round(server_round, values, sounds, figures, self.sample_rate)


def tag(column):
    """Sort a column of rounds.csv into a section.

    Example
    -------
    >>> tag("valid_si_sdri_1"), tag("hours")
    ('valid/si_sdri_1', 'round/hours')
    """
    stage, _, name = column.partition("_")
    known = stage in ("train", "valid", "test", "server") and name
    return f"{stage}/{name}" if known else f"round/{column}"


def spectrograms(signals, sample_rate, floor=-80.0):
    """Draw spectrograms side by side, on one scale of dB.

    Arguments
    ---------
    signals : dict
        Name -> torch.Tensor ``(time,)``.
    sample_rate : int
        In Hz.
    floor : float
        In dB below the loudest; what is softer has the same colour.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from scipy.signal import spectrogram

    powers = {
        name: spectrogram(signal.numpy(), sample_rate, nperseg=min(512, len(signal)))
        for name, signal in signals.items()
    }
    peak = max(power.max() for _, _, power in powers.values()) or 1.0
    figure = Figure(figsize=(3.2 * len(signals), 2.6), layout="constrained")
    axes = figure.subplots(1, len(signals), sharey=True, squeeze=False)[0]
    for axis, (name, (frequency, time, power)) in zip(
        axes, powers.items(), strict=True
    ):
        level = 10 * np.log10(np.maximum(power / peak, 10 ** (floor / 10)))
        axis.pcolormesh(time, frequency / 1000, level, vmin=floor, vmax=0)
        axis.set(title=name, xlabel="Time (s)")
    axes[0].set_ylabel("Frequency (kHz)")
    return figure
