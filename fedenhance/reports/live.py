"""A federation to watch while it trains: curves, audio and spectrograms.

``callbacks`` of the federation names :class:`Live`, and ``live`` of the experiment says
where it sends what it has: to TensorBoard, to Weights & Biases, to both.
"""

from numbers import Number
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger

from fedenhance.data.datasets import evaluation_set
from fedenhance.data.manifests import load_manifest
from fedenhance.reports.results import example_signals

logger = get_logger(__name__)


class TensorBoard:
    """Writes event files; ``tensorboard --logdir results`` shows them.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run; the files go to ``tensorboard/`` in it.
    """

    def __init__(self, folder):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "live: TensorBoard is not installed: pip install tensorboard"
            ) from error
        self.writer = SummaryWriter(Path(folder) / "tensorboard")

    def scalars(self, values, step):
        """Log numbers by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def audio(self, name, signal, sample_rate, step):
        """Log a signal ``(time,)``."""
        self.writer.add_audio(name, signal.unsqueeze(0), step, sample_rate)

    def figure(self, name, figure, step):
        """Log a figure of matplotlib."""
        self.writer.add_figure(name, figure, step)


class WandB:
    """Sends to Weights & Biases.

    Arguments
    ---------
    folder : str or Path
        Output folder of the run, where its files go. A run that goes on there goes on
        in Weights & Biases too.
    **options : dict
        Of ``wandb.init``: ``project``, ``entity``, ``mode``, ...
    """

    def __init__(self, folder, **options):
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                "live: Weights & Biases is not installed: pip install wandb"
            ) from error
        self.wandb = wandb
        name = Path(folder).as_posix().replace("/", "-")
        settings = {"project": "fedenhance", "id": name, "resume": "allow"}
        self.run = wandb.init(dir=str(folder), **{**settings, **options})

    def scalars(self, values, step):
        """Log numbers by name."""
        self.run.log(values, step=step)

    def audio(self, name, signal, sample_rate, step):
        """Log a signal ``(time,)``."""
        audio = self.wandb.Audio(signal.numpy(), sample_rate=sample_rate)
        self.run.log({name: audio}, step=step)

    def figure(self, name, figure, step):
        """Log a figure of matplotlib."""
        self.run.log({name: self.wandb.Image(figure)}, step=step)


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

    def __init__(
        self,
        sinks,
        folder,
        data_folder,
        sample_rate,
        loop_noise=False,
        every=10,
        count=2,
    ):
        self.makers, self.sinks = sinks, None
        self.folder, self.data_folder = Path(folder), data_folder
        self.sample_rate, self.loop_noise = sample_rate, loop_noise
        self.every, self.count = every, count
        self.examples = []

    def start(self):
        """Open the sinks; read the examples."""
        self.sinks = [make(folder=self.folder) for make in self.makers]
        mixtures = load_manifest(self.folder / "valid_mixtures.csv", self.data_folder)
        found = evaluation_set(mixtures, self.sample_rate, self.loop_noise)
        count = min(self.count, len(found))
        items = [found[i * len(found) // count] for i in range(count)]
        self.examples = [item for item in items if item["sources"] is not None]

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
        if not self.makers:
            return
        if self.sinks is None:
            self.start()
        scalars = {
            tag(name): float(value)
            for name, value in row.items()
            if isinstance(value, Number) and np.isfinite(value)
        }
        for sink in self.sinks:
            sink.scalars(scalars, server_round)
        if server_round == 1 or server_round % self.every == 0:
            for item in self.examples:
                self.show(item, brain, server_round)

    def show(self, item, brain, server_round):
        """Send the signals and spectrograms of one example."""
        signals = example_signals(brain, item)
        figure = spectrograms(signals, self.sample_rate)
        for sink in self.sinks:
            for kind, signal in signals.items():
                name = f"{item['id']}/{kind}"
                sink.audio(name, signal, self.sample_rate, server_round)
            sink.figure(f"{item['id']}/spectrogram", figure, server_round)


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
