"""What a command line asks for, as far as it makes a run the experiment that it is."""

import io
import json
import re
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.run_opts import RunOptions

from fedenhance.based_yaml import save_hparams, sources_of

HARMLESS = {
    *("output_folder", "prepare", "results", "live", "sinks", "train_logger"),
    *("personal",),  # comes after all rounds
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


@dataclass
class Command:
    """A command line that trains by a YAML file.

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
    others : list of str
        Further YAML files that it names.
    """

    ways = "Give another --output_folder, or --restart to remove what is there"
    """How to go on where the folder holds another experiment."""

    traces = ("save/federation*", "save/CKPT*")
    """Patterns of what is trained, which a run can go on from."""

    written = (
        *("hyperparams.yaml", "env.log", "log.txt", "train.py", "train_log.txt"),
        *("rounds.csv", "clients.csv", "clients_data.csv", "personal.csv"),
        *("valid_mixtures.csv", "test_mixtures.csv", "test_metrics.csv", "report.html"),
        *("judged.csv", "verdict.json", "adapted.ckpt", "wer_test.txt"),
        *("save", "figures", "audio", "package", "evaluation", "tensorboard", "wandb"),
        *("estimates", "debug", "run.json"),
    )
    """What a run leaves in its folder. Manifests stay: preparing finds what is new."""

    hparams_file: str
    overrides: str
    run_opts: dict
    restart: bool
    values: dict
    folder: Path
    others: list = field(default_factory=list)

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
        told = flat({**self.values, **given}, str(self.values["output_folder"]))
        return of_now(told)

    @property
    def sources(self):
        """The YAML files that it is made of."""
        return [*sources_of(self.hparams_file), *self.others]

    def write_hparams(self):
        """Put the YAML, as it was used, into the folder."""
        save_hparams(self.hparams_file, self.overrides, self.folder)


def parse_words(words):
    """Parse as SpeechBrain does; what it refuses is a ValueError, without its usage.

    Returns
    -------
    hparams_file : str
    run_opts : dict
        Those that are given.
    overrides : str
    """
    if not words or words[0].startswith("-"):
        raise ValueError("which YAML file? Name it first, then --key value")
    for word in words[1:]:
        if re.match(r"-?[a-z]\w*=|-[a-z]\w+$", word):
            raise ValueError(f"{word}: options begin with --, as --{word.lstrip('-')}")
    check_contradictions(words)
    words = list(map(quoted, words))
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            file, options, overrides = sb.parse_arguments(words)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise ValueError(said.getvalue().strip().rpartition("error: ")[2]) from end
    return file, {name: options[name] for name in options.overridden_args}, overrides


def quoted(word):
    r"""Quote text in which YAML would find a comment, or a mapping.

    Example
    -------
    >>> quoted("/data/clips #2"), quoted("--live=[a #1"), quoted("{a: 1}")
    ('"/data/clips #2"', '--live=[a #1', '{a: 1}')
    """
    head, value = re.fullmatch(r"(?s)(--\w+=|)(.*)", word).groups()
    misread = re.fullmatch(r"[^\s\[\]{}\"'!&*|>%@`-].*(\s#|:\s).*", value)
    return head + json.dumps(value) if misread else word


def check_contradictions(words):
    """Raise ValueError for an option that is given twice, with two values.

    Example
    -------
    >>> check_contradictions("a.yaml --rounds 5 --seed=1 --rounds 50".split())
    Traceback (most recent call last):
    ValueError: --rounds is given twice: 5, and 50
    """
    given = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if match := re.fullmatch(r"(?s)--(\w+)(?:=(.*))?", word):
            name, value = match.groups()
            value = value or ("" if after.startswith("--") else after)
            if given.setdefault(name, value) != value:
                raise ValueError(f"--{name} is given twice: {given[name]}, and {value}")


def grouped(options):
    """Group the words of each option; of equal options the last one counts.

    Example
    -------
    >>> grouped(["--lr", "1", "--debug", "--lr=2"])
    {'lr': ['--lr=2'], 'debug': ['--debug']}
    """
    groups, key = {}, ""
    for word in options:
        if word.startswith("--"):
            key = word[2:].partition("=")[0]
            groups[key] = []
        groups.setdefault(key, []).append(word)
    return groups


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
            elif str(name).endswith(("_folder", "_corpus", "_csv")):
                value = str(Path(value).absolute())
            elif name in ("maximize", "minimize"):
                value = value.removeprefix("valid_")
        leaves[place] = json.loads(json.dumps(value, default=str))
    return leaves


def of_now(settings):
    """Name each manifest, and absolutely, as older versions and other YAML do not.

    Networks said whether their statistics are frozen, which the experiment says now.

    Example
    -------
    >>> of_now({"manifest_folder": "/m", "test_csv": ["a.csv"]})
    {'train_csv': '/m/train.csv', 'valid_csv': '/m/valid.csv', 'test_csv': ['a.csv'],
     'manifest_folder': '/m'}
    """
    folder = settings.get("manifest_folder")
    splits = ("train", "valid", "test") if folder else ()
    settings = {f"{split}_csv": f"{folder}/{split}.csv" for split in splits} | settings
    relative = [
        key
        for key, value in settings.items()
        if key.endswith("_csv") and isinstance(value, str) and value[:1] not in "</"
    ]
    said = [key for key in settings if key.endswith(".frozen_statistics")]
    settings = {k: v for k, v in settings.items() if k not in said or v}
    return settings | {key: str(Path(settings[key]).absolute()) for key in relative}
