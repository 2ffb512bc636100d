"""The command ``fedenhance``, and the programs of a clone of the repository.

Nothing is imported before it is known to be needed: help is there at once.
"""

import gc
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from fedenhance.run_folder.arguments import TRACEBACK, in_a_line
from fedenhance.run_folder.torchaudio_fits import let_torchaudio_load

COMMANDS = {
    "train": ("commands.train", "train the experiment of a YAML file"),
    "enhance": ("commands.enhance", "enhance recordings with a trained model"),
    "live": ("commands.live", "enhance a microphone's signal, or a pipe's"),
    "evaluate": ("commands.evaluate", "score a trained model, or compare two"),
    "export": ("commands.export", "write a model as one file: ONNX or torch.export"),
    "package": ("commands.package", "write a model as a folder for others to load"),
    "manifests": ("commands.manifests", "describe a folder of recordings for training"),
    "experiments": ("commands.experiments", "train the experiments of a list"),
    "figures": ("commands.figures", "draw the paper's figures from result folders"),
}
"""Name -> module of this package that has ``main(argv)``, and what it does."""


def start(name, argv):
    """Run a command to its end; what it refuses is said in one line.

    Arguments
    ---------
    name : str
        Of :data:`COMMANDS`.
    argv : list of str
        Its arguments. The process ends with 1 after an error, or where ``main``
        returns a number other than 0.
    """
    let_torchaudio_load()
    place, _ = COMMANDS[name]
    if name == "train" and {"-h", "--help"} & set(argv):
        place = "commands.keys"
    with importing():
        module = import_module(f"fedenhance.{place}")
    words = [word for word in argv if word != TRACEBACK]
    try:
        status = module.main(words)
    except KeyboardInterrupt:
        sys.exit(f"{program(name)}: stopped; the same command goes on")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        # Of RuntimeErrors in training, those of the federation say what they mean.
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent
        told = place.name == "fed" or not isinstance(error, RuntimeError)
        if TRACEBACK in argv or not (told or name != "train"):
            raise
        sys.exit(f"{program(name)}: {in_a_line(error)} ({TRACEBACK} shows where)")
    sys.exit(int(isinstance(status, int) and status != 0))


@contextmanager
def importing():
    """Import without looking for garbage: what modules make stays.

    Python would look through all of PyTorch's again and again, now and in training.
    """
    known, collects = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
    if len(sys.modules) > known:
        gc.freeze()


def program(name):
    """Say how this process was told to run a command."""
    script = Path(sys.argv[0])
    return script.name if script.name == f"{name}.py" else f"fedenhance {name}"


def main():
    """Run the command that the first word of the command line names."""
    name, *argv = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        start(name, argv)
    lines = [f"  {name:<12} {what}" for name, (_, what) in COMMANDS.items()]
    text = "\n".join(["fedenhance COMMAND ...; COMMAND --help says more", "", *lines])
    if name not in ("-h", "--help"):
        sys.exit(f"fedenhance: there is no command {name}\n{text}")
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
