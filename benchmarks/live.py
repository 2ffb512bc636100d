#!/usr/bin/env python
"""How long a block takes live, and how much later a sample is heard.

    python -m benchmarks.live                # the model that comes along, and a smaller
    python -m benchmarks.live --quick        # a trial

Blocks of 16 ms are given one by one, as ``fedenhance live`` gets them. The real-time
factor is the time of computing a block over its length. A click is followed, in the sum
of all sources, to see by how many samples the output is late; to this a block, which
has to be full first, and the time of computing add: that is ``heard_after_ms``, of 99
blocks in 100. Sound cards come on top of it. The weights of the Sudo rm -rf are random.
"""

import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import COMMITTED, measuring
from benchmarks.models import SAMPLE_RATE, build_ours
from fedenhance.deploy.blocks import Blocks, Kept, OnnxBlocks
from fedenhance.deploy.export import export_blocks
from fedenhance.deploy.streaming import StreamingSeparator
from fedenhance.deploy.trained import Trained, load_trained

MILLISECONDS = 16
SHIPPED = "pretrained/gtcrn"


def models():
    """Trained models by name."""
    small, _ = build_ours("sudormrf_causal_small")
    small = Trained(small.eval(), None, SAMPLE_RATE, {})
    return {SHIPPED: load_trained(None), "sudormrf_causal_small": small}


def runtimes(name, trained, folder):
    """Yield what runs a model block by block, with its name."""
    yield "PyTorch", Blocks(trained, MILLISECONDS / 1000)
    plain = Blocks(trained, MILLISECONDS / 1000)
    plain.stream = StreamingSeparator(trained.separator)
    yield "PyTorch, not traced", plain
    if name == SHIPPED and all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        path = Path(folder) / "live.onnx"
        with warnings.catch_warnings(action="ignore"):  # of PyTorch, on its own code
            export_blocks(None, path, MILLISECONDS)
        yield "onnxruntime", OnnxBlocks(path)


def lateness(blocks):
    """Samples from a click to the same click in what comes out."""
    signal = np.zeros(20 * blocks.block, np.float32)
    signal[10 * blocks.block] = 0.5
    own, blocks.keep = blocks.keep, Kept(1.0, None, blocks.sample_rate)
    heard = [blocks.push(part) for part in signal.reshape(-1, blocks.block)]
    blocks.keep = own
    return int(np.abs(np.concatenate(heard)).argmax() - signal.argmax())


def measure(blocks, count, clock):
    """A row on one runtime of one model."""
    late = lateness(blocks)
    generator = np.random.default_rng(0)
    noise = 0.1 * generator.standard_normal((count, blocks.block)).astype(np.float32)
    seconds = [
        measuring.seconds_of(lambda part=part: blocks.push(part), clock)
        for part in noise
    ]
    length = blocks.block / blocks.sample_rate
    stated = 1000 * (blocks.block + blocks.delay) / blocks.sample_rate
    slow = float(np.quantile(seconds, 0.99))
    return {
        "block_ms": 1000 * length,
        "ms_a_block": 1000 * float(np.mean(seconds)),
        "ms_of_the_slowest": 1000 * slow,
        "real_time_factor": float(np.mean(seconds)) / length,
        "stated_latency_ms": stated,
        "heard_after_ms": 1000 * (length + late / blocks.sample_rate + slow),
    }


def main(argv=None):
    """Measure, print and write ``live.csv``."""
    made = measuring.parser(__doc__, out=COMMITTED)
    made.add_argument("--blocks", type=int, default=1000)
    args = measuring.parse(made, argv, quick={"blocks": 20})
    clock, rows = measuring.begin(args), []
    for name, trained in models().items():
        with tempfile.TemporaryDirectory() as folder:
            for runtime, blocks in runtimes(name, trained, folder):
                found = measure(blocks, args.blocks, clock)
                rows.append({"model": name, "runtime": runtime, **found})
    measuring.report(args, "live", rows)


if __name__ == "__main__":
    main()
