"""Reading parts of audio files: any rate, any format, only the frames needed."""

import functools
import math
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio

PACKED_RATE = 16_000
"""Sample rate of packed ``.npy`` audio, in Hz (see ``recipes/LibriFSD50K``)."""

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".npy"}


class DamagedAudioError(Exception):
    """A file that cannot be read as the manifest says; the message names it."""


class Segment(NamedTuple):
    """Part of an audio file, in frames of the file's own sample rate."""

    path: str
    start: int
    stop: int


@functools.lru_cache(maxsize=64)
def _packed(path):
    return np.load(path, mmap_mode="r")


@functools.lru_cache(maxsize=16)
def _resampler(source_rate, target_rate):
    return torchaudio.transforms.Resample(source_rate, target_rate)


def _window(start, stop, num_frames, length, position, path):
    """First and last of the ``length`` frames at ``position`` of a segment."""
    stop = stop if stop > 0 else num_frames
    if not 0 <= start < stop <= num_frames:
        raise DamagedAudioError(
            f"{path}: has {num_frames} frames, not a segment from {start} to {stop}"
        )
    start += round(max(0, stop - start - length) * position)
    return start, min(stop, start + length)


def _read_frames(path, start, stop, seconds, position):
    """Read a window of a segment; return float32 frames and the file's rate."""
    if str(path).endswith(".npy"):
        packed = _packed(str(path))
        length = math.ceil(seconds * PACKED_RATE)
        first, last = _window(start, stop, len(packed), length, position, path)
        return packed[first:last].astype(np.float32) / 32768, PACKED_RATE
    with soundfile.SoundFile(path) as file:
        length = math.ceil(seconds * file.samplerate)
        first, last = _window(start, stop, file.frames, length, position, path)
        file.seek(first)
        frames = file.read(last - first, dtype="float32", always_2d=True).mean(1)
        if len(frames) < last - first:
            raise DamagedAudioError(f"{path}: ends before frame {last}")
        return frames, file.samplerate


def read_segment(path, start, stop, sample_rate, num_samples, position=0.0, loop=False):
    """Read part of an audio file at the wanted rate and length.

    Only the frames that are needed are read. Several channels are averaged.

    Arguments
    ---------
    path : str or Path
        Any file that libsndfile reads, or ``.npy`` with int16 samples at 16 kHz, which
        is mapped into memory.
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
        If the file is missing, is not audio, or ends before the segment does.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tone.wav"
    >>> soundfile.write(path, [0.5, 0.25], 8000)
    >>> read_segment(path, 0, 0, sample_rate=8000, num_samples=4, loop=True)
    tensor([0.5000, 0.2500, 0.5000, 0.2500])
    """
    seconds = Fraction(num_samples, sample_rate)
    try:
        frames, rate = _read_frames(path, start, stop, seconds, position)
    except (OSError, EOFError, soundfile.SoundFileError, ValueError) as error:
        raise DamagedAudioError(f"{path}: {error}") from error
    signal = torch.from_numpy(frames)
    if rate != sample_rate:
        signal = _resampler(rate, sample_rate)(signal)
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
        Whole files; empty for ``None``.
    """
    if folder is None:
        return []
    files = [p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES]
    if not files:
        raise FileNotFoundError(f"no audio files below noise_folder {folder}")
    return [Segment(str(path), 0, 0) for path in sorted(files)]
