"""Opening audio files, and finding what is damaged about them, for all who read.

A file that is missing, empty, no audio, shorter than its header says or not finite is a
:class:`DamagedAudioError`, which names it.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from fedenhance.data.folders import FFMPEG_SUFFIXES, ffmpeg

BLOCK = 1 << 18
"""Frames that are read at a time where all are read."""

LOUDEST = 1e10
"""Relative to full scale; beyond it, powers are not finite, and the file is damaged."""

UNKNOWN = 1 << 62
"""Frames, or more, of a file that does not know its length."""

_SIZES = re.compile(
    r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)"
)


@functools.cache
def warn_once(logger, message):
    """Warn, unless the same was said before."""
    logger.warning(message)


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
            if file.samplerate < 100:
                reason = f"damaged: a sample rate of {file.samplerate} Hz"
                raise DamagedAudioError(path, reason)
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
            reason = reason.removeprefix(f"file:{os.fspath(path)}: ")
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
