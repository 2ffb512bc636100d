"""Enhancement of recordings of any length and rate, in constant memory.

A recording flows through generators of blocks ``(..., time)``::

    read_blocks -> cut -> separate_pieces -> join

Up to ``piece`` seconds are separated at once: the result is that of the network on the
whole recording. A longer recording is cut into pieces of this length that overlap; the
estimates are faded into each other in the middle of each overlap, away from the pieces'
edges. Most of the networks normalise over all they are given, so that each piece is
normalised by itself and the result is not that of the network on the whole.
"""

import logging
import math
from contextlib import ExitStack
from itertools import islice

import soundfile
import torch

from fedenhance.data.audio import rate_ratio, resampler, seconds_of
from fedenhance.data.folders import (
    FFMPEG_SUFFIXES,
    Skipped,
    count_reasons,
    find_files,
)
from fedenhance.data.opening import DamagedAudioError, open_audio, read_blocks
from fedenhance.run_folder.files import whole_file

logger = logging.getLogger(__name__)

OVERLAP = 2.0
"""Seconds that neighbouring pieces have in common, at least."""

FADE = 1.0
"""Seconds, in the middle of the overlap, in which one piece is faded into the next."""

MIN_PIECE = 3 * OVERLAP
"""Seconds of a piece, at least, so that it has one neighbour at any time."""


def find_recordings(inputs, out):
    """List recordings and where they go.

    Arguments
    ---------
    inputs : list of Path
        Files, and folders that are searched with all they contain, see
        :func:`fedenhance.data.folders.find_files`.
    out : Path
        Folder. Recordings in it are not taken from an input that contains it.

    Returns
    -------
    targets : dict
        Source -> target. A folder's tree is kept below ``out``. What is read through
        ffmpeg is written as WAV: ``talk.m4a`` as ``talk.m4a.wav``.
    left_out : list of Skipped
        What should have been recordings in the folders.

    Raises
    ------
    FileNotFoundError
        If an input does not exist, or is a folder without recordings.
    ValueError
        If two sources have the same target, or a target is a source.
    """
    targets, left_out = {}, []
    for path in inputs:
        if path.is_dir():
            files, others = find_files(path)
            found = [path / name for name in files]
            left_out += [Skipped(str(path / name), why) for name, why in others]
            if out.resolve() != path.resolve():
                found = [p for p in found if out.resolve() not in p.resolve().parents]
            if not found:
                told = f": {count_reasons(others)}" if others else ""
                raise FileNotFoundError(f"there are no recordings in {path}{told}")
            targets.update({source: out / source.relative_to(path) for source in found})
        elif path.exists():
            targets[path] = out / path.name
        else:
            raise FileNotFoundError(f"there is no {path}")
    for source, target in targets.items():
        if source.suffix.lower() in FFMPEG_SUFFIXES:
            targets[source] = target.with_name(f"{target.name}.wav")
    sources, taken = {path.resolve() for path in targets}, {}
    for source, target in targets.items():
        if target.resolve() in sources:
            raise ValueError(f"{target} would be overwritten: give another --out")
        other = taken.setdefault(target.resolve(), source)
        if other.resolve() != source.resolve():
            raise ValueError(
                f"{other} and {source} would both become {target}: enhance them in "
                "two calls with different --out"
            )
    return targets, left_out


def count_seconds(recordings):
    """Seconds of audio in files, as far as they can be read without a conversion."""
    seconds = 0.0
    for path in recordings:
        if path.suffix.lower() in FFMPEG_SUFFIXES:
            continue
        try:
            seconds += seconds_of(path, 0, 0)
        except DamagedAudioError:
            continue  # named when its turn comes
    return seconds


def enhance_file(
    trained, source, targets, piece=40.0, batch_size=1, progress=lambda seconds: None
):
    """Separate a recording; write its first sources as files of the same kind.

    Each channel is separated by itself. The files have the recording's rate, channels,
    length, format and level; they hold nothing above half of the network's rate. They
    appear when they are complete.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained
    source : Path
        Any file that ``fedenhance.data.opening.open_audio`` opens.
    targets : list of Path
        One for each source to write, speech first. Their folder is made.
    piece : float
        Seconds that are separated at once, ``MIN_PIECE`` or more: what memory is
        needed for.
    batch_size : int
        Channels and pieces that are separated together.
    progress : Callable
        Called with each number of seconds that has been written.

    Raises
    ------
    DamagedAudioError
        If the recording is damaged, or of a format that cannot be written; the message
        names it.
    ValueError
        If the pieces are too short, or ``batch_size`` is not positive.
    """
    if piece < MIN_PIECE:
        raise ValueError(f"a piece must be {MIN_PIECE:g} s or more, not {piece:g} s")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    with ExitStack() as stack:
        recording = stack.enter_context(open_audio(source))
        kind = recording.subtype, recording.endian, recording.format
        if not soundfile.check_format(kind[2], *kind[:2]):
            kind = f"{recording.format_info}, {recording.subtype_info}"
            reason = f"files of its kind ({kind}) are only read"
            raise DamagedAudioError(source, reason)
        kind = recording.samplerate, recording.channels, *kind
        ratio = rate_ratio(recording.samplerate, trained.sample_rate, source)
        files = []
        for path in targets:
            partial = stack.enter_context(whole_file(path))
            file = soundfile.SoundFile(partial, "w", *kind)
            files.append(stack.enter_context(file))
        blocks = enhance_blocks(
            (torch.from_numpy(block.T) for block in read_blocks(recording, source)),
            recording.frames,
            ratio,
            trained,
            piece,
            batch_size,
            len(targets),
        )
        peak = 0.0
        for block in blocks:
            peak = max(peak, float(block.abs().max()))
            for file, signal in zip(files, block.unbind(1), strict=True):
                # Encoders of libsndfile fail on long blocks.
                for part in signal.T.split(1 << 16):
                    file.write(part.numpy())
            progress(block.shape[-1] / recording.samplerate)
    if peak > 1 and recording.subtype not in ("FLOAT", "DOUBLE"):
        logger.warning("%s: its estimate is clipped at full scale", source)


def enhance_signal(trained, audio, sample_rate, piece=40.0, batch_size=1):
    """Separate a signal; return its speech, in its shape, rate and kind.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained
    audio : numpy.ndarray or torch.Tensor
        ``(time,)`` or ``(channel, time)``; ``(time, channel)``, as soundfile reads, if
        the first axis is the longer one. Of integers, the level is kept.
    sample_rate : int
        In Hz.
    piece, batch_size
        As for :func:`enhance_file`.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        As the audio: shape, type and device.

    Raises
    ------
    ValueError
        If the audio has other axes, or is not finite.
    """
    signal = torch.as_tensor(audio)
    if signal.dim() not in (1, 2) or signal.is_complex():
        raise ValueError(
            f"audio must be (time,) or (channel, time), not {tuple(signal.shape)}"
        )
    turned = signal.dim() == 2 and signal.shape[0] > signal.shape[1]
    channels = torch.atleast_2d(signal.T if turned else signal).detach().cpu().float()
    if not torch.isfinite(channels).all():
        raise ValueError("audio has samples that are not finite")
    if not channels.numel():
        return audio
    sizes = channels.shape[-1], rate_ratio(sample_rate, trained.sample_rate, "audio")
    blocks = enhance_blocks([channels], *sizes, trained, piece, batch_size, 1)
    speech = torch.cat([block[:, 0] for block in blocks], dim=-1)
    if not signal.is_floating_point():
        limits = torch.iinfo(signal.dtype)
        speech = speech.round().clamp(limits.min, limits.max)
    speech = (speech.T if turned else speech).reshape(signal.shape).to(signal)
    return speech if isinstance(audio, torch.Tensor) else speech.numpy()


def enhance_blocks(blocks, num_frames, ratio, trained, piece, batch_size, num_sources):
    """Separate a signal that is given and returned in blocks.

    Arguments
    ---------
    blocks : Iterable of torch.Tensor
        ``(channel, time)``.
    num_frames : int
        Their frames altogether.
    ratio : Fraction
        The signal's rate over the network's.
    trained : fedenhance.deploy.trained.Trained
    piece : float
        Seconds that are separated at once.
    batch_size : int
        Channels and pieces that are separated together.
    num_sources : int
        Sources to return, speech first.

    Yields
    ------
    torch.Tensor
        ``(channel, source, time)``, ``num_frames`` altogether.
    """
    # Of odd rates an approximation, the same both ways: no drift is left.
    ratio = ratio.limit_denominator(1000)
    rate, step = ratio * trained.sample_rate, ratio.numerator
    length = min(num_frames, round(piece * rate / step) * step)
    starts = piece_starts(num_frames, length, round(OVERLAP * rate), step)
    pieces = cut(blocks, starts, length)
    estimates = separate_pieces(pieces, ratio, trained, batch_size, num_sources)
    left = num_frames
    for block in join(estimates, starts, round(FADE * rate)):
        yield block[..., :left]
        left -= block.shape[-1]


def piece_starts(total, length, overlap, step=1):
    """Where to cut pieces of one length that cover a signal evenly.

    Arguments
    ---------
    total : int
        Frames of the signal.
    length : int
        Frames of a piece.
    overlap : int
        Frames that neighbours have in common, a step or so more or less.
    step : int
        Frames from one instant that a resampled signal has too to the next: the pieces
        start at such, and sound the same where they overlap.

    Returns
    -------
    list of int
        The last piece ends less than a step after the signal.

    Example
    -------
    >>> piece_starts(100, length=40, overlap=10)
    [0, 30, 60]
    >>> piece_starts(40, length=40, overlap=10)
    [0]
    """
    if total <= length:
        return [0]
    last = -(-(total - overlap) // (length - overlap)) - 1
    steps = -(-(total - length) // step)
    return [round(i * steps / last) * step for i in range(last + 1)]


def cut(blocks, starts, length):
    """Cut a signal that is given in blocks into pieces.

    Arguments
    ---------
    blocks : Iterable of torch.Tensor
        ``(..., time)``.
    starts : list of int
        Where the pieces start, ascending.
    length : int
        Frames of each; zeros where the signal has ended.

    Yields
    ------
    torch.Tensor
        ``(..., length)``.

    Example
    -------
    >>> blocks = torch.arange(6).split(2)
    >>> [piece.tolist() for piece in cut(blocks, starts=[0, 3], length=4)]
    [[0, 1, 2, 3], [3, 4, 5, 0]]
    """
    blocks = iter(blocks)
    buffer, position = next(blocks), 0
    for start in starts:
        while (missing := start + length - position - buffer.shape[-1]) > 0:
            block = next(blocks, buffer.new_zeros(*buffer.shape[:-1], missing))
            buffer = torch.cat([buffer, block], dim=-1)
        buffer = buffer[..., start - position :]
        position = start
        yield buffer[..., :length]


def separate_pieces(pieces, ratio, trained, batch_size, num_sources):
    """Separate each channel of each piece, ``batch_size`` of them together.

    Arguments
    ---------
    pieces : Iterable of torch.Tensor
        ``(channel, time)``, all alike.
    ratio : Fraction
        Their rate over the network's.
    trained : fedenhance.deploy.trained.Trained
    batch_size : int
    num_sources : int
        Sources to return.

    Yields
    ------
    torch.Tensor
        ``(channel, source, time)`` for each piece.
    """
    to_network, back = resampler(ratio), resampler(1 / ratio)
    pieces = iter(pieces)
    device = trained.device
    while group := list(islice(pieces, 1)):
        num_channels, length = group[0].shape
        group += islice(pieces, max(batch_size // num_channels, 1) - 1)
        signals = torch.cat(group)
        # Networks that follow the level by themselves take an offset for a sound.
        signals = signals - signals.mean(-1, keepdim=True)
        estimates = [
            back(trained(to_network(mixtures).to(device))[:, :num_sources].cpu())
            for mixtures in signals.split(batch_size)
        ]
        yield from torch.cat(estimates)[..., :length].split(num_channels)


def join(pieces, starts, fade):
    """Fade overlapping pieces into each other.

    Arguments
    ---------
    pieces : Iterable of torch.Tensor
        ``(..., length)``.
    starts : list of int
        Where they start.
    fade : int
        Samples, in the middle of each overlap.

    Yields
    ------
    torch.Tensor
        The signal in blocks, ``(..., time)``.

    Example
    -------
    >>> pieces = [torch.zeros(6), torch.ones(6)]
    >>> torch.cat(list(join(pieces, starts=[0, 4], fade=2)))
    tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.1464, 0.8536, 1.0000, 1.0000, 1.0000,
            1.0000])
    """
    # Complementary in amplitude: the estimates of both pieces are nearly the same.
    rise = torch.sin(math.pi / 2 * (torch.arange(fade) + 0.5) / fade).square()
    position, fading = 0, None
    for piece, start, following in zip(
        pieces, starts, [*starts[1:], None], strict=True
    ):
        piece, end = piece[..., position - start :], start + piece.shape[-1]
        if fading is not None:
            faded = torch.lerp(fading, piece[..., :fade], rise)
            piece = torch.cat([faded, piece[..., fade:]], dim=-1)
        if following is None:
            yield piece
            return
        next_position = (following + end - fade) // 2
        size = next_position - position
        yield piece[..., :size]
        fading = piece[..., size : size + fade]
        position = next_position


def source_names(target, num_sources):
    """Name the files of all sources after that of the recording.

    Arguments
    ---------
    target : Path
    num_sources : int

    Returns
    -------
    list of Path

    Example
    -------
    >>> from pathlib import Path
    >>> [path.name for path in source_names(Path("a.wav"), 3)]
    ['a_speech.wav', 'a_noise1.wav', 'a_noise2.wav']
    """
    names = ["speech", *(f"noise{i}" for i in range(1, num_sources))]
    return [target.with_name(f"{target.stem}_{n}{target.suffix}") for n in names]
