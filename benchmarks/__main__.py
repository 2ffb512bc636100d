"""Run the whole suite: python -m benchmarks [--quick] [--authors DIR].

With ``--quick`` it takes three minutes, which only shows that all of it works. Each
benchmark is a program of its own, see benchmarks/README.md; one that fails or takes too
long does not stop the others. Tables go to results/benchmarks; with ``--out
benchmarks/results`` to where the committed ones are, for git to compare.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import OUT, measuring

ONE_CORE = ("--threads", "1", "--clock", "cpu")
WHOLE = {
    "networks": ["--repeats", "2"],
    "memory": ["sudormrf_groupcomm", "--batch-size", "6", *ONE_CORE, "--repeats", "1"],
    "rounds": ["--repeats", "1"],
    "data": [],
    "start": [],
}
"""Benchmark -> its arguments in a whole run."""
QUICK = {
    "networks": ["sudormrf_groupcomm", "--threads", "1", "--quick"],
    "memory": ["sudormrf_groupcomm_small", "--threads", "1", "--quick"],
    "rounds": ["--quick", "--no-ray"],
    "data": ["--quick"],
    "start": ["--quick"],
}
MODULES = {"memory": "networks"}
"""Of benchmarks that are one of another's cases."""
MINUTES = {"networks": 10, "rounds": 12, "data": 7}
"""The most that a benchmark may take; 5 where nothing is said."""
WITH_AUTHORS = {"networks", "memory", "rounds", "data"}
TABLES = {"networks": "networks.csv", "memory": "networks_batch_6.csv"}
"""Of benchmarks whose ``--out`` is a file."""


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", help=str([*WHOLE]))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--authors", type=Path, metavar="DIR", help="holds sudo_rm_rf and fedenhance"
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument("--note", default="", help="to go with the machine's name")
    args = parser.parse_args(argv)
    args.names = measuring.choose(parser, "benchmark", args.names, WHOLE)
    return args


def command(name, args):
    """Write the command of one benchmark.

    Example
    -------
    >>> command("start", parse(["--quick", "--out", "o"]))[1:]
    ['-m', 'benchmarks.start', '--quick', '--out', 'o']
    """
    words = [sys.executable, "-m", f"benchmarks.{MODULES.get(name, name)}"]
    words += (QUICK if args.quick else WHOLE)[name]
    if args.authors and name in WITH_AUTHORS:
        words += ["--authors", str(args.authors)]
    note = ["--note", args.note] if args.note else []
    return [*words, "--out", str(args.out / TABLES.get(name, "")), *note]


def run(name, args):
    """Run one benchmark; return how it went."""
    print(f"\n===== {name}", flush=True)
    begin = time.perf_counter()
    limit = 60 * MINUTES.get(name, 5)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = command(name, args)
    try:
        code = subprocess.run(words, timeout=limit, env=environment).returncode
        outcome = "done" if code == 0 else f"failed ({code})"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after {limit} s"
    return f"{name}: {outcome}, {time.perf_counter() - begin:.0f} s"


def main(argv=None):
    """Run the benchmarks one after the other; exit with 1 if one did not end well."""
    args = parse(argv)
    begin = time.perf_counter()
    outcomes = [run(name, args) for name in args.names]
    minutes = (time.perf_counter() - begin) / 60
    print("\n" + "\n".join(outcomes), f"\n{minutes:.1f} minutes; tables in {args.out}")
    sys.exit(any(": done" not in outcome for outcome in outcomes))


if __name__ == "__main__":
    main()
