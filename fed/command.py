"""The command that makes a site: a recipe's script, run up to its call to ``fit()``.

What ``python -m fed`` is given is also how other processes make a site of their own.
"""

import ast
import dataclasses
import difflib
import functools
import io
import json
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import torch
from speechbrain import Brain
from speechbrain.utils.logger import get_logger

from fed import recipe
from fed.__main__ import parse
from fed.brain import Federated
from fed.claim import apart_if_debug, held
from fed.memory import keep_freed_memory
from fedenhance.based_yaml import find, load_hparams, read_values
from fedenhance.run_folder.record import as_server, as_worker

CHOOSE = (
    "say by --fit, with a number or a class, which call to federate; others stay as "
    "they are."
)

logger = get_logger(__name__)


class Reached(BaseException):
    """Leaves a script at its call to ``fit()``, with the site that was made there."""

    def __init__(self, site):
        super().__init__()
        self.site = site


class Process:
    """What this process runs, whether it goes on after ``fit()``, what it has made."""

    command, stops_at_fit, sites = None, False, {}
    serve = None  # what takes the place of clients in this process, on a server
    claim = None  # of the output folder
    federated = False  # whether a federation has begun in the place of a fit()


def run(argv):
    """Run a script, or what stands for it, with its call to ``fit()`` federated.

    Arguments
    ---------
    argv : list of str
        ``train.py train.yaml --key value ...`` or ``train.yaml --key value ...``, and
        anywhere among them ``--federation``, ``--fit``.
    """
    options, args = parse([str(arg) for arg in argv])
    if options.federation:
        check_federation(options.federation)
    Process.command = [str(arg) for arg in argv]
    args = apart_if_debug(args)
    with held(args, options.federation, options.restart) as claim:
        before, Process.claim = Process.claim, claim
        try:
            if not args[0].endswith(".py"):
                return recipe.main(args)
            with fit_federated(options.federation, options.fit):
                return run_as_main(args)
        finally:
            Process.claim = before


def check_federation(file):
    """Raise ValueError for a key of a federation's YAML file that there is not.

    Said before a recipe prepares anything.
    """
    from fed.federation import Federation

    given = read_values(file).get("federation")
    known = [field.name for field in dataclasses.fields(Federation)]
    if not isinstance(given, dict) or "Federation" not in str(given.get("!")):
        return  # said at fit(), or made by what is the recipe's own
    for key in given.keys() - {"!", *known}:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{file}: federation has no key {key}{hint}")


def run_as_main(args):
    """Run a script as ``python`` does; it stays the module ``__main__``."""
    script = Path(args[0])
    module = types.ModuleType("__main__")
    module.__file__ = args[0]
    sys.modules["__main__"] = module
    sys.argv = list(args)
    sys.path.insert(0, str(script.resolve().parent))
    exec(compile(script.read_bytes(), args[0], "exec"), vars(module))


@contextmanager
def fit_federated(file=None, chosen=None):
    """Make ``Brain.fit`` train with a federation.

    Arguments
    ---------
    file : str
        YAML with the key ``federation``; by default, hparams have it.
    chosen : str
        The number of the call, or the name of the Brain's class; the first by default,
        which must then be the only one. Other calls are left as they are.
    """
    own, start, calls, given = Brain.fit, Brain.on_fit_start, [], {}
    before, Process.federated = Process.federated, False

    @functools.wraps(own)
    def fit(brain, *args, **kwargs):
        if isinstance(brain, Federated):
            return own(brain, *args, **kwargs)
        calls.append(type(brain).__name__)
        if chosen is None and len(calls) > 1:
            raise ValueError(
                f"fit() is called for {' and then '.join(calls)}: {CHOOSE}"
            )
        if chosen is None and len(lines := calls_of_fit()) > 1:
            where = " and ".join(map(str, lines))
            raise ValueError(f"fit() is called in lines {where}: {CHOOSE}")
        if chosen not in (None, str(len(calls)), calls[-1]):
            # After a federation: what is trained now is kept where the recipe says.
            brain.checkpointer = given.pop(id(brain), brain.checkpointer)
            return own(brain, *args, **kwargs)
        given[id(brain)] = brain.checkpointer
        if file:
            federation = load_hparams(file).get("federation")
        else:
            federation = getattr(brain.hparams, "federation", None)
        if federation is None:
            raise ValueError(
                f"{file or 'The YAML'} has no key 'federation'; add it, or give the "
                "option --federation with a file that has it."
            )
        return federation.fit(brain, *args, **kwargs)

    @functools.wraps(start)
    def on_fit_start(brain):
        if not calls and not Process.federated:  # scripts may call the federation's
            raise ValueError(
                f"{type(brain).__name__} trains without Brain.fit(), in whose place a "
                "federation trains: let its fit() call super().fit()"
            )
        start(brain)

    Brain.fit, Brain.on_fit_start = fit, on_fit_start
    try:
        yield
    except SystemExit as error:
        if error.code or Process.federated:
            raise
    finally:
        Brain.fit, Brain.on_fit_start = own, start
        federated, Process.federated = Process.federated, before
    if not federated:
        chose = f", and --fit says {chosen}" if chosen else ""
        called = " and then ".join(calls) or "no Brain"
        raise ValueError(f"Nothing was federated: fit() was called for {called}{chose}")


def calls_of_fit():
    """List the lines where the script calls the ``fit()`` of a Brain.

    That is one of several arguments, of something that is not ``self``.
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not (file and Path(file).exists()):
        return []
    calls = (n for n in ast.walk(ast.parse(Path(file).read_bytes())) if is_fit(n))
    return sorted(call.lineno for call in calls)


def is_fit(node):
    """Tell whether a node of a syntax tree is a call to the ``fit()`` of a Brain.

    Example
    -------
    >>> [is_fit(ast.parse(text, mode="eval").body) for text in (
    ...     "brain.fit(counter, train, valid)", "self.fit(range(1), part)", "f.fit(x)")]
    [True, False, False]
    """
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    owner = getattr(node.func.value, "id", None)
    several = len(node.args) + len(node.keywords) > 1
    return node.func.attr == "fit" and owner != "self" and several


def current():
    """Describe this process's command, for others to run as well."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    started = [str(Path(main).resolve()) if main else "", *sys.argv[1:]]
    return json.dumps(Process.command or started)


def keep(command, site):
    """Make this process use a site that it has made already."""
    Process.sites = {command: site}


def load(command):
    """Make the site of a command, or find it made.

    Arguments
    ---------
    command : str
        Of :func:`current` or :func:`deployed`.

    Returns
    -------
    Site
    """
    if command not in Process.sites:
        keep_freed_memory()
        torch.set_num_threads(1)
        Process.stops_at_fit = True
        try:
            with as_worker():
                run(json.loads(command))
        except Reached as reached:
            keep(command, reached.site)
    return Process.sites[command]


def serve(command, train):
    """Run a command on the server of real machines, to its end.

    What the script does after ``fit()``, such as its tests, may need data that are not
    here; the model is trained then all the same, and the log says what has failed.

    Arguments
    ---------
    command : str
        Of :func:`deployed`.
    train : callable
        Takes a site, and trains on those of others.
    """
    trained = []

    def fit(site):
        train(site)
        trained.append(site)

    keep_freed_memory()
    torch.set_num_threads(1)
    Process.serve = fit
    try:
        with as_server():
            run(json.loads(command))
    except (Exception, SystemExit) as error:
        exits = isinstance(error, SystemExit)
        if not trained and not exits:
            raise
        if not trained:
            raise RuntimeError(f"the script exits: {error}") from error
        if exits and not error.code:  # as a command that is done does
            return
        logger.warning(
            "The model is trained, and in %s; what the script does after fit() failed "
            "on this machine: %s",
            trained[0].output_folder,
            error,
            exc_info=error,
        )
    finally:
        Process.serve = None


def deployed(context):
    """Describe the command that Flower's run config and node config speak of.

    Relative paths of the script and of YAML files are relative to the app.
    """
    run_config, node = context.run_config, context.node_config
    root = Path(__file__).resolve().parents[1]
    files = [run_config[key] for key in ("script", "hparams") if run_config.get(key)]
    overrides = [run_config["overrides"], node.get("overrides", "")]
    device = node.get("device", run_config.get("device"))
    overrides += [f"device: {device}"] if device else []
    found = [root / file if (root / file).exists() else find(file) for file in files]
    return json.dumps([*map(str, found), *flags(*overrides)])


def flags(*overrides):
    """Writes overrides as a command has them; of equal keys the last one counts.

    Arguments
    ---------
    *overrides : str
        YAML, with HyperPyYAML's tags; may be empty.

    Returns
    -------
    list of str

    Example
    -------
    >>> flags("{rounds: 2, lr: 0.1}", "lr: 0.2", "optimizer: {lr: 1}")
    ['--rounds=2', '--lr=0.2', '--optimizer={lr: 1}']
    """
    from ruamel.yaml import YAML

    yaml, merged = YAML(), {}
    yaml.default_flow_style, yaml.width = True, sys.maxsize
    for text in overrides:
        merged |= yaml.load(text) or {}
    words = []
    for key, value in merged.items():
        text = io.StringIO()
        yaml.dump({key: value}, text)
        words.append(f"--{key}={text.getvalue().strip()[len(key) + 3 : -1]}")
    return words
