"""Mixtures of mixtures: the training examples of FedEnhance, and its fixed test sets.

A client holds noisy recordings (speech + noise) and isolated noise recordings. One
training example is a noisy recording plus one isolated noise drawn from the same client
(Tzinis et al., "Separate But Together", WASPAA 2021, section 2.1).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedenhance.data.audio import read_segment
from fedenhance.data.manifests import example_generator, is_isolated_noise
from fedenhance.data.opening import DamagedAudioError, warn_once

logger = logging.getLogger(__name__)


def input_snr(speech, noise):
    """Signal-to-noise ratio of a mixture whose parts are known.

    Arguments
    ---------
    speech, noise : torch.Tensor
        Waveforms, ``(time,)``.

    Returns
    -------
    float
        In dB; infinite where one of them is silent, NaN where both are.

    Example
    -------
    >>> round(input_snr(torch.ones(4), torch.full((4,), 0.1)), 4)
    20.0
    """
    ratio = speech.square().mean() / noise.square().mean()
    return float(10 * torch.log10(ratio))


def gain_for_snr(speech, noise, snr):
    """Gain of the noise that puts the speech at a signal-to-noise ratio.

    Arguments
    ---------
    speech, noise : torch.Tensor
        Waveforms, ``(time,)``.
    snr : float
        Wanted ratio of powers, in dB.

    Returns
    -------
    float
        The gain; 1 where either signal is silent, and no ratio exists.

    Example
    -------
    >>> gain_for_snr(torch.tensor([0.1, -0.1]), torch.tensor([1.0, 1.0]), snr=-20.0)
    1.0
    """
    present = input_snr(speech, noise)
    return 10 ** ((present - snr) / 20) if math.isfinite(present) else 1.0


def stack_sources(signals, gains, num_samples):
    """Scale the signals that are there and stack them; silence for the others.

    Arguments
    ---------
    signals : list of torch.Tensor or None
        Waveforms, ``(time,)``.
    gains : list of float
    num_samples : int

    Returns
    -------
    torch.Tensor
        ``(source, time)``, each row of zero mean, so that mixtures have none either.
    """
    rows = [
        torch.zeros(num_samples) if signal is None else gain * (signal - signal.mean())
        for signal, gain in zip(signals, gains, strict=True)
    ]
    return torch.stack(rows)


@dataclass(eq=False)
class MixtureOfMixtures:
    """Draws the sources of one training example, anew in every epoch.

    The result has three rows: speech, its noise, and the extra noise. Their sum is the
    network's input; rows 0 + 1 are the client's noisy recording and row 2 its isolated
    noise, the two mixtures of MixIT. Where a recording's clean parts are unknown, row 0
    holds the noisy recording itself and row 1 is silent: the mixtures are the same.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    segment : float
        Length of an example in seconds; longer recordings are cropped at random. None:
        set before the first drawing.
    p_single_mix : float
        Probability that one of the two mixtures is left silent; each of them equally
        often.
    snr_range : list of two float or None
        Each noise is scaled to a ratio drawn uniformly from this range of dB, relative
        to the speech (to the noisy recording where the speech is unknown).
        ``None``: levels as recorded, as in the paper.
    loop_noise : bool
        Noises shorter than the segment are repeated instead of padded with zeros.
    seed : int
    augment : Callable, optional
        ``(waveform, generator) -> waveform``, applied to each signal before its gain,
        see ``fedenhance.data.augmentation``.

    Example
    -------
    >>> import numpy
    >>> from fedenhance.data.audio import Segment
    >>> path = getfixture("tmp_path") / "packed.npy"
    >>> numpy.save(path, numpy.arange(8, dtype=numpy.int16))
    >>> draw = MixtureOfMixtures(sample_rate=4, segment=1.0)
    >>> speech, noise = Segment(path, 0, 4), Segment(path, 4, 8)
    >>> draw("id", speech, noise, None, pool=[noise]).shape
    torch.Size([3, 4])
    """

    sample_rate: int = 16000
    segment: float | None = 4.0
    p_single_mix: float = 0.0
    snr_range: tuple | None = None
    loop_noise: bool = False
    seed: int = 0
    augment: Callable | None = None

    def __post_init__(self):
        if self.segment is not None and self.segment <= 0:
            raise ValueError(
                f"segment must be positive, in seconds, not {self.segment}"
            )
        if not 0 <= self.p_single_mix <= 1:
            raise ValueError(
                f"p_single_mix must lie in [0, 1], not {self.p_single_mix}"
            )
        if self.snr_range is not None:
            try:
                low, high = map(float, self.snr_range)
            except (TypeError, ValueError):
                low, high = 1.0, 0.0
            if not low <= high:
                raise ValueError(
                    "snr_range must be null or [low, high] in dB, not "
                    f"{self.snr_range!r}"
                )
        # Reading processes that outlive an epoch see what is written here.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def num_samples(self):
        """int: samples of an example."""
        return round(self.segment * self.sample_rate)

    @property
    def epoch(self):
        """int: which of the endlessly many drawings of each example to give."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch):
        self._epoch.fill_(epoch)

    def __call__(self, example_id, speech, noise, noisy, pool):
        """Draw one example.

        Arguments
        ---------
        example_id : str
            The recording; with the seed and ``epoch`` it fixes every draw.
        speech, noise, noisy : Segment or None
            Either speech and noise, or noisy.
        pool : list of Segment
            The client's isolated noises; empty: the third row is silent.

        Returns
        -------
        torch.Tensor
            ``(3, time)``.

        Raises
        ------
        DamagedAudioError
            Where a file cannot be read.
        """
        generator = example_generator(self.seed, self.epoch, example_id)
        position = generator.random()
        first = self._read(speech or noisy, position)
        second = self._read(noise, position, self.loop_noise)
        extra = self._read_any(pool, generator)
        if self.augment is not None:
            first, second, extra = (
                None if signal is None else self.augment(signal, generator)
                for signal in (first, second, extra)
            )
        # A recording is what it is: its level does not change from epoch to epoch.
        recording = example_generator(self.seed, example_id)
        gains = [
            1.0,
            self._gain(first, second, recording),
            self._gain(first, extra, generator),
        ]
        if generator.random() < self.p_single_mix:
            if generator.random() < 0.5:
                first = second = None
            else:
                extra = None
        return stack_sources([first, second, extra], gains, self.num_samples)

    def _read(self, segment, position, loop=False):
        if segment is None:
            return None
        return read_segment(
            *segment, self.sample_rate, self.num_samples, position, loop
        )

    def _read_any(self, pool, generator, attempts=20):
        """One noise of the pool; a damaged one is passed over for another."""
        for attempt in range(attempts if pool else 0):
            segment = pool[generator.randrange(len(pool))]
            try:
                return self._read(segment, generator.random(), self.loop_noise)
            except DamagedAudioError as error:
                warn_once(logger, f"a noise is passed over: {error}")
                if attempt == attempts - 1:
                    raise

    def _gain(self, speech, noise, generator):
        if self.snr_range is None or noise is None:
            return 1.0
        return gain_for_snr(speech, noise, generator.uniform(*self.snr_range))


def fixed_mixtures(rows, mixing, seed=0, size=None, noises=()):
    """The mixtures a model is validated or tested on: written down, never drawn again.

    Every noisy recording gives one mixture as it is, with one noise (``<id>-1``), and
    one with an isolated noise added (``<id>-2``). Where its clean parts are unknown
    there is only the second, to be judged by MixIT.

    Arguments
    ---------
    rows : dict
        Id -> row of one split, see ``fedenhance.data.manifests``.
    mixing : MixtureOfMixtures
        Of the experiment. With its ``snr_range``, gains are found and written into the
        rows.
    seed : int
    size : int or None
        Number of recordings, spread evenly over the split. ``None``: all.
    noises : sequence of Segment
        Noises that may be added, beside those of the split. Damaged ones are not.

    Returns
    -------
    dict
        Id -> row with ``speech``, ``noise``, ``noisy``, ``extra``, ``noise_gain``,
        ``extra_gain``, ``n_noises``.

    Raises
    ------
    ValueError
        If the split has no isolated noise to add that can be read.
    """
    recordings = [key for key, row in rows.items() if not is_isolated_noise(row)]
    pool = [row for row in rows.values() if is_isolated_noise(row)]
    pool += [{"noise": segment} for segment in noises]
    longest = max(float(row["duration"]) for row in rows.values())
    if size is not None and size < len(recordings):
        recordings = [recordings[i * len(recordings) // size] for i in range(size)]
    mixtures = {}
    for key in recordings:
        row = rows[key]
        draws = example_generator(seed, "fixed", key)
        extra = _draw_usable(pool, draws, mixing, longest)
        for n_noises in (1, 2) if row["speech"] else (2,):
            added = extra if n_noises == 2 else {"noise": None}
            mixture = {
                "duration": row["duration"],
                "spk_id": row["spk_id"],
                "noise_class": row.get("noise_class", ""),
                "extra_class": added.get("noise_class", ""),
                "n_noises": n_noises,
                "group": "supervised" if row["speech"] else "unsupervised",
                **{name: row[name] for name in ("speech", "noise", "noisy")},
                "extra": added["noise"],
                "noise_gain": 1.0,
                "extra_gain": 1.0,
            }
            if mixing.snr_range is not None:
                generator = example_generator(seed, "gain", key)
                mixture |= _fixed_gains(mixture, mixing, longest, generator)
            mixtures[f"{key}-{n_noises}"] = mixture
    return mixtures


def _draw_usable(pool, generator, mixing, seconds):
    """One noise of a pool, from which what is damaged in a noise folder is removed."""
    while pool:
        extra = pool[generator.randrange(len(pool))]
        if "spk_id" in extra:  # of a manifest: what is damaged is left out and counted
            return extra
        num_samples = round(seconds * mixing.sample_rate)
        try:
            read_segment(*extra["noise"], mixing.sample_rate, num_samples)
            return extra
        except DamagedAudioError as error:
            warn_once(logger, f"a noise is passed over: {error}")
            pool.remove(extra)
    raise ValueError(
        "a split for evaluation has no isolated noises to add: give it rows with noise "
        "alone, or set noise_folder"
    )


def _fixed_gains(row, mixing, seconds, generator):
    reading = mixing.sample_rate, round(seconds * mixing.sample_rate)
    gains = {}
    try:
        speech = read_segment(*(row["speech"] or row["noisy"]), *reading)
        for name in ("noise", "extra"):
            snr = generator.uniform(*mixing.snr_range)
            if row[name]:
                noise = read_segment(*row[name], *reading, loop=mixing.loop_noise)
                gains[f"{name}_gain"] = gain_for_snr(speech, noise, snr)
    except DamagedAudioError:
        pass  # the mixture is left out, and the file named, when it is read
    return gains


def read_fixed_mixture(row, sample_rate, loop_noise=False):
    """The sources of one fixed mixture.

    Arguments
    ---------
    row : dict
        As :func:`fixed_mixtures` makes them; its gains are 1 if they are absent. Or a
        recording ``noisy`` and its clean ``speech``: the noise is the difference.
    sample_rate : int
        In Hz.
    loop_noise : bool
        Repeat short noises instead of padding them.

    Returns
    -------
    torch.Tensor
        ``(3, time)``: speech (or the noisy recording), its noise, the extra noise.
    """
    num_samples = round(float(row["duration"]) * sample_rate)
    signals = [
        segment and read_segment(*segment, sample_rate, num_samples, loop=loop)
        for segment, loop in (
            (row["speech"] or row["noisy"], False),
            (row["noise"], loop_noise),
            (row["extra"], loop_noise),
        )
    ]
    if row["speech"] and row["noisy"]:
        recording = read_segment(*row["noisy"], sample_rate, num_samples)
        signals[1] = recording - signals[0]
    gains = [float(row.get(name) or 1) for name in ("noise_gain", "extra_gain")]
    return stack_sources(signals, [1.0, *gains], num_samples)
