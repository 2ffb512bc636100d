"""Reading audio files: any rate, any format, only the frames needed.

Damage is found here, for all who read: a file that is missing, empty, no audio, shorter
than its header says, not finite, or an array of another kind is a
:class:`DamagedAudioError`, which names it.
"""

import functools
import math
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio
from speechbrain.utils.logger import get_logger

from fedenhance.data.folders import (
    FFMPEG_SUFFIXES,
    count_reasons,
    ffmpeg,
    find_files,
)

logger = get_logger(__name__)

PACKED_RATE = 16_000
"""Sample rate of packed ``.npy`` audio, in Hz (see ``recipes/LibriFSD50K``)."""

BLOCK = 1 << 18
"""Frames that are read at a time where all are read."""

LOUDEST = 1e10
"""Relative to full scale; beyond it, powers are not finite, and the file is damaged."""

UNKNOWN = 1 << 62
"""Frames, or more, of a file that does not know its length."""

_SIZES = re.compile(
    r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
)


class DamagedAudioError(ValueError):
    """A file that cannot be read as it or the manifest says; the message names it.

    Arguments
    ---------
    path : str or Path
    reason : str
    """

    def __init__(self, path, reason):
        super().__init__(str(path), str(reason))
        self.path, self.reason = self.args

    def __str__(self):
        return f"{self.path}: {self.reason}"


class Header(NamedTuple):
    """What an audio file says of itself."""

    frames: int
    sample_rate: int
    channels: int


class Segment(NamedTuple):
    """Part of an audio file, in frames of the file's own sample rate."""

    path: str
    start: int
    stop: int


@contextmanager
def naming(path):
    """Turn what the readers of files raise into a DamagedAudioError of this path."""
    try:
        yield
    except DamagedAudioError:
        raise
    except soundfile.LibsndfileError as error:
        raise DamagedAudioError(path, f"damaged: {error.error_string}") from error
    except OSError as error:
        reason = f"unreadable: {error.strerror or error}"
        raise DamagedAudioError(path, reason) from error
    except (soundfile.SoundFileError, EOFError, TypeError, ValueError) as error:
        raise DamagedAudioError(path, f"damaged: {error}") from error


@contextmanager
def open_audio(path):
    """Open an audio file that holds what its header says.

    Arguments
    ---------
    path : str, Path or file object
        Of any format of libsndfile; or, where there is ffmpeg, of one of
        ``FFMPEG_SUFFIXES``, which is converted to a temporary file first.

    Yields
    ------
    soundfile.SoundFile
        To be read with :func:`read_frames` or :func:`read_blocks`. Of a FLAC whose
        header does not say how long it is, the frames have been counted.

    Raises
    ------
    DamagedAudioError
        If it is missing, empty, shorter than its header says, or no audio.
    """
    with ExitStack() as stack:
        source = path
        with naming(path):
            if isinstance(path, str | os.PathLike):
                if not os.path.exists(path):
                    raise DamagedAudioError(path, "missing file")
                if not os.path.isfile(path):
                    raise DamagedAudioError(path, "not a regular file")
                if os.path.getsize(path) == 0:
                    raise DamagedAudioError(path, "empty file")
                if Path(path).suffix.lower() in FFMPEG_SUFFIXES:
                    source = stack.enter_context(_converted(path))
            file = stack.enter_context(soundfile.SoundFile(source))
            for said, there in _SIZES.findall(file.extra_info):
                # A size near 2**31 or 2**32 is of a writer that could not know it.
                if int(there) < int(said) < 0x7FFFF000:
                    raise DamagedAudioError(path, f"cut short: {there} of {said} bytes")
            if file.frames >= UNKNOWN:
                copy = stack.enter_context(_measured(source, file.format))
                file = stack.enter_context(soundfile.SoundFile(copy))
            if file.frames == 0:
                raise DamagedAudioError(path, "no samples")
        yield file


@contextmanager
def _converted(path):
    """The first audio stream of a file, as WAV in a temporary place."""
    if ffmpeg() is None:
        raise DamagedAudioError(path, "needs ffmpeg, which is not installed")
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "audio.wav")
        command = [ffmpeg(), "-v", "error", "-nostdin", "-xerror"]
        command += ["-protocol_whitelist", "file", "-i", f"file:{os.fspath(path)}"]
        command += ["-map", "0:a:0", "-c:a", "pcm_s16le", "-rf64", "auto", target]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"ffmpeg ended with {done.returncode}"
            raise DamagedAudioError(path, f"damaged: {reason}")
        yield target


@contextmanager
def _measured(path, kind):
    """A temporary copy of a FLAC that does not know its length; the copy does."""
    with open(path, "rb") as file:
        head = bytearray(file.read(26))
    if kind != "FLAC" or head[:4] != b"fLaC":
        raise DamagedAudioError(path, "does not know its length")
    status = os.stat(path)
    frames = _count_frames(path, status.st_size, status.st_mtime_ns)
    head[21] |= frames >> 32  # after 4 bits of the sample size
    head[22:] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copyfile(path, os.path.join(folder, "audio.flac"))
        with open(copy, "r+b") as file:
            file.write(head)
        yield copy


@functools.lru_cache(maxsize=1024)
def _count_frames(path, _size, _time):
    """Count what can be decoded; again, where the file has changed."""
    total, found = 0, BLOCK
    with soundfile.SoundFile(path) as file:
        while found == BLOCK:
            block = np.full((BLOCK, file.channels), np.nan, np.float32)
            # After the last frame it looks for the next one, in vain.
            with suppress(soundfile.LibsndfileError):
                file.read(out=block)
            found = int(np.isfinite(block[:, 0]).sum())
            total += found
    return total


def read_frames(file, count, path):
    """Read the next frames of an open file.

    Arguments
    ---------
    file : soundfile.SoundFile
    count : int
        Frames, at most.
    path : str or Path
        For messages.

    Returns
    -------
    numpy.ndarray
        float32, ``(time, channel)``; empty at the end.

    Raises
    ------
    DamagedAudioError
        If they cannot be decoded, or are not finite.
    """
    with naming(path):
        frames = file.read(count, dtype="float32", always_2d=True)
    if not np.abs(frames).max(initial=0) < LOUDEST:
        raise DamagedAudioError(path, "samples that are not finite, or beyond 1e10")
    return frames


def read_blocks(file, path):
    """Read an open file from its beginning to its end.

    Arguments
    ---------
    file : soundfile.SoundFile
    path : str or Path
        For messages.

    Yields
    ------
    numpy.ndarray
        float32, ``(time, channel)``; ``file.frames`` altogether.

    Raises
    ------
    DamagedAudioError
        As :func:`read_frames`; or if there are fewer frames.
    """
    left = file.frames
    while left:
        frames = read_frames(file, min(BLOCK, left), path)
        if not len(frames):
            raise DamagedAudioError(path, f"cut short: ends before frame {file.frames}")
        left -= len(frames)
        yield frames


def read_header(path):
    """Read the header of an audio file, and see that its last frame is there.

    Arguments
    ---------
    path : str or Path
        As :func:`open_audio` takes it.

    Returns
    -------
    Header

    Raises
    ------
    DamagedAudioError
        As :func:`open_audio`; or if the last frame cannot be read.
    """
    with open_audio(path) as file, naming(path):
        file.seek(file.frames - 1)
        if len(file.read(1, dtype="int16")) != 1:
            raise DamagedAudioError(path, "cut short")
        return Header(file.frames, file.samplerate, file.channels)


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
def _resampler(ratio):
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
        signal = _resampler(rate_ratio(rate, sample_rate, path))(signal)
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
    files, left_out = find_files(folder, others={".npy"})
    told = f": {count_reasons(left_out)}" if left_out else ""
    if not files:
        raise FileNotFoundError(f"no audio files below noise_folder {folder}{told}")
    for path, reason in left_out[:10]:
        logger.warning_once(f"left out {Path(folder) / path}: {reason}")
    if left_out:
        logger.warning_once(f"noise_folder {folder}{told}")
    return [Segment(str(Path(folder) / path), 0, 0) for path in files]
