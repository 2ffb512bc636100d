"""What the benchmarks share: the command line, clocks, memory, fitted lines, tables."""

import argparse
import csv
import datetime
import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import OUT
from benchmarks.networks import CLOCKS, processor_name
from fed.memory import keep_freed_memory


def parser(doc, clock="cpu"):
    """Make the command line that all benchmarks have in common.

    Arguments
    ---------
    doc : str
        Of the script.
    clock : str
        Its default, a key of ``CLOCKS``.

    Returns
    -------
    argparse.ArgumentParser
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="much smaller, to try it")
    made.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help=f"of tables ({OUT})"
    )
    made.add_argument("--note", default="", help="to go with the machine's name")
    made.set_defaults(device="cpu")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default=clock,
        help="cpu leaves out what other programs take; for one thread",
    )
    return made


def add_data(made, models=True):
    """Add the options of benchmarks that read recordings.

    Arguments
    ---------
    made : argparse.ArgumentParser
    models : bool
        Whether there is a network to choose.
    """
    made.add_argument(
        "--data_folder",
        default="data/MiniLibriFSD50K",
        help="LibriSpeech/ and FSD50K/; the built-in corpus by default",
    )
    if models:
        made.add_argument("--model", default="sudormrf_groupcomm_small")


def add_device(made, default="cpu"):
    """Add the option of benchmarks that run on GPUs as well.

    Arguments
    ---------
    made : argparse.ArgumentParser
    default : str
    """
    made.add_argument(
        "--device", default=default, help="cpu or cuda, which is timed by the wall"
    )


def begin(args):
    """Settle threads, seed, log, and whether memory is measured; return the clock.

    Arguments
    ---------
    args : argparse.Namespace
        Of :func:`parser`.

    Returns
    -------
    callable
        Seconds.
    """
    # A process for each measurement takes seconds that a trial has not.
    args.peak_memory = (lambda *_: float("nan")) if args.quick else peak_memory
    if on_gpu(args):
        args.clock, args.peak_memory = "wall", peak_gpu_memory
    # Federations do so; whatever they are compared with shall have it too.
    keep_freed_memory()
    # Programs and workers that are started from here obey as well.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    return synchronized if on_gpu(args) else CLOCKS[args.clock]


def on_gpu(args):
    """Whether a GPU is measured."""
    return torch.device(args.device).type == "cuda"


def synchronized():
    """Seconds of the wall clock, when the GPU has done all that it was asked for."""
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_gpu_memory(call, *arguments):
    """Return the MB that PyTorch holds on the GPU at the peak of a call."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call(*arguments)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def machine(args):
    """Say what was measured on, and when."""
    today = datetime.date.today().isoformat()
    gpu = f"{torch.cuda.get_device_name()}, " if on_gpu(args) else ""
    return (
        f"{gpu}{processor_name()}, {os.cpu_count()} cores"
        f"{args.note and f' ({args.note})'}, threads: {args.threads}, "
        f"{args.clock} clock, PyTorch {torch.__version__}, {today}"
    )


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
    design = np.stack([np.ones_like(x), x], 1)
    (intercept, slope), *_ = np.linalg.lstsq(design / y[:, None], np.ones_like(y))
    error = np.abs((intercept + slope * x) / y - 1).max()
    a, b = np.argsort(x)[-2:]
    exponent = np.log(y[b] / y[a]) / np.log(x[b] / x[a])
    found = {"intercept": intercept, "slope": slope, "exponent": exponent}
    return {name: float(v) for name, v in {**found, "error": error}.items()}


def check_sections(parser, args, sections):
    """Take all sections by default; complain about one that does not exist."""
    args.sections = args.sections or list(sections)
    for section in args.sections:
        if section not in sections:
            parser.error(f"no section {section}: there are {', '.join(sections)}")


def run_sections(args, sections):
    """Say what the machine is, and run the sections asked for."""
    clock = begin(args)
    print(machine(args))
    for section in args.sections:
        print(f"--- {section}", flush=True)
        sections[section](args, clock)


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


def anonymous_memory(process):
    """Return the bytes of memory that are a process's own, and its parent's id.

    Code and data that are mapped from files are left out: all processes share them.

    Arguments
    ---------
    process : int or str
        Its id.

    Returns
    -------
    tuple of int
        Zeros where the system does not say, or the process is gone.
    """
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    amounts = [fields.get(name, "0 kB") for name in ("RssAnon", "RssShmem")]
    return 1024 * sum(int(a.split()[0]) for a in amounts), int(fields["PPid"])


def family_memory(process):
    """Return the bytes of memory of a process and all its descendants."""
    everyone = {
        int(path.name): anonymous_memory(path.name)
        for path in Path("/proc").glob("[0-9]*")
    }
    family, size = {process}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, (_, parent) in everyone.items() if parent in family}
    return sum(everyone.get(member, (0, 0))[0] for member in family)


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


def _ready(call, threads):
    """Prove that imports are done; return the process's id."""
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    return os.getpid()


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
    """Lay rows out in columns, for the terminal.

    Arguments
    ---------
    rows : list of dict

    Returns
    -------
    str

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
    for line in cells:
        first, *rest = zip(line, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def report(args, name, rows):
    """Print a table, and write it as ``<name>.csv``.

    Arguments
    ---------
    args : argparse.Namespace
        Of :func:`parser`.
    name : str
    rows : list of dict
    """
    print(table(rows), flush=True)
    print()
    args.out.mkdir(parents=True, exist_ok=True)
    where = machine(args)
    names = list(dict.fromkeys(key for row in rows for key in row))
    with open(args.out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "machine"])
        writer.writerows([*(cell(row.get(n)) for n in names), where] for row in rows)
