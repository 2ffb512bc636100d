"""DNSMOS P.835: how good speech, background and all of it sound, without a reference.

Reddy, Gopal and Cutler, "DNSMOS P.835: a non-intrusive perceptual objective speech
quality metric to evaluate noise suppressors", ICASSP 2022. The network is that of the
package ``speechmos``, which carries it; onnxruntime runs it, many windows at once.

Recordings are brought to -30 LUFS first, as the CHiME-7 UDASE task does (Leglaive et
al., "The CHiME-7 UDASE task", CHiME 2023): the scores depend on the level, and a model
should not be praised for being louder.
"""

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

RATE = 16_000
WINDOW = 144_160
"""Samples that the network takes: 9.01 s; what is shorter is repeated."""

NAMES = ("sig", "bak", "ovrl")
POLYNOMIALS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)
"""From the network's outputs to opinion scores, by name."""

PACKAGES = ("speechmos", "onnxruntime")
LOUDNESS = -30.0
"""LUFS."""

ABSOLUTE_GATE = 10 ** ((-70 + 0.691) / 10)
"""Power of a block that counts as silent, -70 LUFS."""


def dnsmos(signals, sample_rate=RATE, hop=1.0, batch_size=8):
    """Scores of many signals.

    Arguments
    ---------
    signals : iterable of numpy.ndarray
        Waveforms, ``(time,)``, of any level.
    sample_rate : int
        16000 Hz.
    hop : float
        Seconds from one window of a long recording to the next; 1 as published. A core
        scores 30 s of audio a second where no windows overlap.
    batch_size : int
        Windows that are scored together.

    Returns
    -------
    list of dict
        ``sig``, ``bak`` and ``ovrl`` of each, from 1 to 5; NaN where it is silent.

    Raises
    ------
    ValueError
        At any other sample rate.
    """
    if sample_rate != RATE:
        raise ValueError(f"DNSMOS needs 16000 Hz, not {sample_rate} Hz")
    windows, owners = [], []
    count = 0
    for count, signal in enumerate(signals, start=1):
        if np.any(signal):
            own = windows_of(at_loudness(signal, LOUDNESS, RATE), hop)
            windows += own
            owners += [count - 1] * len(own)
    raw = [
        network().run(None, {"input_1": np.stack(windows[i : i + batch_size])})[0]
        for i in range(0, len(windows), batch_size)
    ]
    raw = np.concatenate(raw) if raw else np.zeros((0, 3))
    scores = np.stack([np.polyval(p, raw[:, i]) for i, p in enumerate(POLYNOMIALS)], 1)
    owners = np.array(owners, int)
    means = [
        scores[owners == i].mean(0) if (owners == i).any() else np.full(3, np.nan)
        for i in range(count)
    ]
    return [dict(zip(NAMES, map(float, mean), strict=True)) for mean in means]


def windows_of(signal, hop):
    """Windows of a signal, which is doubled until it fills one, as in ``speechmos``.

    Example
    -------
    >>> [len(windows_of(np.ones(16000 * s), hop=1.0)) for s in (2, 10, 11, 12)]
    [7, 1, 2, 3]
    """
    signal = np.asarray(signal, np.float32)
    while len(signal) < WINDOW:
        signal = np.append(signal, signal)
    # As published: whole seconds count, and 9.01 of them are a window.
    count = int(len(signal) // RATE - WINDOW / RATE) + 1
    steps = range(0, count, max(1, round(hop)))
    starts = [step * RATE for step in steps]
    return [
        signal[start : start + WINDOW]
        for start in starts
        if start + WINDOW <= len(signal)
    ]


@functools.cache
def network():
    """Load the network once; one thread, for there are several processes."""
    import onnxruntime

    (folder,) = importlib.util.find_spec("speechmos").submodule_search_locations
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(folder) / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def at_loudness(signal, target, sample_rate):
    """Scale a signal to a loudness; where that clips, to a peak of 1.

    Arguments
    ---------
    signal : numpy.ndarray
        ``(time,)``.
    target : float
        In LUFS.
    sample_rate : int

    Returns
    -------
    numpy.ndarray
        ``(time,)``.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 997 * np.arange(16000) / 16000)
    >>> round(loudness(at_loudness(tone, -30.0, 16000), 16000), 6)
    -30.0
    """
    signal = np.asarray(signal, np.float64)
    signal = signal / np.abs(signal).max()  # or the gates would silence it
    scaled = signal * 10 ** ((target - loudness(signal, sample_rate)) / 20)
    return scaled / max(1.0, np.abs(scaled).max())


def loudness(signal, sample_rate):
    """Integrated loudness in LUFS (ITU-R BS.1770-4), of one channel.

    Arguments
    ---------
    signal : numpy.ndarray
        ``(time,)``, not silent. Shorter than 0.4 s, it is one block.
    sample_rate : int

    Returns
    -------
    float

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
    >>> round(loudness(tone, 48000), 2)  # as the recommendation says of this tone
    -3.01
    """
    weighted = signal
    for numerator, denominator in k_weighting(sample_rate):
        weighted = lfilter(numerator, denominator, weighted)
    size, step = round(0.4 * sample_rate), round(0.1 * sample_rate)
    power = np.cumsum(np.concatenate([[0.0], weighted**2]))
    size = min(size, len(signal))
    starts = np.arange(0, len(signal) - size + 1, step)
    blocks = (power[starts + size] - power[starts]) / size
    if (heard := blocks[blocks >= ABSOLUTE_GATE]).size:
        blocks = heard[heard >= heard.mean() / 10]
    return -0.691 + 10 * math.log10(max(blocks.mean(), 1e-20))


@functools.cache
def k_weighting(sample_rate):
    """The two filters of BS.1770 at any rate: a shelf for the head, then a high pass.

    Their analogue prototypes are those that give the recommendation's coefficients at
    48 kHz.

    Returns
    -------
    list of (numpy.ndarray, numpy.ndarray)
        Numerators and denominators.
    """
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    shelf = [high + middle * k / q + k * k, 2 * (k * k - high)]
    shelf += [high - middle * k / q + k * k]
    filters = [(np.array(shelf), np.array(_pole_pair(k, q)))]
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    poles = np.array(_pole_pair(k, q))
    filters += [(np.array([1.0, -2.0, 1.0]), poles / poles[0])]
    return [(top / bottom[0], bottom / bottom[0]) for top, bottom in filters]


def _pole_pair(k, q):
    return [1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k]
