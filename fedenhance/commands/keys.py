"""What ``train.py --help`` says: the keys of a YAML file, with their comments.

Of the text alone: nothing is imported that trains.
"""

import re
import sys
from pathlib import Path

from fedenhance.__main__ import program
from fedenhance.based_yaml import PACKAGE, sources_of

OPTIONS = """options beside the keys of FILE.yaml:
  --help, -h            this; with FILE.yaml, its keys
  --restart             remove what a run left in its folder
  --traceback           show where an error comes from
  --debug               try a few batches, in a folder of its own
  --device DEVICE       cpu, cuda, cuda:N or mps
  --noprogressbar       no progress bar
  --test_only           only test the best model
and the other run options of SpeechBrain (speechbrain.utils.run_opts.RunOptions)"""


ABOUT = """Train the experiment of a YAML file: federated if it says so, else centrally.
A folder belongs to one experiment: the same command goes on with what was interrupted,
another one is refused there."""


def main(argv):
    """Print what a command line may hold."""
    sys.stdout.write(f"{describe(argv)}\n")


def describe(argv):
    """Say what a command line may hold.

    Arguments
    ---------
    argv : list of str
        It may name a YAML file.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    files = [word for word in argv if word.endswith((".yaml", ".yml"))]
    usage = f"usage: {program('train')} FILE.yaml [--key value ...]"
    text = f"{usage}\n\n{ABOUT}\n\n{OPTIONS}"
    if not files:
        names = sorted((PACKAGE / "hparams").glob("*.yaml"))
        return f"{text}\n\nFILE.yaml, such as " + ", ".join(
            f"hparams/{path.name}" for path in names
        )
    # Later files change what earlier ones say, and may explain it better.
    keys = {}
    for file in sources_of(files[0]):
        for key, (value, comment) in keys_of(Path(file)).items():
            before = keys.pop(key, ("", ""))
            keys[key] = value, comment or before[1]
    lines = [
        f"  --{key:<28} {value:<24} {comment and '# ' + comment}".rstrip()
        for key, (value, comment) in sorted(keys.items())
        if not key.startswith("_")
    ]
    return f"{text}\n\nkeys of {files[0]}, with their values:\n" + "\n".join(lines)


def keys_of(path):
    """Top-level keys of a YAML file: their value and what is said about them.

    Arguments
    ---------
    path : Path

    Returns
    -------
    dict
        Key -> (value, comment)
    """
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = re.match(r"(\w+):(?:\s+(.*))?$", line)
        if parts and parts[1] != "base":
            value, _, comment = f" {parts[2] or ''}".partition(" #")
            found[parts[1]] = value.strip() or "...", comment.strip()
    return found
