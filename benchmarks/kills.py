#!/usr/bin/env python
"""Runs that are killed at any moment and go on: they end as if nothing had been.

    python -m benchmarks.kills
    python -m benchmarks.kills keep_optimizer --kills 5

Each configuration of train.py is trained once without interruption. Then, again and
again, it is started in a folder of its own, ended by SIGKILL, and started once more;
what it leaves is compared to the bit. Half of the moments are drawn from the time that
it takes, the others from what it does to files in its folder, and up to three
milliseconds after: inside saving, that is. A finished row is kept, so that an
interrupted benchmark goes on; what was done by other code is done again. Prints a
summary, and adds a row a kill to kills.csv.
"""

import contextlib
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import fedenhance.recipes.LibriFSD50K.prepare  # noqa: F401, once for all that is trained
import fedenhance.reports.results  # noqa: F401
import fedenhance.training.remixit  # noqa: F401
from benchmarks import OUT, measuring
from benchmarks.kept import Kept
from benchmarks.left import left_by
from fedenhance.commands import train
from fedenhance.data.tables import read_table
from fedenhance.run_folder.record import version

COMMON = {
    **{"p_supervised": 0.5, "p_available_users": 0.5, "local_epoch_p": 0.25},
    **{"n_clients": 8, "rounds": 4, "epochs": 3, "evaluate_every": 1},
    **{"segment": 0.25, "batch_size": 8, "valid_size": 1, "test_size": 1},
    "results": "[!name:fedenhance.reports.results.write_test_metrics ]",
}
MODEL = """
num_sources: 3
separator: !new:fedenhance.networks.separator.Separator
    encoder: !new:fedenhance.networks.sudormrf.Encoder
        num_bases: 16
        kernel_size: 21
        depth: 2
    masknet: !new:fedenhance.networks.sudormrf.MaskNet
        num_sources: 3
        num_bases: 16
        channels: 16
        num_blocks: 1
        block: !name:fedenhance.networks.blocks.GroupCommBlock
            channels: 16
            hidden_channels: 32
            depth: 2
            num_groups: 4
    decoder: !new:fedenhance.networks.sudormrf.Decoder
        num_sources: 3
        num_bases: 16
        kernel_size: 21
"""
"""A network that trains in no time."""

FEDERATED, CENTRAL = "hparams/fedenhance.yaml", "hparams/centralized.yaml"
MOMENTUM = """
base: {base}
federation:
    strategy: !name:flwr.serverapp.strategy.FedAvgM {{server_momentum: 0.9}}
"""
CONFIGURATIONS = {
    "remixit": {
        "brain": "!name:fedenhance.training.remixit.RemixIT",
        "p_supervised": 0,
        "client_groups": "{self-training: 1.0}",
        "objectives": "{self-training: !name:fedenhance.objectives.mixit.supervised }",
        "federation": "{local: ['teacher.*']}",
    },
    "keep_optimizer": {"keep_optimizer": True},
    "two reading processes": {
        "train_dataloader_opts": "{num_workers: 2, persistent_workers: True}"
    },
    "server momentum": {},
    "centralised": {},
}
"""Name -> options of train.py, beside the common ones."""

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
"""Events of Python's audit hooks; so is opening to write."""


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, out=OUT / "kills.csv", clock="wall")
    parser.add_argument("names", nargs="*", help=str([*CONFIGURATIONS]))
    parser.add_argument("--kills", type=int, default=20, help="of each configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_folder", default="data/MiniLibriFSD50K")
    parser.add_argument("--work", type=Path, default=Path("results/kills"))
    args = measuring.parse(parser, argv, quick={"kills": 1})
    args.names = measuring.choose(parser, "configuration", args.names, CONFIGURATIONS)
    return args


# ------------------------------------------------------------------- one run


def start(argv, folder, watch=None):
    """Run train.py in a process of its own.

    Arguments
    ---------
    argv : list of str
        Of train.py.
    folder : Path
        Its output folder; what it prints goes beside it.
    watch : callable
        Called with each file that it changes there.

    Returns
    -------
    int
        The process.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    process = os.fork()  # what is imported need not be so again
    if process:
        return process
    code = 1
    try:
        log = os.open(f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if watch is not None:
            sys.addaudithook(hook(folder, watch))
        train.main([argv[0], "--output_folder", str(folder), *argv[1:]])
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


def hook(folder, watch):
    """Make an audit hook that tells which files of a folder are changed.

    Arguments
    ---------
    folder : Path
    watch : callable
    """

    def audit(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and str(path).startswith(f"{folder}/"):
            watch(str(path))

    return audit


def wait(process, seconds):
    """Wait for a process; return its exit code, or None if it is late and killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    kill(process)
    return None


def kill(process):
    """End a process as nothing can hinder."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


# ------------------------------------------------------------------ one kill


def killed_after(argv, folder, seconds):
    """Start a run and kill it after some seconds.

    Returns
    -------
    bool
        Whether it had not ended by itself.
    """
    process = start(argv, folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    kill(process)
    return True


def killed_at(argv, folder, number, delay=0.0):
    """Start a run; kill it some seconds after it changes a file for the n-th time.

    Returns
    -------
    str or None
        Which file it was, relative to the folder; None if it ended by itself.
    """
    reading, writing = os.pipe()
    seen = []

    def watch(path):
        seen.append(path)
        if len(seen) == number:
            os.write(writing, os.path.relpath(path, folder).encode())
            if not delay:
                os.kill(os.getpid(), signal.SIGKILL)

    process = start(argv, folder, watch)
    os.close(writing)
    try:
        select.select([reading], [], [])
        file = os.read(reading, 4096).decode()
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        os.close(reading)
    return file if status == -signal.SIGKILL else None


def uninterrupted(argv, folder, limit=600):
    """Run train.py to its end.

    Returns
    -------
    seconds : float
    changes : list of str
        Which files of the folder it changed, one after the other.

    Raises
    ------
    RuntimeError
        Naming where it says why it failed.
    """
    begin = time.monotonic()
    noted = Path(f"{folder}.changes")
    noted.parent.mkdir(parents=True, exist_ok=True)
    with open(noted, "wb", buffering=0) as file:

        def note(path):
            file.write(f"{os.path.relpath(path, folder)}\n".encode())

        process = start(argv, folder, note)
    if wait(process, limit) != 0:
        raise RuntimeError(f"{folder} failed, see {folder}.txt")
    return time.monotonic() - begin, noted.read_text().splitlines()


def resumed(argv, folder, whole, limit):
    """Start a killed run again; say how it ended.

    Arguments
    ---------
    argv : list of str
    folder : Path
    whole : dict
        What :func:`left_by` an uninterrupted run.
    limit : float
        Seconds from which on it counts as stuck.

    Returns
    -------
    str
        ``equal``, or what is wrong.
    """
    code = wait(start(argv, folder), limit)
    if code is None:
        return f"stuck after {limit:.0f} s"
    if code:
        last = Path(f"{folder}.txt").read_text().strip().splitlines()[-1]
        return f"failed: {last}"
    found = left_by(folder)
    names = {**whole, **found}
    differing = [name for name in names if whole.get(name) != found.get(name)]
    return f"differs: {', '.join(differing)}" if differing else "equal"


# ----------------------------------------------------------------- the whole


def one(name, number, argv, args, whole, length):
    """Kill a run once and let it go on.

    Arguments
    ---------
    name : str
        Of the configuration.
    number : int
        Of the kill.
    argv : list of str
        Of train.py.
    args : argparse.Namespace
    whole : dict
        Of :func:`left_by`.
    length : tuple
        Of :func:`uninterrupted`.

    Returns
    -------
    dict
        A row of the table.
    """
    generator = random.Random(f"{args.seed} {name} {number}")
    seconds, changes = length
    folder = args.work / name.replace(" ", "_") / str(number)
    row = {"configuration": name, "kill": number}
    while "moment" not in row:
        clear(folder)
        if number % 2:
            after = generator.uniform(0, seconds)
            if killed_after(argv, folder, after):
                row |= {"moment": "time", "seconds": after}
        else:
            event = generator.randint(1, len(changes))
            delay = generator.choice([0.0, generator.uniform(0, 0.003)])
            if file := killed_at(argv, folder, event, delay):
                row |= {"moment": f"change {event}", "seconds": delay, "file": file}
    done = folder / "rounds.csv"
    row["rounds"] = len(read_table(done)) if done.exists() else ""
    row["outcome"] = resumed(argv, folder, whole, 60 + 20 * seconds)
    if row["outcome"] == "equal":
        clear(folder)
    return row


def clear(folder):
    """Remove a run, and what it printed."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.txt").unlink(missing_ok=True)


def words_of(name, args):
    """Write the command line of a configuration, without its output folder."""
    file = CENTRAL if name == "centralised" else FEDERATED
    if name == "server momentum":
        file = args.work / "momentum.yaml"
        file.write_text(MOMENTUM.format(base=os.path.relpath(FEDERATED, args.work)))
    return words(file, {**COMMON, **CONFIGURATIONS[name]}, args)


def words(file, options, args):
    """Write a command line of train.py on the small network, without output folder."""
    model = args.work / "model.yaml"
    model.write_text(MODEL)
    options = {
        **options,
        "data_folder": args.data_folder,
        "manifest_folder": args.work / "manifests",
        "models": f"!include:{model}",
    }
    given = [str(word) for key in options for word in (f"--{key}", options[key])]
    return [str(file), "--noprogressbar", *given]


def main(argv=None):
    """Run, write the table, print a summary; exit with 1 if a kill did harm."""
    args = parse(argv)
    measuring.begin(args)
    args.work = args.work.absolute()
    args.work.mkdir(parents=True, exist_ok=True)
    code = version().partition(",")[0]
    kept = Kept(args.out, ["configuration", "kill"], code=code)
    for name in args.names:
        argv = words_of(name, args)
        left = [n for n in range(args.kills) if kept.lacks(name, n)]
        if not left:
            continue
        folder = args.work / name.replace(" ", "_") / "whole"
        clear(folder)
        uninterrupted(argv, folder)  # prepares, where nothing is prepared yet
        clear(folder)
        length = uninterrupted(argv, folder)
        whole = left_by(folder)
        for number in left:
            row = one(name, number, argv, args, whole, length)
            print(*row.values(), flush=True)
            kept.add({**row, "code": code, "machine": measuring.machine(args)})
    equal = sum(row["outcome"] == "equal" for row in kept.rows)
    print(f"{len(kept.rows)} kills, {equal} went on to an equal end")
    sys.exit(equal < len(kept.rows))


if __name__ == "__main__":
    main()
