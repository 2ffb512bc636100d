#!/usr/bin/env python
"""How busy a GPU is while clients train, and what a step costs.

    python -m benchmarks.gpu --authors DIR       # DIR holds sudo_rm_rf and fedenhance
    python -m benchmarks.gpu steps training --precision bf16
    python -m benchmarks.gpu steps training --compile
    python -m benchmarks.gpu training --no-graphs

Of FedEnhance's full network, in batches of 6 mixtures of 4 s:

``training``
    Examples per second of local training by each code, reading and mixing included,
    and how busy the GPU is, as ``nvidia-smi`` says: the share of time in which any
    kernel ran. The first round is left out.
``steps``
    Seconds of a training step of the network alone, and of the first one, in which
    ``--compile`` compiles the repeated block; the seconds and the number of its
    kernels.

Recordings come again where the corpus is small. It needs a GPU with CUDA.
"""

import gc
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial

import torch

from benchmarks import loops, measuring, models
from benchmarks.rounds import CODES, original_code

SECONDS = 4.0
SAMPLED = "utilization.gpu,memory.used,power.draw"


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, SECTIONS, device="cuda", data=True, authors=True)
    parser.add_argument("--batch_size", type=int, default=6)
    parser.add_argument("--batches", type=int, default=60, help="of each client")
    parser.add_argument("--num_workers", type=int, default=4, help="that read and mix")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="ours alone")
    parser.add_argument("--no-graphs", dest="graphs", action="store_false")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--codes", nargs="+", choices=[*CODES, "original"], help="default: all"
    )
    parser.set_defaults(model="sudormrf_groupcomm")
    quick = {"batches": 10, "repeats": 2}
    args = measuring.parse(parser, argv, SECTIONS, quick)
    if args.codes and "original" in args.codes and not args.authors:
        parser.error("the original needs --authors")
    if suffix(args) and args.codes not in (None, ["ours"]):
        parser.error("--precision, --compile and --no-graphs are for ours alone")
    return args


# ---------------------------------------------------------------------- training


class Watch:
    """Reads nvidia-smi some ten times a second, until it is left.

    Attributes
    ----------
    samples : list of tuple
        ``(time, busy percent, used MiB, W)``, by the clock of the constructor.
    """

    def __init__(self, clock):
        self.clock, self.samples = clock, []

    def __enter__(self):
        card = f"GPU-{torch.cuda.get_device_properties().uuid}"
        command = f"nvidia-smi --query-gpu={SAMPLED} --format=csv,noheader,nounits"
        command += f" --id={card} --loop-ms=100"
        self.process = subprocess.Popen(
            command.split(), stdout=subprocess.PIPE, text=True
        )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            values = [number(cell) for cell in line.split(",")]
            self.samples.append((self.clock(), *values))

    def __exit__(self, *_):
        self.process.terminate()
        self.thread.join()

    def between(self, start, end):
        """Mean of busy percent and W, and the most of MiB, over some time.

        Returns
        -------
        dict
        """
        inside = [sample[1:] for sample in self.samples if start <= sample[0] <= end]
        if not inside:
            return {}
        busy, used, power = zip(*inside, strict=True)
        return {
            "busy_percent": statistics.fmean(busy),
            "used_mib": max(used),
            "watts": statistics.fmean(power),
        }


def number(cell):
    """Read a cell of nvidia-smi, which does not know all of every card.

    Example
    -------
    >>> number(" 90"), number("[N/A]")
    (90.0, nan)
    """
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def training(args, clock):
    """Rows of a table: rounds of two clients by each code."""
    sizes = {"model": args.model, "clients": 2, "seconds": SECONDS}
    sizes |= {"batches": args.batches, "batch_size": args.batch_size}
    sizes["num_workers"] = args.num_workers
    examples = 2 * args.batches * args.batch_size
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        case = replace(
            loops.recordings(args, folder, **sizes, cuda_graphs=args.graphs),
            precision=args.precision,
            compile=args.compile,
        )
        calls = {name: partial(code, case) for name, code in CODES.items()}
        if suffix(args):
            calls = {"ours": calls["ours"]}
        elif args.authors:
            calls["original"] = original_code(args, case, folder, sizes)
        for name in args.codes or calls:
            seconds, seen = watched(calls[name], args.rounds, clock)
            row = {"code": name, "precision": args.precision, "compiled": args.compile}
            row["graphs"] = args.graphs and name in ("ours", "flower")  # a Brain's
            row |= {"seconds": seconds, "examples_per_second": examples / seconds}
            rows.append({**row, **seen})
            measuring.report(args, f"gpu_training{suffix(args)}", rows)


def watched(call, rounds, clock):
    """Run some rounds; their median seconds and what the GPU did, after the first."""
    marks = []

    def note():
        marks.append(clock())
        return marks[-1]

    gc.collect()
    torch.cuda.empty_cache()
    with Watch(time.perf_counter) as watch:
        seconds = statistics.median(call(rounds, note)[1:])
    return seconds, watch.between(marks[1], marks[-1])


def suffix(args):
    """What the name of a table says of precision, compilation and graphs."""
    precision = "" if args.precision == "fp32" else f"_{args.precision}"
    compiled = "_compiled" if args.compile else ""
    return precision + compiled + ("" if args.graphs else "_no_graphs")


# ------------------------------------------------------------------------- steps


def steps(args, clock):
    """Rows of a table: a training step of our network and the authors'."""
    args.seconds, rows = SECONDS, []
    batch = models.make_batch(args)
    for code in ("ours",) if args.compile else ("ours", "authors"):
        network = models.build(args.model, code, args)
        if network is None:
            continue
        step, start = partial(models.train, network, batch, args), clock()
        step()
        first = clock() - start
        found = measuring.median_seconds({code: step}, args.repeats, clock, warm_up=3)
        kernels, launches = kernel_time(step)
        row = {"code": code, "precision": args.precision, "compiled": args.compile}
        row |= {"seconds": found[code], "kernels": launches}
        rows.append({**row, "kernel_seconds": kernels, "first_seconds": first})
    measuring.report(args, f"gpu_steps{suffix(args)}", rows)


def kernel_time(call):
    """Return the seconds in which kernels of a call ran, and how many there were."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        call()
        torch.cuda.synchronize()
    events = profiler.events()
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(e.time_range.elapsed_us() for e in kernels) / 1e6, len(kernels)


SECTIONS = {"training": training, "steps": steps}


def main(argv=None):
    """Run the sections."""
    args = parse(argv)
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: PyTorch finds no GPU here.")
    measuring.run_sections(args, SECTIONS)


if __name__ == "__main__":
    main(sys.argv[1:])
