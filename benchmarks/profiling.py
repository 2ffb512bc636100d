#!/usr/bin/env python
"""Where each second of the default experiment goes.

    python -m benchmarks.profiling                 # 10 rounds; --rounds 120: all
    python -m benchmarks.profiling start           # up to the first training step
    python -m benchmarks.profiling rounds network

- ``start``: seconds from the command to the first training step, with a prepared
  corpus, and which packages the imports are spent on;
- ``rounds``: train.py with a stopwatch at its parts. Every second is counted once, for
  the innermost part; ``whole_run`` counts what happens in each round as often as the
  experiment's own number of rounds has it;
- ``network``: a training step by the class of its modules;
- ``memory``: a training step with and without ``fed.memory.keep_freed_memory``, each in
  a process of its own, for the default network and for FedEnhance's.
"""

import contextlib
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from math import ceil
from types import SimpleNamespace
from unittest import mock

import speechbrain as sb
import torch

from benchmarks import measuring, models
from benchmarks.loops import Case
from fed import client, ledger, server, site, strategy
from fed.memory import keep_freed_memory
from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import train
from fedenhance.data.datasets import dataio_prepare
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.networks.scaling import separate
from fedenhance.objectives.mixit import constrained_mixit
from fedenhance.training.separation import Separation, mixtures_of

HPARAMS = "hparams/fedenhance.yaml"
DYNAMO = "import torch._dynamo"
ONCE = ("load the YAML", "prepare", "datasets", "results", "final test", "the rest")
ONCE += (DYNAMO,)
"""Parts of a run that more rounds do not make longer."""
WHOLE = ("evaluation", "final test", "results")
"""Parts that are not divided further."""


class Stopwatch:
    """Counts seconds by part; a part within another stops the outer one.

    Arguments
    ---------
    clock : callable

    Example
    -------
    >>> ticks = iter([0, 1, 3, 6])
    >>> watch = Stopwatch(lambda: next(ticks))
    >>> with watch("outer"):
    ...     with watch("inner"):
    ...         pass
    >>> dict(watch.seconds)
    {'outer': 4, 'inner': 2}
    """

    def __init__(self, clock):
        self.clock = clock
        self.seconds = defaultdict(int)
        self.parts = []
        self.last = None

    def turn(self):
        """Give the time since the last turn to the part that runs."""
        now = self.clock()
        if self.parts:
            self.seconds[self.parts[-1]] += now - self.last
        self.last = now

    def start(self, part):
        """Begin a part."""
        self.turn()
        self.parts.append(part)

    def stop(self):
        """End the part that runs."""
        self.turn()
        self.parts.pop()

    def become(self, part):
        """Let another part take the place of the one that runs."""
        self.turn()
        self.parts[-1] = part

    @contextlib.contextmanager
    def __call__(self, part):
        """Count a block."""
        self.start(part)
        try:
            yield
        finally:
            self.stop()

    def wrap(self, function, part):
        """Make a function count as a part, unless it is called by a whole one."""

        def counted(*arguments, **options):
            if self.parts and self.parts[-1] in WHOLE:
                return function(*arguments, **options)
            with self(part):
                return function(*arguments, **options)

        return counted


# ------------------------------------------------------------------------ the start


def start(args, clock):
    """Rows: when the experiment gets how far; and imports by package."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["-m", "benchmarks.first_step", HPARAMS, "--noprogressbar"]
        argv += words_of(settings(args, folder))
        # The first run prepares the corpus and fills the page cache.
        timed = run_python(["-X", "importtime", *argv]).stderr
        runs = []
        for _ in range(1 if args.quick else 3):
            before = time.perf_counter()
            marks = json.loads(run_python(argv).stdout.splitlines()[-1])
            wall = time.perf_counter() - before
            interpreter = wall - marks["first step"][0]
            runs.append((wall, interpreter, marks))
        wall, interpreter, marks = min(runs, key=lambda run: run[0])
        rows = [{"part": "start Python, and leave", "wall_seconds": interpreter}]
        last = 0.0, 0.0
        for part, now in marks.items():
            spent = {"wall_seconds": now[0] - last[0], "cpu_seconds": now[1] - last[1]}
            rows.append({"part": part, **spent})
            last = now
        rows.append({"part": "in all", "wall_seconds": wall, "cpu_seconds": last[1]})
        measuring.report(args, "profile_start", rows)
    measuring.report(args, "profile_imports", imports(timed))


def run_python(argv):
    """Run the interpreter; raise with what it said if it fails."""
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=PACKAGE.parent,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stderr[-2000:]}")
    return done


def imports(text, most=15):
    r"""Rows: seconds of imports by package, from what ``-X importtime`` says.

    Example
    -------
    >>> imports("import time:  2000000 |  3000000 | torch.nn\nother")
    [{'package': 'torch', 'modules': 1, 'import_seconds': 2.0}]
    """
    seconds, modules = defaultdict(float), defaultdict(int)
    for line in text.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and fields[0].strip().isdigit():
            package = fields[2].strip().split(".")[0]
            seconds[package] += int(fields[0]) / 1e6
            modules[package] += 1
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:most]
    return [
        {"package": p, "modules": modules[p], "import_seconds": seconds[p]}
        for p in slowest
    ]


def settings(args, folder):
    """What is changed of the default experiment."""
    return {
        "output_folder": folder,
        "data_folder": args.data_folder,
        "p_supervised": 0.5,
        "models": f"!include:models/{args.model}.yaml",
    }


def words_of(options):
    """Options as words of a command line."""
    return [
        word for name, value in options.items() for word in (f"--{name}", str(value))
    ]


# ----------------------------------------------------------------------- the rounds


def rounds(args, clock):
    """Rows: seconds of each part of a run, and of a run of full length."""
    watch = Stopwatch(clock)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for place, name, part in PARTS:
            counted = watch.wrap(getattr(place, name), part)
            stack.enter_context(mock.patch.object(place, name, counted))
        load = train.load_hparams
        more = {}

        def load_hparams(*arguments):
            with watch("load the YAML"):
                hparams = load(*arguments)
            federation = hparams["federation"]
            more.update(times_more(federation, args.rounds))
            federation.rounds = args.rounds
            hparams["prepare"] = watch.wrap(hparams["prepare"], "prepare")
            hparams["datasets"] = watch.wrap(hparams["datasets"], "datasets")
            hparams["results"] = [watch.wrap(r, "results") for r in hparams["results"]]
            return hparams

        stack.enter_context(mock.patch.object(train, "load_hparams", load_hparams))
        with watch(DYNAMO):
            # PyTorch's first optimizer does, which would count as a part of a round.
            importlib.import_module("torch._dynamo")
        with watch("the rest"):
            words = words_of(settings(args, folder))
            train.main([HPARAMS, "--noprogressbar", *words])
    whole = {p: s * more.get(p, more["round"]) for p, s in watch.seconds.items()}
    in_all = sum(whole.values())
    rows = [
        {
            "part": part,
            f"seconds_of_{args.rounds}_rounds": float(watch.seconds[part]),
            "whole_run": float(whole[part]),
            "percent": 100 * whole[part] / in_all,
        }
        for part in sorted(whole, key=whole.get, reverse=True)
    ]
    rows.append({"part": "in all", "whole_run": float(in_all), "percent": 100.0})
    measuring.report(args, "profile_rounds", rows)


def times_more(federation, rounds):
    """How often a part comes in the whole run, for once in some rounds.

    Example
    -------
    >>> from fed import Federation
    >>> whole = Federation(None, rounds=120, evaluate_every=10)
    >>> found = times_more(whole, 5)
    >>> found["round"], found["evaluation"], found["prepare"]
    (24.0, 12.0, 1)
    """
    every = federation.evaluate_every
    evaluations = ceil(federation.rounds / every) / ceil(rounds / every)
    once = dict.fromkeys(ONCE, 1)
    return {"round": federation.rounds / rounds, "evaluation": evaluations, **once}


PARTS = [
    (MixtureOfMixtures, "__call__", "read and mix"),
    (Separation, "compute_forward", "forward"),
    (Separation, "compute_objectives", "objective"),
    (torch.Tensor, "backward", "backward"),
    (sb.Brain, "optimizers_step", "clip and step"),
    (sb.Brain, "fit", "other loops of SpeechBrain"),
    (site.Site, "validate", "evaluation"),
    (site.Site, "test", "evaluation"),
    (sb.Brain, "evaluate", "final test"),
    (client, "to_arrays", "weights to messages and back"),
    (client, "to_record", "weights to messages and back"),
    (site, "set_arrays", "weights to messages and back"),
    (site, "get_arrays", "weights to messages and back"),
    (server, "accept", "other work of the server"),
    (strategy.FedAvg, "aggregate_train", "check and average"),
    (server.Server, "round", "other work of the server"),
    (ledger.Ledger, "keep", "write results of rounds"),
    (ledger.Ledger, "log", "write results of rounds"),
]
"""Where the stopwatch is: owner, function, part."""


# ---------------------------------------------------------------------- the network


def network(args, clock):
    """Rows: a training step by class of modules."""
    with tempfile.TemporaryDirectory() as folder:
        hparams, _ = Case(HPARAMS, settings(args, folder)).load(folder)
        hparams["prepare"]()
        dataset = dataio_prepare(hparams)["train"]
    separator = hparams["modules"]["separator"].train()
    batch = torch.stack([dataset[i]["sources"] for i in range(hparams["batch_size"])])
    watch = Stopwatch(clock)
    hooks = follow(separator, watch)
    steps = 1 if args.quick else 10
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            watch.seconds.clear()
        with watch("objective, forward"):
            estimates = separate(separator, batch.sum(1), hparams["consistency"])
            loss = constrained_mixit(estimates, mixtures_of(batch)).mean()
        with watch("objective and the rest, backward"):
            loss.backward()
    for hook in hooks:
        hook.remove()
    total = sum(watch.seconds.values())
    rows = [
        {"part": part, "ms_of_a_step": 1e3 * s / steps, "percent": 100 * s / total}
        for part, s in sorted(watch.seconds.items(), key=lambda item: -item[1])
    ]
    measuring.report(args, "profile_network", rows)


def follow(module, watch):
    """Let a stopwatch follow the forward and backward pass through the modules.

    Backward, the time from a gradient's arrival at a module's output to its arrival at
    the next output is the module's.

    Returns
    -------
    list
        Hooks, to be removed.
    """
    hooks = []
    for child in module.modules():
        name = type(child).__name__

        def begin(*_, name=name):
            watch.start(f"{name}, forward")

        def end(child, inputs, output, name=name):
            watch.stop()
            # A module that returns what its last child does is not asked again.
            if output.requires_grad and not hasattr(output, "followed"):
                output.followed = True
                output.register_hook(lambda _: watch.become(f"{name}, backward"))

        hooks.append(child.register_forward_pre_hook(begin))
        hooks.append(child.register_forward_hook(end))
    return hooks


# ----------------------------------------------------------------------- the memory


def memory(args, clock):
    """Rows: steps with memory that is kept and with memory that is given back."""
    cases = [("sudormrf_groupcomm_small", 1.0), ("sudormrf_groupcomm", 4.0)]
    repeats = 1 if args.quick else 3
    rows = []
    for model, seconds in cases[: 1 if args.quick else 2]:
        for kept in (True,) if args.quick else (False, True):
            row = measuring.in_fresh_process(
                step_of, model, seconds, kept, repeats, args.threads
            )
            rows.append({"network": model, "batch": f"4 x {seconds:g} s", **row})
    measuring.report(args, "profile_memory", rows)


def step_of(model, seconds, kept, repeats, threads):
    """Time training steps in a fresh process.

    Returns
    -------
    dict
        ``kept``: whether freed memory was kept; ``seconds`` of the processor (median),
        ``page_faults`` a step, ``peak_mb`` of the process.
    """
    kept = kept and keep_freed_memory()
    torch.set_num_threads(threads)
    options = SimpleNamespace(device="cpu", precision="fp32", compile=False)
    options.batch_size, options.seconds = 4, seconds
    separator = models.build(model, "ours", options)
    batch = models.make_batch(options)
    step = partial(models.train, separator, batch, options)
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    found = measuring.median_seconds({"step": step}, repeats, time.process_time)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "kept": kept,
        "seconds": found["step"],
        "page_faults": (used.ru_minflt - before) / repeats,
        "peak_mb": measuring.peak_resident_mb(),
    }


SECTIONS = {"start": start, "rounds": rounds, "network": network, "memory": memory}


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, SECTIONS, data=True)
    parser.add_argument("--rounds", type=int, default=10, help="to run")
    return measuring.parse(parser, argv, SECTIONS, quick={"rounds": 1})


def main(argv=None):
    """Run the sections."""
    measuring.run_sections(parse(argv), SECTIONS)


if __name__ == "__main__":
    main(sys.argv[1:])
