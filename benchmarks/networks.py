"""Time, memory and size of every architecture in hparams/models.

    python -m benchmarks.networks                      # all, on the CPU
    python -m benchmarks.networks sudormrf_groupcomm --authors CHECKOUTS
    python -m benchmarks.networks --device cuda --precision bf16

With ``--authors DIR``, where DIR holds checkouts of github.com/etzinis/sudo_rm_rf and
github.com/etzinis/fedenhance, the authors' networks run beside ours with the same
weights, turn by turn, so that a busy machine slows both.

Times are medians over the repeats; on a machine with other work, ``--clock cpu`` with
one thread counts only the time the processor spends on the network. A training step is
forward and backward, without the optimizer. On a CPU, the peak memory is what a step
adds to the memory of a fresh process; on a GPU, what PyTorch allocates.
"""

import argparse
import csv
import functools
import importlib
import math
import multiprocessing
import platform
import resource
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fedenhance.deploy.streaming import StreamingSeparator
from fedenhance.networks.authors import to_reference

SAMPLE_RATE = 16000
MODELS = Path(__file__).resolve().parents[1] / "hparams" / "models"
#: The authors' class of each member: checkout, module, class.
AUTHORS = {
    "original": ("sudo_rm_rf", "sudo_rm_rf.dnn.models.sudormrf", "SuDORMRF"),
    "improved": ("sudo_rm_rf", "sudo_rm_rf.dnn.models.improved_sudormrf", "SuDORMRF"),
    "groupcomm": (
        "fedenhance",
        "fedenhance.models.groupcomm_sudormrf_v2",
        "GroupCommSudoRmRf",
    ),
    "causal": (
        "sudo_rm_rf",
        "sudo_rm_rf.dnn.models.causal_improved_sudormrf_v3",
        "CausalSuDORMRF",
    ),
}
#: The authors' names of sizes, by ours.
AUTHORS_SIZES = {
    "num_sources": "num_sources",
    "num_bases": "enc_num_basis",
    "kernel_size": "enc_kernel_size",
    "channels": "out_channels",
    "hidden_channels": "in_channels",
    "num_blocks": "num_blocks",
    "depth": "upsampling_depth",
    "num_groups": "group_size",
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
#: A multiple of all strides: the authors' code takes no other length.
WARM_UP_SAMPLES = 2560
STREAMED_SECONDS = (0.00125, 0.02)
COLUMNS = [
    "network",
    "code",
    "parameters",
    "gmacs_per_second",
    "forward_seconds",
    "train_seconds",
    "train_memory_mb",
    "realtime_factor",
    "forward_ratio",
    "train_ratio",
    "memory_ratio",
]


def parse_arguments(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", help="names in hparams/models (default: all)"
    )
    parser.add_argument("--authors", type=Path, metavar="DIR")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each example")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="one repeat of one second, to try it"
    )
    parser.add_argument("--out", type=Path, metavar="CSV")
    args = parser.parse_args(argv)
    known = sorted(path.stem for path in MODELS.glob("*.yaml"))
    args.networks = args.networks or known
    for name in args.networks:
        if name not in known:
            parser.error(f"no network {name}: there are {', '.join(known)}")
    if args.quick:
        args.batch_size, args.seconds, args.repeats = 1, 1.0, 1
    if args.authors:
        for checkout in sorted({checkout for checkout, *_ in AUTHORS.values()}):
            if not (args.authors / checkout).is_dir():
                parser.error(f"--authors: no checkout {args.authors / checkout}")
    return args


def build_ours(name):
    """Build a separator from hparams/models, and its sizes."""
    torch.manual_seed(0)
    with open(MODELS / f"{name}.yaml") as file:
        model = load_hyperpyyaml(file)
    return model.pop("separator"), model


def build_authors(name, folder):
    """Build the authors' network with our weights, or None if they have none."""
    member = name.removeprefix("sudormrf_").removesuffix("_small")
    if folder is None or member not in AUTHORS:
        return None
    checkout, module, class_name = AUTHORS[member]
    sys.path.insert(0, str(folder / checkout))
    separator, sizes = build_ours(name)
    sizes = {AUTHORS_SIZES[key]: value for key, value in sizes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, to the authors
        network = getattr(importlib.import_module(module), class_name)(**sizes)
    network.load_state_dict(to_reference(separator.state_dict(), member))
    return AuthorsSeparator(network)


class AuthorsSeparator(torch.nn.Module):
    """The authors' network with our interface."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, mixture):
        """Map ``(batch, time)`` to ``(batch, source, time)``."""
        return self.network(mixture.unsqueeze(1))


def build(name, code, args):
    """Build a network of one code ("ours" or "authors") on the device."""
    if code == "ours":
        network, _ = build_ours(name)
    else:
        network = build_authors(name, args.authors)
    if network is None:
        return None
    network = network.to(args.device)
    return torch.compile(network) if args.compile else network


def make_batch(args):
    """Draw a batch of noise, ``(batch, time)``."""
    num_samples = round(args.seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(args.batch_size, num_samples, generator=generator)
    return batch.to(args.device)


def train(network, batch, args):
    """Run forward and backward."""
    network.zero_grad(set_to_none=True)
    with autocast(args):
        estimates = network(batch)
    estimates.float().square().mean().backward()


@torch.no_grad()
def infer(network, batch, args):
    """Run forward only."""
    with autocast(args):
        return network(batch)


def autocast(args):
    """Return the context of the precision."""
    device = torch.device(args.device).type
    return torch.autocast(device, torch.bfloat16, enabled=args.precision == "bf16")


def seconds_of(function, args):
    """Time one call."""
    clock, cuda = CLOCKS[args.clock], torch.device(args.device).type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    function()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def measure_times(networks, batch, args):
    """Time forward and training steps of networks, turn by turn.

    Arguments
    ---------
    networks : dict
        Networks by code.
    batch : torch.Tensor
        ``(batch, time)``.
    args : argparse.Namespace
        The command line.

    Returns
    -------
    dict
        For each code, the median seconds of a forward pass and of a training step.
    """
    times = {code: {infer: [], train: []} for code in networks}
    for repeat in range(args.repeats + 1):
        for code, network in networks.items():
            for run in (infer, train):
                call = functools.partial(run, network, batch, args)
                seconds = seconds_of(call, args)
                if repeat > 0:  # the first one warms up
                    times[code][run].append(seconds)
    return {
        code: (statistics.median(runs[infer]), statistics.median(runs[train]))
        for code, runs in times.items()
    }


def measure_memory(name, code, args):
    """Return the MB that a training step takes, in a process of its own on a CPU."""
    if torch.device(args.device).type == "cuda":
        network, batch = build(name, code, args), make_batch(args)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(network, batch, args)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_resident_memory, (name, code, args))


def _resident_memory(name, code, args):
    torch.set_num_threads(args.threads)
    network, batch = build(name, code, args), make_batch(args)
    # A short step first, so that libraries loaded on demand do not count.
    train(network, batch[:1, :WARM_UP_SAMPLES], args)
    before = peak_resident_kb()
    train(network, batch, args)
    return (peak_resident_kb() - before) / 1024


def peak_resident_kb():
    """Return the most memory that this process has had, in KB."""
    # Linux's ru_maxrss includes the parent process, VmHWM does not.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def count_macs(network, args):
    """Count the multiply-accumulate operations for a second of audio.

    Those of convolutions, matrix products and recurrent networks.
    """
    recurrent = []

    def count_recurrent(module, inputs, _):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        directions = 2 if module.bidirectional else 1
        steps = inputs[0].numel() // inputs[0].shape[-1]
        for layer in range(module.num_layers):
            size = module.input_size
            if layer > 0:
                size = directions * module.hidden_size
            per_step = gates * module.hidden_size * (size + module.hidden_size)
            recurrent.append(steps * directions * per_step)

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


def measure_streaming(separator, args):
    """Time the causal member on a stream, one signal at a time."""
    rows = []
    mixture = make_batch(args)[:1]
    for seconds in STREAMED_SECONDS:
        stream = StreamingSeparator(separator)
        parts = mixture.split(round(seconds * SAMPLE_RATE), dim=1)

        def run(stream=stream, parts=parts):
            for samples in parts:
                stream.push(samples)
            stream.flush()

        times = [seconds_of(run, args) for _ in range(max(1, args.repeats // 2))]
        median = statistics.median(times)
        rows.append(
            {
                "network": f"sudormrf_causal, stream of {1000 * seconds:g} ms",
                "code": "ours",
                "forward_seconds": median,
                "realtime_factor": median / args.seconds,
            }
        )
    return rows


def measure(name, args):
    """Measure one network and, where there is one, the authors'.

    Arguments
    ---------
    name : str
        Name in hparams/models.
    args : argparse.Namespace
        The command line.

    Returns
    -------
    list of dict
        A row for each code, with the columns ``COLUMNS``.
    """
    batch = make_batch(args)
    networks = {code: build(name, code, args) for code in ("authors", "ours")}
    networks = {
        code: network for code, network in networks.items() if network is not None
    }
    times = measure_times(networks, batch, args)
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
    rows = list(rows.values())
    if name == "sudormrf_causal":
        rows += measure_streaming(build_ours(name)[0].to(args.device), args)
    return rows


def compare(ours, authors):
    """Add to our row what the authors' row is multiplied by to get it."""
    for ratio, column in [
        ("forward_ratio", "forward_seconds"),
        ("train_ratio", "train_seconds"),
        ("memory_ratio", "train_memory_mb"),
    ]:
        ours[ratio] = ours[column] / authors[column] if authors[column] else math.nan


def relative_error(networks, batch, args):
    """Return the norm of the outputs' difference over that of the output."""
    ours, authors = (infer(networks[code], batch, args) for code in ("ours", "authors"))
    return ((ours - authors).norm() / authors.norm()).item()


def describe_machine(args):
    """Describe what the numbers were measured on."""
    device = torch.device(args.device)
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{processor_name()}, threads: {args.threads}, no GPU"
    return (
        f"{machine}, {args.clock} clock, PyTorch {torch.__version__}, {args.precision}"
        f"{', compiled' if args.compile else ''}; batches of {args.batch_size} x "
        f"{args.seconds:g} s at {SAMPLE_RATE} Hz, median of {args.repeats}"
    )


def processor_name():
    """Return the processor's name, from Linux where it is known there."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def format_row(row):
    """Format a row for the terminal; empty cells for what was not measured."""
    cells = []
    for column in COLUMNS:
        value = row.get(column, "")
        if isinstance(value, float):
            value = f"{value:.4g}"
        cells.append(str(value))
    return cells


def print_table(rows):
    """Print rows in columns."""
    table = [[column.replace("_", " ") for column in COLUMNS], *map(format_row, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        aligned = [cells[0].ljust(widths[0]), cells[1].ljust(widths[1])]
        aligned += [c.rjust(w) for c, w in zip(cells[2:], widths[2:], strict=True)]
        print("  ".join(aligned))


def main(argv=None):
    """Measure, print a table and write a CSV file."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    print(describe_machine(args))
    rows = []
    for name in args.networks:
        rows += measure(name, args)
        if args.out:
            write_csv(rows, args)
    print_table(rows)


def write_csv(rows, args):
    """Write the rows so far; a run that is stopped leaves what it measured."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(args)
    with open(args.out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "machine"])
        writer.writerows([*format_row(row), machine] for row in rows)


if __name__ == "__main__":
    main()
