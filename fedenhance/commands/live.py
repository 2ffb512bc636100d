"""Enhance speech while it arrives: from a microphone, or from a pipe.

    fedenhance live                                # microphone to speakers
    fedenhance live results/live
    fedenhance live live.onnx --raw s16 < noisy.raw > clean.raw
    ffmpeg -i call.mp3 -f s16le -ac 1 -ar 16000 - | fedenhance live results/live \
        --raw s16 | aplay -f S16_LE -r 16000

The model is a run's folder or package whose network is causal (models/gtcrn.yaml,
models/sudormrf_causal_small.yaml), or a file of ``fedenhance export --block``, which
onnxruntime runs several times faster; by default the one that comes along. With
``--raw``, samples without a header go from standard input to standard output, one
channel at the network's rate; what comes out is as long as what went in, and in time
with it. Without, a microphone is heard through the speakers (headphones, rather), by
the package sounddevice. At the end it says how long a block took.
"""

import sys

from fedenhance.__main__ import program
from fedenhance.commands import limits
from fedenhance.run_folder.arguments import Parser, above_zero


def parse(argv):
    """The command line."""
    parser = Parser(prog=program("live"), description=__doc__)
    about = "folder, package or .onnx file (default: the model that comes along)"
    parser.add_argument("model", nargs="?", help=about)
    about = "standard input to output"
    parser.add_argument("--raw", choices=("f32", "s16"), help=about)
    about = "milliseconds (default: 16)"
    parser.add_argument("--block", type=above_zero(float), help=about)
    parser.add_argument("--device", help="of sounddevice (default: the system's)")
    about = "run a model's own code"
    parser.add_argument("--trust", action="store_true", help=about)
    return limits.parse(parser, argv)


def main(argv):
    """Enhance until the input ends."""
    options = parse(argv)
    import torch

    from fedenhance.deploy import live

    torch.set_num_threads(1)  # more wait for one another longer than they compute
    how = options.block, options.trust, options.dry
    blocks = live.open_blocks(options.model, *how)
    timed = live.Timed(blocks)
    sys.stderr.write(f"{timed.latency()}, at {blocks.sample_rate} Hz\n")
    try:
        if options.raw:
            pipe = sys.stdin.buffer, sys.stdout.buffer
            live.filter_raw(timed, *pipe, options.raw)
        else:
            live.run_microphone(timed, options.device)
    except BrokenPipeError:
        sys.stderr.write("whoever read the output has gone\n")
    sys.stderr.write(f"{timed.summary()}\n")
