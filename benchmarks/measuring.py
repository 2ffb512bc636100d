"""What the benchmarks share: the command line, clocks, memory, fitted lines, tables."""

import argparse
import contextlib
import datetime
import logging
import multiprocessing
import os
import platform
import statistics
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import OUT
from benchmarks.models import checkout
from fed.memory import keep_freed_memory
from fedenhance.data.tables import write_table

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def describe(doc):
    """Make a command line that prints the docstring of a script as it is."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=doc, formatter_class=form)


def parser(
    doc,
    sections=None,
    out=OUT,
    clock="cpu",
    threads=1,
    device=None,
    data=False,
    authors=False,
):
    """Make the command line that benchmarks have in common.

    Arguments
    ---------
    doc : str
        Of the script.
    sections : iterable of str
        Parts that can be asked for, where there are some.
    out : Path
        The default: a folder, or a CSV file where there is one table.
    clock : str
        The default, a key of ``CLOCKS``.
    threads : int
        The default.
    device : str
        The default of benchmarks that run on GPUs as well.
    data, authors : bool
        Whether a network is trained on recordings; whether theirs may run beside ours.
    """
    made = describe(doc)
    if sections:
        made.add_argument("sections", nargs="*", metavar="SECTION", help=str(sections))
    made.add_argument("--quick", action="store_true", help="much smaller, to try it")
    made.add_argument("--out", type=Path, default=out, help="of tables (%(default)s)")
    made.add_argument("--note", default="", help="to go with the machine's name")
    made.add_argument("--threads", type=int, default=threads)
    made.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default=clock,
        help="cpu leaves out what other programs take; for one thread",
    )
    made.set_defaults(device="cpu")
    if device:
        made.add_argument(
            "--device", default=device, help="cpu or cuda, which is timed by the wall"
        )
    if data:
        made.add_argument(
            "--data_folder",
            default="data/MiniLibriFSD50K",
            help="LibriSpeech/ and FSD50K/; the built-in corpus by default",
        )
        made.add_argument("--model", default="sudormrf_groupcomm_small")
    if authors:
        made.add_argument(
            "--authors", type=Path, metavar="DIR", help="with their checkouts"
        )
    return made


def parse(made, argv, sections=None, quick=None, needs=("fedenhance",)):
    """Parse a command line; complain about what there is not.

    Arguments
    ---------
    made : argparse.ArgumentParser
        Of :func:`parser`.
    argv : list of str
    sections : iterable of str
        All are taken where none is asked for.
    quick : dict
        Options of a trial.
    needs : tuple of str
        Checkouts that ``--authors`` must hold.
    """
    args = made.parse_args(argv)
    if sections:
        args.sections = choose(made, "section", args.sections, sections)
    if getattr(args, "authors", None):
        try:
            for name in needs:
                checkout(args.authors, name)
        except FileNotFoundError as error:
            made.error(str(error))
    if args.quick:
        vars(args).update(quick or {})
    return args


def choose(made, what, names, known):
    """Take all by default; complain on the command line about one that is not there."""
    for name in names:
        if name not in known:
            made.error(f"no {what} {name}: there are {', '.join(known)}")
    return names or list(known)


def begin(args, keep_memory=True):
    """Settle threads, seed, log and memory; print the machine; return the clock.

    Arguments
    ---------
    args : argparse.Namespace
    keep_memory : bool
        Federations keep freed memory; what they are compared with shall have it too.
    """
    args.peak_memory = not_measured if args.quick else peak_memory
    if on_gpu(args):
        args.clock, args.peak_memory = "wall", peak_gpu_memory
    if keep_memory:
        keep_freed_memory()
    # Programs and workers that are started from here obey as well.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    print(machine(args))
    return synchronized if on_gpu(args) else CLOCKS[args.clock]


def run_sections(args, sections):
    """Run the sections asked for, with arguments and clock; return all their rows."""
    clock, rows = begin(args), []
    for section in args.sections:
        print(f"--- {section}", flush=True)
        rows += sections[section](args, clock) or []
    return rows


def on_gpu(args):
    """Whether a GPU is measured."""
    return torch.device(args.device).type == "cuda"


def synchronized():
    """Seconds of the wall clock, when the GPU has done all that it was asked for."""
    torch.cuda.synchronize()
    return time.perf_counter()


def machine(args):
    """Say what was measured on, and when."""
    today = datetime.date.today().isoformat()
    gpu = f"{torch.cuda.get_device_name()}, " if on_gpu(args) else ""
    return (
        f"{gpu}{processor_name()}, {os.cpu_count()} cores"
        f"{args.note and f' ({args.note})'}, threads: {args.threads}, "
        f"{args.clock} clock, PyTorch {torch.__version__}, {today}"
    )


def processor_name():
    """Return the processor's name, from Linux where it is known there."""
    return linux_says("cpuinfo", "model name") or platform.processor()


def linux_says(file, name):
    """Return what a file of /proc says under some name; empty where it does not."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", file).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def fit(x, y):
    """Fit a line to costs, each as important relative to its size as the others.

    Arguments
    ---------
    x, y : sequence of float
        At least two; y is positive.

    Returns
    -------
    dict
        ``intercept`` and ``slope`` of the line; ``exponent`` of ``y ~ x ** exponent``
        between the two largest x (1: proportional, 0: constant); ``error``, the
        largest relative residual of the line.

    Example
    -------
    >>> found = fit([1, 2, 4], [3, 5, 9])
    >>> round(found["intercept"], 6), round(found["slope"], 6)
    (1.0, 2.0)
    """
    x, y = np.float64(x), np.float64(y)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    error = np.abs((intercept + slope * x) / y - 1).max()
    a, b = np.argsort(x)[-2:]
    exponent = np.log(y[b] / y[a]) / np.log(x[b] / x[a])
    found = {"intercept": intercept, "slope": slope, "exponent": exponent}
    return {name: float(v) for name, v in {**found, "error": error}.items()}


def seconds_of(call, clock):
    """Seconds of a call."""
    start = clock()
    call()
    return clock() - start


def alternate(calls, repeats):
    """Make calls in turn, so that a machine that slows down slows all.

    Arguments
    ---------
    calls : dict of callable
    repeats : int

    Returns
    -------
    dict of list
        What each call returned, by its name.
    """
    found = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(call())
    return found


def median_seconds(calls, repeats, clock, warm_up=0):
    """Time calls that take turns.

    Arguments
    ---------
    calls : dict of callable
    repeats : int
    clock : callable
    warm_up : int
        Turns before, which do not count.

    Returns
    -------
    dict of float
        By the name of the call.
    """
    timed = {name: partial(seconds_of, call, clock) for name, call in calls.items()}
    times = alternate(timed, warm_up + repeats)
    return {name: statistics.median(found[warm_up:]) for name, found in times.items()}


def in_fresh_process(call, *arguments):
    """Return what a call returns, in a process of its own; all is pickled."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def peak_memory(call, *arguments):
    """Run a call in a process of its own; return how much memory it took.

    Arguments
    ---------
    call : callable
        Of a module.
    *arguments
        They are pickled.

    Returns
    -------
    float
        MB at the peak, with all processes that the call starts, less what the fresh
        process had after its imports; NaN where the system does not tell.
    """
    if not Path("/proc/self/status").exists():
        return float("nan")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        process = pool.apply(_ready, (call, torch.get_num_threads()))
        before, peak = family_memory(process), 0
        running = pool.apply_async(call, arguments)
        while not running.ready():
            peak = max(peak, family_memory(process))
            running.wait(0.05)
        running.get()
    return (peak - before) / 2**20


def not_measured(*_):
    """Return NaN: a process for each measurement takes seconds that a trial has not."""
    return float("nan")


def _ready(call, threads):
    """Prove that imports are done; return the process's id."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    return os.getpid()


def family_memory(process):
    """Return the bytes of memory of a process and all its descendants.

    Code and data that are mapped from files are left out: all processes share them.
    """
    sizes, children = {}, defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may be gone
            lines = (path / "status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            own = (fields.get(name, "0 kB") for name in ("RssAnon", "RssShmem"))
            sizes[int(path.name)] = 1024 * sum(int(text.split()[0]) for text in own)
            children[int(fields["PPid"])].append(int(path.name))

    def total(member):
        return sizes.get(member, 0) + sum(map(total, children[member]))

    return total(process)


def peak_gpu_memory(call, *arguments):
    """Return the MB that PyTorch holds on the GPU at the peak of a call."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(*arguments)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def peak_resident_mb(process="self"):
    """Return the most memory that a process has had; NaN where Linux does not say."""
    # Unlike ru_maxrss it does not include the parent process.
    kilobytes, *_ = linux_says(f"{process}/status", "VmHWM").split() or ["nan"]
    return float(kilobytes) / 1024


def cell(value):
    """Format a value for a table.

    Example
    -------
    >>> cell(0.123456), cell(1200000.0), cell(None), cell("x")
    ('0.1235', '1.2e+06', '', 'x')
    """
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def table(rows):
    """Lay rows, which are dicts, out in columns, for the terminal.

    Example
    -------
    >>> print(table([{"code": "bare", "seconds": 1.5}, {"code": "ray"}]))
    code  seconds
    bare      1.5
    ray
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *rest in cells:
        padded = [c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def save(path, rows, machine, columns=None):
    """Write a table anew, so that a run that is stopped leaves what it measured.

    Arguments
    ---------
    path : Path
    rows : list of dict
    machine : str
        What was measured on, the last column.
    columns : iterable of str
        Those of the rows by default.
    """
    columns = columns or dict.fromkeys(name for row in rows for name in row)
    cells = ({name: cell(value) for name, value in row.items()} for row in rows)
    rows = [{**row, "machine": machine} for row in cells]
    write_table(path, rows, [*columns, "machine"])


def report(args, name, rows):
    """Print a table, and write it as ``<name>.csv``."""
    print(f"{table(rows)}\n", flush=True)
    save(args.out / f"{name}.csv", rows, machine(args))
