"""Enhancement of speech while it arrives; ``fedenhance live`` is its command."""

import sys
import time
from pathlib import Path

import numpy as np

from fedenhance.deploy.blocks import Blocks, Kept, OnnxBlocks
from fedenhance.deploy.trained import load_trained

#: Name of raw samples -> their type, and what is 1.0 in it.
RAW = {"s16": (np.dtype("<i2"), 32768.0), "f32": (np.dtype("<f4"), 1.0)}


class Timed:
    """Runs blocks, and notes how long each took.

    Arguments
    ---------
    blocks : fedenhance.deploy.blocks.Blocks or OnnxBlocks
    clock : Callable
        Seconds.
    """

    def __init__(self, blocks, clock=time.perf_counter):
        self.blocks = blocks
        self.clock = clock
        self.seconds = []

    def push(self, samples):
        """Map a block of samples to as many of the speech."""
        began = self.clock()
        speech = self.blocks.push(samples)
        self.seconds.append(self.clock() - began)
        return speech

    def latency(self):
        """State the latency without the time of computing."""
        block, delay = (
            1000 * samples / self.blocks.sample_rate
            for samples in (self.blocks.block, self.blocks.delay)
        )
        return f"latency {block + delay:g} ms: blocks of {block:g}, delay {delay:g}"

    def summary(self):
        """State the real-time factor and the slowest blocks."""
        if not self.seconds:
            return "no whole block came"
        length = self.blocks.block / self.blocks.sample_rate
        mean, slow = np.mean(self.seconds), np.quantile(self.seconds, 0.99)
        return (
            f"{len(self.seconds)} blocks; computing took {1000 * mean:.2f} ms a block "
            f"(99 % below {1000 * slow:.2f}), real-time factor {mean / length:.2f}"
        )


def filter_raw(timed, source, sink, kind):
    """Enhance raw samples of one channel from one stream to another.

    Arguments
    ---------
    timed : Timed
    source, sink : file object
        Binary.
    kind : str
        ``s16`` or ``f32``, little-endian.
    """
    dtype, scale = RAW[kind]
    blocks, received, returned = timed.blocks, 0, 0
    skipped = blocks.delay
    while returned < received or not received:
        data = source.read(blocks.block * dtype.itemsize)
        samples = np.frombuffer(
            data[: len(data) // dtype.itemsize * dtype.itemsize], dtype
        )
        received += len(samples)
        if not received:
            return
        block = np.zeros(blocks.block, np.float32)
        block[: len(samples)] = samples / scale
        speech = timed.push(block)[skipped:]
        skipped = max(0, skipped - blocks.block)
        if len(samples) < blocks.block:  # the end; zeros bring out the rest
            speech = speech[: received - returned]
        returned += len(speech)
        sink.write(to_raw(speech, dtype, scale))
        sink.flush()


def to_raw(speech, dtype, scale):
    """Return samples as bytes; integers are rounded, and clipped, not wrapped."""
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        speech = np.clip(np.rint(speech * scale), limits.min, limits.max)
    return speech.astype(dtype).tobytes()


def run_microphone(timed, device=None):
    """Enhance a microphone's signal until interrupted.

    Arguments
    ---------
    timed : Timed
    device : str or None
        Of sounddevice, for input and output; None: the system's.

    Raises
    ------
    ImportError
        If sounddevice is not installed, or finds no PortAudio.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise ImportError(
            f"sounddevice is needed for a microphone ({error}): pip install "
            "sounddevice, or pipe samples through --raw s16"
        ) from error

    def callback(given, wanted, frames, when, status):
        if status:
            sys.stderr.write(f"{status}\n")
        wanted[:, 0] = timed.push(given[:, 0])

    blocks = timed.blocks
    stream = sounddevice.Stream(
        samplerate=blocks.sample_rate,
        blocksize=blocks.block,
        channels=1,
        dtype="float32",
        latency="low",
        device=device,
        callback=callback,
    )
    with stream:
        given, wanted = stream.latency
        sys.stderr.write(f"devices add {1000 * (given + wanted):.0f} ms; Ctrl-C ends\n")
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return


def open_blocks(model, milliseconds=None, trust=False, dry=None):
    """Open a model, or an exported file.

    Arguments
    ---------
    model : str or None
        ``.onnx`` file of ``fedenhance export --block``, or as for
        :func:`fedenhance.deploy.trained.load_trained`.
    milliseconds : float or None
        Of a block; an exported file has its own.
    trust : bool
        See :func:`fedenhance.deploy.trained.load_trained`.
    dry : float or None
        Share of the mixture that stays in the speech; None: what the model says.

    Returns
    -------
    fedenhance.deploy.blocks.Blocks or OnnxBlocks
    """
    if Path(model or "").suffix == ".onnx":
        if milliseconds is not None:
            raise ValueError(f"{model} has blocks of its own: leave --block out")
        blocks = OnnxBlocks(model)
        if dry is not None:
            blocks.keep = Kept(dry, None, blocks.sample_rate)
        return blocks
    trained = load_trained(model, trust=trust).keeping(dry)
    return Blocks(trained, (milliseconds or 16) / 1000)
