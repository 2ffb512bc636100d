"""Enhancement of speech while it arrives: from a microphone, or from a pipe.

    python -m fedenhance.deploy.live                        # microphone to speakers
    python -m fedenhance.deploy.live results/live
    python -m fedenhance.deploy.live live.onnx --raw s16 < noisy.raw > clean.raw
    ffmpeg -i call.mp3 -f s16le -ac 1 -ar 16000 - | python -m fedenhance.deploy.live \
        results/live --raw s16 | aplay -f S16_LE -r 16000

The model is a run's folder or package whose network is causal (models/gtcrn.yaml,
models/sudormrf_causal_small.yaml), or a file of ``fedenhance.deploy.export --block``,
which onnxruntime runs several times faster. With ``--raw``, samples without a header
go from standard input to standard output, one channel at the network's rate; what comes
out is as long as what went in, and in time with it. Without, a microphone is heard
through the speakers (headphones, rather), by the package sounddevice. At the end it
says how long a block took.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from fedenhance.deploy.blocks import Blocks, OnnxBlocks
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


def open_blocks(path, milliseconds):
    """Open a folder, package or exported file.

    Arguments
    ---------
    path : Path
    milliseconds : float or None
        Of a block; an exported file has its own.

    Returns
    -------
    fedenhance.deploy.blocks.Blocks or OnnxBlocks
    """
    if path.suffix == ".onnx":
        if milliseconds is not None:
            raise ValueError(f"{path} has blocks of its own: leave --block out")
        return OnnxBlocks(path)
    return Blocks(load_trained(path), (milliseconds or 16) / 1000)


def main(argv=None):
    """Enhance live."""
    parser = argparse.ArgumentParser(
        prog="python -m fedenhance.deploy.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = "folder, package or .onnx file (default: the model that comes along)"
    parser.add_argument("model", type=Path, nargs="?", default="gtcrn", help=about)
    parser.add_argument("--raw", choices=sorted(RAW), help="standard input to output")
    parser.add_argument("--block", type=float, help="milliseconds (default: 16)")
    parser.add_argument("--device", help="of sounddevice (default: the system's)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # more wait for one another longer than they compute
    try:
        timed = Timed(open_blocks(args.model, args.block))
        sys.stderr.write(f"{timed.latency()}, at {timed.blocks.sample_rate} Hz\n")
        if args.raw:
            filter_raw(timed, sys.stdin.buffer, sys.stdout.buffer, args.raw)
        else:
            run_microphone(timed, args.device)
    except BrokenPipeError:
        sys.stderr.write("whoever read the output has gone\n")
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    sys.stderr.write(f"{timed.summary()}\n")


if __name__ == "__main__":
    main()
