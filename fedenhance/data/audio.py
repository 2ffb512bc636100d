"""Reading parts of audio files: any rate, any format, only the frames needed."""

import functools
import logging
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fedenhance.data.folders import count_reasons, find_files
from fedenhance.data.opening import (
    DamagedAudioError,
    naming,
    open_audio,
    read_frames,
    read_header,
    warn_once,
)
from fedenhance.run_folder.torchaudio_fits import let_torchaudio_load

logger = logging.getLogger(__name__)

PACKED_RATE = 16_000
"""Sample rate of packed ``.npy`` audio, in Hz (see ``recipes/LibriFSD50K``)."""


class Segment(NamedTuple):
    """Part of an audio file, in frames of the file's own sample rate."""

    path: str
    start: int
    stop: int


def seconds_of(path, start, stop):
    """Length of part of an audio file in seconds; arguments as :func:`read_segment`.

    Raises
    ------
    DamagedAudioError
        If the file cannot be read, or ends before the part does.
    """
    if str(path).endswith(".npy"):
        frames, rate = len(_packed(str(path))), PACKED_RATE
    else:
        frames, rate, _ = read_header(path)
    first, last = _window(start, stop, frames, frames, 0, path)
    return (last - first) / rate


def rate_ratio(rate, sample_rate, path):
    """Ratio of a file's rate to another, in terms for which there is a filter.

    In lowest terms a ratio of odd rates needs a filter of gigabytes. For the usual
    rates, that in terms of up to 1000 is the same.

    Returns
    -------
    Fraction

    Raises
    ------
    DamagedAudioError
        If the ratio is no rate's.

    Example
    -------
    >>> rate_ratio(44100, 16000, "a.wav")
    Fraction(441, 160)
    """
    ratio = Fraction(rate, sample_rate).limit_denominator(1000)
    if not 0 < ratio.numerator <= 64_000:
        raise DamagedAudioError(path, f"damaged: a sample rate of {rate} Hz")
    return ratio


@functools.lru_cache(maxsize=64)
def _packed(path):
    if not os.path.isfile(path):
        raise DamagedAudioError(path, "missing file")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy parses the header as Python
        raise DamagedAudioError(path, f"damaged: {error}") from error
    if array.dtype != np.int16 or array.ndim != 1:
        kind = f"{array.dtype}, of shape {array.shape}"
        raise DamagedAudioError(path, f"holds {kind}, not int16, of (samples,)")
    return array


@functools.lru_cache(maxsize=16)
def resampler(ratio):
    """Return what resamples waveforms; nothing is imported where nothing is to be done.

    Arguments
    ---------
    ratio : Fraction
        The rate that there is over the one that is wanted.

    Returns
    -------
    torch.nn.Module
        ``(..., time)`` to ``(..., time)``.
    """
    if ratio == 1:
        return torch.nn.Identity()
    let_torchaudio_load()
    import torchaudio

    return torchaudio.transforms.Resample(*ratio.as_integer_ratio())


def _window(start, stop, num_frames, length, position, path):
    """First and last of the ``length`` frames at ``position`` of a segment."""
    stop = stop if stop > 0 else num_frames
    if not 0 <= start < stop <= num_frames:
        raise DamagedAudioError(
            path, f"has {num_frames} frames, not a segment from {start} to {stop}"
        )
    start += round(max(0, stop - start - length) * position)
    return start, min(stop, start + length)


def _read_window(path, start, stop, seconds, position):
    """Read a window of a segment; return float32 frames and the file's rate."""
    if str(path).endswith(".npy"):
        packed = _packed(str(path))
        length = math.ceil(seconds * PACKED_RATE)
        first, last = _window(start, stop, len(packed), length, position, path)
        return packed[first:last].astype(np.float32) / 32768, PACKED_RATE
    with open_audio(path) as file:
        length = math.ceil(seconds * file.samplerate)
        first, last = _window(start, stop, file.frames, length, position, path)
        with naming(path):
            file.seek(first)
        frames = read_frames(file, last - first, path).mean(1)
        if len(frames) < last - first:
            raise DamagedAudioError(path, f"cut short: ends before frame {last}")
        return frames, file.samplerate


def read_segment(path, start, stop, sample_rate, num_samples, position=0.0, loop=False):
    """Read part of an audio file at the wanted rate and length.

    Only the frames that are needed are read. Several channels are averaged.

    Arguments
    ---------
    path : str or Path
        Any file that :func:`open_audio` opens, or ``.npy`` with int16 samples at 16
        kHz, which is mapped into memory.
    start, stop : int
        Frames at the file's own rate; ``stop=0`` is the end of the file.
    sample_rate : int
        Wanted rate in Hz; files of another rate are resampled.
    num_samples : int
        Wanted length. A longer segment is cropped, a shorter one padded with zeros.
    position : float
        Where a longer segment is cropped, from 0 (its start) to 1 (its end).
    loop : bool
        Repeat a shorter segment instead of padding it.

    Returns
    -------
    torch.Tensor
        float32, ``(num_samples,)``.

    Raises
    ------
    DamagedAudioError
        If the file is missing or damaged, or ends before the segment does.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "tone.wav"
    >>> soundfile.write(path, [0.5, 0.25], 8000)
    >>> read_segment(path, 0, 0, sample_rate=8000, num_samples=4, loop=True)
    tensor([0.5000, 0.2500, 0.5000, 0.2500])
    """
    if num_samples < 1:  # of a recording whose length could not be read
        raise DamagedAudioError(path, "damaged: its length is unknown")
    seconds = Fraction(num_samples, sample_rate)
    frames, rate = _read_window(path, start, stop, seconds, position)
    signal = torch.from_numpy(frames)
    if rate != sample_rate:
        signal = resampler(rate_ratio(rate, sample_rate, path))(signal)
    if loop and 0 < len(signal) < num_samples:
        signal = signal.repeat(-(-num_samples // len(signal)))
    signal = signal[:num_samples]
    return torch.nn.functional.pad(signal, (0, num_samples - len(signal)))


def noise_files(folder):
    """Every audio file below a folder, in a stable order.

    Arguments
    ---------
    folder : str or Path or None

    Returns
    -------
    list of Segment
        Whole files; empty for ``None``. What was left out is logged.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"noise_folder: there is no folder {folder}")
    files, left_out = find_files(folder, others={".npy"})
    told = f": {count_reasons(left_out)}" if left_out else ""
    if not files:
        raise FileNotFoundError(f"no audio files below noise_folder {folder}{told}")
    for path, reason in left_out[:10]:
        warn_once(logger, f"left out {Path(folder) / path}: {reason}")
    if left_out:
        warn_once(logger, f"noise_folder {folder}{told}")
    return [Segment(str(Path(folder) / path), 0, 0) for path in files]
