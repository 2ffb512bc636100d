"""What a command line of ``train.py`` asks for, checked before anything is made."""

import hashlib
import json
import math
import re
import sys
from pathlib import Path

from fedenhance.based_yaml import (
    check_overrides,
    open_hparams,
    read_values,
    sources_of,
)
from fedenhance.run_folder.commands import GROWING, HARMLESS, Command, parse_words

FLAGS = ("--restart", "--traceback")
"""Options of ``train.py`` that are neither SpeechBrain's nor keys of the YAML."""

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
    check_placeholders(values, file)
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
    check_models(values, folder)
    restart = "--restart" in argv
    return Command(file, overrides, run_opts, restart, values, Path(folder))


def check_models(values, folder):
    """Raise ValueError if a run would write over the model that it starts from."""
    written = [Path(folder, name).resolve() for name in ("", *Command.written)]
    for key in ("start", "initial_model"):
        if model := values.get(key):
            path = Path(str(model)).resolve()
            if path == written[0] or any(map(path.is_relative_to, written[1:])):
                raise ValueError(
                    f"{key}: {model} lies in the output_folder, where this run writes: "
                    "give another --output_folder"
                )


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
            if key == "models":
                name = Path(str(value)).name.removesuffix(".yaml")
                here = f", such as '!include:models/{name}.yaml'"
            raise ValueError(
                f"{key} is {value!r}; it must be {kind_of(default)}{here} (of {file})"
            )


def check_placeholders(values, file):
    """Raise ValueError for a key that the user must give, saying what it is."""
    text = "\n".join(Path(source).read_text() for source in sources_of(file))
    for key, about in re.findall(r"(?m)^(\w+): *!PLACEHOLDER *(?:# *(.*))?$", text):
        if values.get(key) is None:
            told = f" ({about})" if about else ""
            raise ValueError(f"{file} needs --{key} VALUE{told}")


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
