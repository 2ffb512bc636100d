"""Train the experiments of a list, each with several seeds; say what they reached.

    python experiments.py recipes/MiniLibriFSD50K/experiments.yaml --seeds 1 2 3
    python experiments.py recipes/LibriFSD50K/experiments.yaml fedenhance_c64 iid \
        --seeds 1 2 3 --data_folder /data --device cuda
    python experiments.py findings results/MiniLibriFSD50K

What is finished is skipped, what was interrupted goes on. Options that are not
named here go to train.py, for all experiments. A list is a YAML file:

    hparams: hparams/fedenhance.yaml    # the experiment that all of them vary
    options: {rounds: 60}               # of train.py, for all of them
    experiments:
        fedenhance_c8: {n_clients: 8}   # options of train.py, for one
        sweep: {each: {p_supervised: [0, 1]}}    # one run for each value

An experiment may name hparams of its own; "options" do not go there. {results} and
{seed} in an option stand for the folder of the results and for the seed; a run that
starts from another's folder comes after it in the list. "before" is a module of this
repository with arguments, whose main makes data before anything is trained. Runs go to
RESULTS/EXPERIMENT/SEED. With several --jobs, what each prints goes to output.txt there;
they share the processors, and a GPU. The number of processors of a run changes the last
digits of its results.
"""

import difflib
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import yaml
from tqdm import tqdm

from fedenhance.__main__ import program
from fedenhance.based_yaml import PACKAGE, find
from fedenhance.run_folder.arguments import Parser, above_zero

logger = logging.getLogger(__name__)

TRAIN = [sys.executable, "-m", "fedenhance", "train"]
"""How the command of a run begins; the arguments of train.py follow."""

OUTPUT = "output.txt"

TOP = ("hparams", "options", "experiments")
"""Keys of a list."""

GIVEN = {"seed": "--seeds", "output_folder": "--results"}
"""Options of train.py that are no experiment's, and what they follow from."""


class Unrepeated(yaml.SafeLoader):
    """Reads YAML; of a key that stands there twice, one value would be lost."""

    def compose_mapping_node(self, anchor):
        """Compose a mapping."""
        node, known = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if str(key.value) in known:
                told = f"{key.value} stands there twice"
                raise yaml.MarkedYAMLError(problem=told, problem_mark=key.start_mark)
            known.add(str(key.value))
        return node


def parse(argv):
    """The command line; what it does not know is for train.py."""
    parser = Parser(
        prog=program("experiments"), description=__doc__, allow_abbrev=False
    )
    parser.add_argument("list", type=Path, help="of experiments")
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument(
        "--results", type=Path, help="default: results/, folder of LIST"
    )
    parser.add_argument("--csv", type=Path, help="one row a run, written anew")
    parser.add_argument("--jobs", type=above_zero(int), default=1, help="runs at once")
    parser.add_argument(
        "--dry_run", action="store_true", help="print what is left to do"
    )
    options, extra = parser.parse_known_args(argv)
    options.results = options.results or Path("results") / options.list.parent.name
    return options, extra


def read_list(path, names=()):
    """The experiments of a list, with sweeps written out.

    Arguments
    ---------
    path : str or Path
    names : sequence of str
        Which to take; all by default. That of a sweep takes all of it.

    Returns
    -------
    dict
        Name -> (YAML file, options of train.py, what makes its data or None).

    Raises
    ------
    ValueError
        Naming an experiment that is not there, or what no list has.
    """
    try:
        text = find(path).read_text(encoding="utf-8")
        listed = yaml.load(text, Unrepeated)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    found = listed.get("experiments") if isinstance(listed, dict) else None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} lists no experiments: it needs a mapping 'experiments' (--help "
            "has an example)"
        )
    for key in listed.keys() - {*TOP}:
        if near := difflib.get_close_matches(str(key), TOP, n=1):
            raise ValueError(f"{path} has a key {key}; did you mean {near[0]}?")
    found = {str(name): own for name, own in found.items()}
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise ValueError(
            f"{path} has no experiment {', '.join(unknown)}; it has {', '.join(found)}"
        )
    experiments = {}
    for name in names or found:
        for member, run in runs_of(name, found[name], listed, path):
            if member in experiments:
                raise ValueError(f"{path}: two runs are named {member}; rename one")
            experiments[member] = run
    return experiments


def runs_of(name, own, listed, path):
    """The runs of one experiment, see :func:`read_list`.

    Yields
    ------
    str, tuple
        Name -> (YAML file, options of train.py, what makes its data or None).
    """

    def mapping(value, place):
        if not isinstance(value or {}, dict):
            raise ValueError(f"{path}: {place} must be a mapping, not {value!r}")
        return dict(value or {})

    if "/" in name or name in (".", ".."):
        raise ValueError(f"{path}: {name!r} is no name of a folder")
    own = mapping(own, name)
    hparams, before = own.pop("hparams", None), own.pop("before", None)
    sweep = mapping(own.pop("each", None), f"each, of {name},")
    shared = {} if hparams else mapping(listed.get("options"), "options")
    hparams = hparams or listed.get("hparams")
    if not isinstance(hparams, str):
        raise ValueError(f"{path}: {name} has no hparams, and neither has the list")
    for option, values in sweep.items():
        if not (isinstance(values, list) and values):
            raise ValueError(
                f"{path}: each, of {name}, needs a list of values of {option}, not "
                f"{values!r}"
            )
    for suffix, member in write_out(sweep):
        options = {**shared, **own, **member}
        for option, instead in GIVEN.items():
            if option in options:
                raise ValueError(
                    f"{path}: {name} has {option}, which {instead} says for all runs"
                )
        yield name + suffix, (hparams, options, before)


def write_out(sweep):
    """The members of a sweep.

    Arguments
    ---------
    sweep : dict
        Option -> list of values; empty: there is one member.

    Returns
    -------
    list of tuple
        (suffix of its name, its option)

    Example
    -------
    >>> write_out({"p_supervised": [0, 0.5]})
    [('_0', {'p_supervised': 0}), ('_0.5', {'p_supervised': 0.5})]
    >>> write_out({"selected_clients": [[0, 3]]})
    [('_0_3', {'selected_clients': [0, 3]})]
    """
    members = [
        ("_" + "_".join(map(word, v if isinstance(v, list) else [v])), {key: v})
        for key, values in sweep.items()
        for v in values
    ]
    return members or [("", {})]


def word(value):
    """Make a value part of a folder's name.

    Example
    -------
    >>> word(0.5), word("a b"), word("/data/a b")
    ('0.5', 'a b', 'data_a_b')
    """
    text = str(value)
    return re.sub(r"[^\w.-]+", "_", text).strip("_") if "/" in text else text


def command_of(hparams, options, folder, seed, extra):
    """The command that trains one run.

    Arguments
    ---------
    hparams : str
        YAML file, see :func:`fedenhance.based_yaml.find`.
    options : dict
        Of train.py.
    folder : Path
        ``RESULTS/EXPERIMENT/SEED``.
    seed : int
    extra : list of str
        More arguments of train.py.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        Naming an option with other braces.
    """
    command = [*TRAIN, str(find(hparams).resolve())]
    options = {"seed": seed, "output_folder": str(folder), **options}
    for key, value in options.items():
        if isinstance(value, str):
            try:
                value = value.format(results=folder.parent.parent, seed=seed)
            except (LookupError, ValueError) as error:
                raise ValueError(
                    f"{key} is {value!r}: {{results}} and {{seed}} are filled in; "
                    "write other braces twice, {{ and }}"
                ) from error
        else:
            value = json.dumps(value, default=str)  # JSON is YAML
        command += [f"--{key}", value]
    return [*command, *extra]


def is_done(folder, command):
    """Whether a run is finished, by the record that it left.

    Arguments
    ---------
    folder : Path
    command : list of str
        That would train it.

    Raises
    ------
    ValueError
        When its folder holds another experiment.
    """
    from fedenhance.run_folder.record import RECORD, is_finished
    from fedenhance.training.settings import read_command

    return (folder / RECORD).exists() and is_finished(
        read_command(command[len(TRAIN) :])
    )


def train(folder, command, jobs=1):
    """Train one run, or go on with it; whether it worked.

    Arguments
    ---------
    folder : Path
    command : list of str
        Of :func:`command_of`.
    jobs : int
        How many runs there are at once. Of several each gets its share of the
        processors, unless OMP_NUM_THREADS is set, and prints to a file in its folder.

    Returns
    -------
    bool
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Where this package lies, for those who did not install it.
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, processors() // jobs)))
    with open(folder / OUTPUT, "ab") if jobs > 1 else nullcontext() as file:
        done = subprocess.run(
            command, check=False, env=environment, stdout=file, stderr=file
        )
    return done.returncode == 0


def processors():
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def train_all(todo, jobs):
    """Train runs, each after those whose folders its command names.

    A run is not started where one of those failed, nor after an interruption.

    Arguments
    ---------
    todo : dict
        Folder -> command, see :func:`train`.
    jobs : int
        How many at once.

    Returns
    -------
    list of str
        Folders of those that did not finish.
    """
    started = {}

    def begin(folder, command, awaited):
        missing = [other for other, run in awaited.items() if not run.result()]
        if missing:
            logger.error("%s is not started: it needs %s", folder, missing[0])
            return False
        logger.info("%d of %d: %s", list(todo).index(folder) + 1, len(todo), folder)
        finished = train(folder, command, jobs)
        if not finished and jobs > 1:
            logger.error("%s failed, see %s there", folder, OUTPUT)
        return finished

    pool = ThreadPoolExecutor(jobs)
    try:
        for folder, command in todo.items():
            awaited = {f: run for f, run in started.items() if is_named(f, command)}
            started[folder] = pool.submit(begin, folder, command, awaited)
        return [str(folder) for folder, run in started.items() if not run.result()]
    finally:
        pool.shutdown(cancel_futures=True)


def is_named(folder, command):
    """Whether a command names a folder, or what lies in it.

    Example
    -------
    >>> is_named(Path("r/a/1"), ["--initial_model", "r/a/1/package"])
    True
    >>> is_named(Path("r/a/1"), ["--initial_model", "r/a/12"])
    False
    """
    return any(f"{word}/".startswith(f"{folder}/") for word in command)


def tell(folders, path=None):
    """Print what finished runs reached, and write one row a run.

    Arguments
    ---------
    folders : list of Path
    path : Path or None
        A CSV.
    """
    from fedenhance.reports.runs import Run, experiments_table
    from fedenhance.reports.scores import write_rows

    rows = [{"experiment": f.parent.name, **Run(f).summary()} for f in folders]
    if rows and path:
        write_rows(path, rows)
    tqdm.write(experiments_table(rows))


def run_list(argv):
    """Train all experiments of a list that are not finished."""
    options, extra = parse(argv)
    listed = read_list(options.list, options.names)
    plan = {}
    for seed in options.seeds:
        for name, (hparams, own, before) in listed.items():
            folder = options.results / name / str(seed)
            plan[folder] = command_of(hparams, own, folder, seed, extra), before
    left = {f: command for f, (command, _) in plan.items() if not is_done(f, command)}
    if options.dry_run:
        tqdm.write("\n".join(map(shlex.join, left.values())))
        return
    for before in filter(None, {plan[folder][1] for folder in left}):
        module, *arguments = shlex.split(before)
        import_module(module).main(arguments)
    failed = train_all(left, options.jobs)
    if "--debug" not in extra:  # what it left is not an experiment's
        tell([folder for folder in plan if str(folder) not in failed], options.csv)
    if failed:
        log = OUTPUT if options.jobs > 1 else "log.txt"
        raise ValueError(f"failed (see {log} there): {', '.join(failed)}")


def tell_findings(argv):
    """Say which of the paper's findings hold for finished runs."""
    from fedenhance.reports import findings
    from fedenhance.reports.runs import find_runs
    from fedenhance.reports.scores import write_rows

    parser = Parser(
        prog=f"{program('experiments')} findings", description=findings.__doc__
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path, help="written anew")
    options = parser.parse_args(argv)
    rows = findings.check_findings(find_runs(options.results))
    if options.csv:
        write_rows(options.csv, rows)
    tqdm.write(findings.findings_table(rows))


def main(argv):
    """Run a command line."""
    if argv[:1] == ["findings"]:
        tell_findings(argv[1:])
    else:
        run_list(argv)
