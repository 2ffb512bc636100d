"""What a command line of ``train.py`` asks for, checked before anything is made."""

import hashlib
import io
import json
import math
import re
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.run_opts import RunOptions

from based_yaml import check_overrides, open_hparams, read_values

FLAGS = ("--restart", "--traceback")
"""Options of ``train.py`` that are neither SpeechBrain's nor keys of the YAML."""

HARMLESS = {
    *("output_folder", "prepare", "results", "live", "sinks", "train_logger"),
    *("device", "runtime", "cuda_graphs", "test_only", "debug", "noprogressbar"),
    *("num_workers", "prefetch_factor", "persistent_workers", "pin_memory"),
    *("data_parallel_backend", "data_parallel_count", "distributed_backend"),
    *("distributed_launch", "tqdm_colored_bar", "tqdm_barcolor", "log_config"),
    *("ckpt_interval_minutes", "ckpt_interval_steps", "debug_batches"),
    *("debug_epochs", "debug_persistently", "profile_training", "profile_warmup"),
    *("profile_steps", "compile", "compile_module_keys", "compile_mode", "jit"),
    *("compile_using_fullgraph", "compile_using_dynamic_shape_tracing"),
    *("jit_module_keys", "param_file", "overridden_args", "checkpointer"),
}
"""Keys that make no other experiment, wherever in a YAML file they stand."""

GROWING = ("rounds", "federation.rounds", "epochs", "epoch_counter.limit")
"""Keys of which a run that goes on may have more."""

OBJECT = "a mapping or an object"
COUNT = int, 1, math.inf, "a whole number, 1 or more"
NONE_OR_MORE = int, 0, math.inf, "a whole number, 0 or more"
SHARE = (int, float), 0, 1, "a number from 0 to 1"
AMOUNT = (int, float), 0, math.inf, "a number, 0 or more"
ALLOWED = {
    **dict.fromkeys(("rounds", "epochs", "n_clients", "sample_rate"), COUNT),
    **dict.fromkeys(("evaluate_every", "batch_size"), COUNT),
    **dict.fromkeys(("num_workers", "seed", "patience"), NONE_OR_MORE),
    **dict.fromkeys(("p_supervised", "p_labelled", "p_single_mix"), SHARE),
    **dict.fromkeys(("p_available_users", "available_speech_percentage"), SHARE),
    **dict.fromkeys(("learning_rate", "max_grad_norm"), AMOUNT),
    **dict.fromkeys(
        ("segment", "local_epoch_p", "divide_lr_by"),
        ((int, float), sys.float_info.min, math.inf, "a number above 0"),
    ),
    "grad_accumulation_factor": COUNT,
}
"""Top-level key -> its type, lowest and highest value, and both in words."""


@dataclass
class Command:
    """A command line of ``train.py``.

    Attributes
    ----------
    hparams_file : str
    overrides : str
        YAML, with the output folder in it.
    run_opts : dict
        Of SpeechBrain, those that were given.
    restart : bool
        Whether what is in the folder goes.
    values : dict
        Of :func:`based_yaml.read_values`.
    folder : Path
        Where its results go.
    """

    hparams_file: str
    overrides: str
    run_opts: dict
    restart: bool
    values: dict
    folder: Path

    @property
    def debug(self):
        """Whether it is SpeechBrain's trial of a few batches."""
        return bool(self.run_opts.get("debug"))

    @property
    def settings(self):
        """All that makes it the experiment that it is.

        Returns
        -------
        dict
            Dotted key -> plain value, that of a run option among them.
        """
        defaults = RunOptions()
        given = {
            name: value
            for name, value in self.run_opts.items()
            if name in self.values or value != defaults[name]
        }
        return flat({**self.values, **given}, str(self.values["output_folder"]))


def read_command(argv):
    """Read and check a command line.

    Without ``output_folder`` the YAML's own gets a suffix, made of the settings that
    are not as in the YAML. A debug run goes to ``debug/`` in its folder.

    Arguments
    ---------
    argv : list of str
        YAML file, then :data:`FLAGS`, overrides and SpeechBrain's run options.

    Returns
    -------
    Command

    Raises
    ------
    FileNotFoundError, ValueError
        Naming a key that is unknown, or has a value that makes no sense.
    """
    file, run_opts, overrides = parse_words([a for a in argv if a not in FLAGS])
    given, defaults = (
        {**check_overrides(file, overrides), **run_opts},
        read_values(file),
    )
    check_values(given, defaults, file)
    values = read_values(file, overrides)
    check_values(values, defaults, file)
    folder = values["output_folder"]
    if Path(values.get("save_folder", f"{folder}/save")) != Path(folder, "save"):
        raise ValueError(
            f"save_folder is {values['save_folder']!r}; it must be {folder}/save, "
            "where other programs look for the model"
        )
    if "output_folder" not in given:
        folder += suffix_of(given, defaults, file)
    if run_opts.get("debug"):
        folder += "/debug"
        run_opts["debug_persistently"] = True  # there, all of it goes with the next one
    if folder != values["output_folder"]:
        others = re.sub("^output_folder:.*", "", overrides, flags=re.MULTILINE)
        overrides = f"{others}\noutput_folder: {json.dumps(folder)}".strip()
    restart = "--restart" in argv
    return Command(file, overrides, run_opts, restart, values, Path(folder))


def parse_words(words):
    """Parse as SpeechBrain does; what it refuses is a ValueError, without its usage.

    Returns
    -------
    hparams_file : str
    run_opts : dict
        Those that are given.
    overrides : str
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            file, options, overrides = sb.parse_arguments(words)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise ValueError(said.getvalue().strip().rpartition("error: ")[2]) from end
    return file, {name: options[name] for name in options.overridden_args}, overrides


def suffix_of(given, defaults, file):
    """Tell a command from its YAML file, in the name of a folder.

    Arguments
    ---------
    given, defaults : dict
        Values of the command, and of the YAML file.
    file : str
        The YAML file.

    Returns
    -------
    str
        Such as ``-p_supervised_0.5``; empty if no setting differs that matters, and is
        not in the YAML's ``output_folder`` already.
    """
    line = re.search("^output_folder:.*", open_hparams(file).getvalue(), re.MULTILINE)
    told = {*HARMLESS, *GROWING, *re.findall(r"<(\w+)", line.group())}
    suffix = "".join(
        f"-{key}_{word(value)}"
        for key, value in sorted(given.items())
        if key not in told and value != defaults.get(key)
    )
    return suffix if len(suffix) < 100 else f"{suffix[:80]}_{digest_of(suffix)}"


def digest_of(value):
    """Digest what is too long for a name."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:6]


def word(value):
    """Make a value part of a file's name.

    Example
    -------
    >>> word(0.5), word("/data/corpora"), word([0, 3]), word("!include:models/a.yaml")
    ('0.5', 'corpora', '0_3', 'a')
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = Path(re.sub(r"^!\w+:", "", text)).name.removesuffix(".yaml")
    text = re.sub(r"[^\w.-]+", "_", text).strip("_")
    if len(text) > 24:
        text = f"{text[:16]}_{digest_of(value)}"
    return text


def flat(values, folder="", key=""):
    """Settings by dotted keys, without those that are harmless.

    Arguments
    ---------
    values : dict
        Of :func:`based_yaml.read_values`.
    folder : str
        Output folder; what lies in it is written relative to it, and other folders
        absolutely.
    key : str
        Of the values, within others.

    Returns
    -------
    dict

    Example
    -------
    >>> flat({"a": {"b": 1, "device": "cpu"}, "f": "out/save"}, "out")
    {'a.b': 1, 'f': '<output_folder>/save'}
    """
    leaves = {}
    for name, value in values.items():
        if name in HARMLESS:
            continue
        place = f"{key}{name}"
        if isinstance(value, list) and any(isinstance(v, dict) for v in value):
            value = dict(enumerate(value))
        if isinstance(value, dict):
            leaves |= flat(value, folder, f"{place}.")
            continue
        if isinstance(value, str):
            if folder and f"{value}/".startswith(f"{folder}/"):
                value = f"<output_folder>{value[len(folder) :]}"
            elif str(name).endswith(("_folder", "_corpus")):
                value = str(Path(value).absolute())
            elif name in ("maximize", "minimize"):
                value = value.removeprefix("valid_")
        leaves[place] = json.loads(json.dumps(value, default=str))
    return leaves


def check_values(values, defaults, file):
    """Raise ValueError for a value that cannot be meant, naming key and value.

    Arguments
    ---------
    values : dict
        Top-level values and run options.
    defaults : dict
        The YAML file's own values, whose kind others must have.
    file : str
        Named in the message.
    """
    for key, value in values.items():
        default = defaults.get(key)
        if value is None and default is None:
            continue
        if key in ALLOWED:
            kind, low, high, words = ALLOWED[key]
            fits = isinstance(value, kind) and not isinstance(value, bool)
            if not fits or not low <= value <= high:
                raise ValueError(f"{key} is {value!r}; it must be {words}")
        elif None not in (value, default) and kind_of(value) not in (
            kind_of(default),
            OBJECT,
        ):
            here = f", such as {default!r}" if len(repr(default)) < 50 else ""
            raise ValueError(
                f"{key} is {value!r}; it must be {kind_of(default)}{here} (of {file})"
            )


def kind_of(value):
    """Name the kind of a value.

    Example
    -------
    >>> kind_of(True), kind_of(1), kind_of([2]), kind_of({"!": "name:torch.sum"})
    ('true or false', 'a number', 'a list', 'a mapping or an object')
    """
    if isinstance(value, dict) or str(value).startswith("!"):
        return OBJECT
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "text"


def check_device(name):
    """Raise ValueError for a device that is misspelt or not there.

    Arguments
    ---------
    name : str or None
        Of PyTorch; None: SpeechBrain chooses.
    """
    if name is None:
        return
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    kind, _, index = str(name).partition(":")
    if kind not in counts or not (index or "0").isdecimal():
        raise ValueError(f"device is {name!r}; it must be cpu, cuda, cuda:N or mps")
    if kind != "cpu" and int(index or 0) >= counts[kind]:
        raise ValueError(
            f"device is {name!r}; PyTorch sees {counts[kind]} {kind} devices here (cpu "
            "always works)"
        )
