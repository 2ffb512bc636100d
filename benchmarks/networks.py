"""Time, memory and size of every architecture in hparams/models.

    python -m benchmarks.networks                      # all, on the CPU
    python -m benchmarks.networks sudormrf_groupcomm --authors CHECKOUTS
    python -m benchmarks.networks --device cuda --precision bf16

With ``--authors DIR``, where DIR holds checkouts of github.com/etzinis/sudo_rm_rf,
github.com/etzinis/fedenhance and (with einops) github.com/Xiaobin-Rong/gtcrn, the
authors' networks run beside ours with the same weights, turn by turn, so that a busy
machine slows both.

Times are medians over the repeats; on a machine with other work, ``--clock cpu`` with
one thread counts only the time the processor spends on the network. A training step is
forward and backward, without the optimizer. On a CPU, the peak memory is what a step
adds to the memory of a fresh process; on a GPU, what PyTorch allocates.
"""

import math
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measuring
from benchmarks.models import NAMES, SAMPLE_RATE, build, infer, make_batch, train
from fed.memory import keep_freed_memory

#: A multiple of all strides: the authors' code takes no other length.
WARM_UP_SAMPLES = 2560
RATIOS = {
    "forward_ratio": "forward_seconds",
    "train_ratio": "train_seconds",
    "memory_ratio": "train_memory_mb",
}
COLUMNS = ["network", "code", "parameters", "gmacs_per_second", "forward_seconds"]
COLUMNS += ["train_seconds", "train_memory_mb", "realtime_factor", *RATIOS]


def parse(argv=None):
    """The command line."""
    parser = measuring.parser(
        __doc__, out=None, clock="wall", threads=2, device="cpu", authors=True
    )
    parser.add_argument(
        "networks", nargs="*", help="names in hparams/models (default: all)"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--compile", action="store_true", help="its blocks by torch.compile"
    )
    parser.add_argument(
        "--keep-memory", action="store_true", help="as federations do on a CPU"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each example")
    parser.add_argument("--repeats", type=int, default=7)
    quick = {"batch_size": 1, "seconds": 1.0, "repeats": 1}
    needs = ("fedenhance", "sudo_rm_rf")
    args = measuring.parse(parser, argv, quick=quick, needs=needs)
    args.networks = measuring.choose(parser, "network", args.networks, NAMES)
    return args


def measure_times(networks, batch, args, clock):
    """Time forward and training steps of networks, turn by turn.

    Arguments
    ---------
    networks : dict
        Networks by code.
    batch : torch.Tensor
        ``(batch, time)``.
    args : argparse.Namespace
        The command line.
    clock : callable
        Seconds.

    Returns
    -------
    dict
        For each code, the median seconds of a forward pass and of a training step.
    """
    calls = {
        (code, run): partial(run, network, batch, args)
        for code, network in networks.items()
        for run in (infer, train)
    }
    found = measuring.median_seconds(calls, args.repeats, clock, warm_up=1)
    return {code: (found[code, infer], found[code, train]) for code in networks}


def measure_memory(name, code, args):
    """Return the MB that a training step takes, in a process of its own on a CPU."""
    if measuring.on_gpu(args):
        network, batch = build(name, code, args), make_batch(args)
        return measuring.peak_gpu_memory(train, network, batch, args)
    return measuring.in_fresh_process(resident_memory, name, code, args)


def resident_memory(name, code, args):
    """Return the MB that a training step adds to the most that this process has had."""
    if args.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    network, batch = build(name, code, args), make_batch(args)
    # A short step first, so that libraries loaded on demand do not count.
    train(network, batch[:1, :WARM_UP_SAMPLES], args)
    before = measuring.peak_resident_mb()
    train(network, batch, args)
    return measuring.peak_resident_mb() - before


def count_macs(network, args):
    """Count the multiply-accumulate operations for a second of audio.

    Those of convolutions, matrix products and recurrent networks.
    """
    recurrent = []

    def count_recurrent(module, inputs, _):
        # Weights are multiplied once a step; biases are vectors.
        weights = sum(w.numel() for w in module.parameters() if w.ndim > 1)
        recurrent.append(weights * inputs[0].numel() // inputs[0].shape[-1])

    hooks = [
        module.register_forward_hook(count_recurrent)
        for module in network.modules()
        if isinstance(module, torch.nn.RNNBase)
    ]
    seconds = 4
    mixture = torch.randn(1, seconds * SAMPLE_RATE, device=args.device)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        network(mixture)
    for hook in hooks:
        hook.remove()
    return (counter.get_total_flops() // 2 + sum(recurrent)) / seconds


def measure(name, args, clock):
    """Rows, with the columns ``COLUMNS``: one network and, if any, the authors'."""
    batch = make_batch(args)
    networks = {code: build(name, code, args) for code in ("authors", "ours")}
    networks = {code: found for code, found in networks.items() if found is not None}
    times = measure_times(networks, batch, args, clock)
    rows = {}
    for code, network in networks.items():
        forward, step = times[code]
        rows[code] = {
            "network": name,
            "code": code,
            "parameters": sum(p.numel() for p in network.parameters()),
            "gmacs_per_second": count_macs(network, args) / 1e9,
            "forward_seconds": forward,
            "train_seconds": step,
            "train_memory_mb": measure_memory(name, code, args),
            "realtime_factor": forward / args.batch_size / args.seconds,
        }
    if "authors" in rows:
        compare(rows["ours"], rows["authors"])
        error = relative_error(networks, batch, args)
        print(f"{name}: relative difference from the authors' output {error:.1e}")
    yield from rows.values()


def compare(ours, authors):
    """Add to our row what the authors' row is multiplied by to get it."""
    for ratio, column in RATIOS.items():
        ours[ratio] = ours[column] / authors[column] if authors[column] else math.nan


def relative_error(networks, batch, args):
    """Return the norm of the outputs' difference over that of the output."""
    ours, authors = (infer(networks[code], batch, args) for code in ("ours", "authors"))
    return ((ours - authors).norm() / authors.norm()).item()


def main(argv=None):
    """Measure, print a table and write a CSV file."""
    args = parse(argv)
    args.note += (
        f"{args.note and ', '}{args.precision}{', compiled' if args.compile else ''}, "
        f"{args.batch_size} x {args.seconds:g} s, median of {args.repeats}"
    )
    clock, rows = measuring.begin(args, keep_memory=args.keep_memory), []
    for name in args.networks:
        for row in measure(name, args, clock):
            rows.append(row)
            if args.out:
                measuring.save(args.out, rows, measuring.machine(args), COLUMNS)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
