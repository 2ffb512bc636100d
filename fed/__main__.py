"""``python -m fed train.py train.yaml`` trains a recipe with its federation."""

import sys
import traceback
from pathlib import Path

from fedenhance.run_folder import arguments
from fedenhance.run_folder.torchaudio_fits import let_torchaudio_load

OURS = Path(__file__).parent, Path(arguments.__file__).parents[1]
"""Folders of code whose errors say what to do; others show where they come from."""


ABOUT = """Federates a SpeechBrain recipe: runs its script, as python would, up to
the call to Brain.fit(); trains with the federation; goes on with the best model.
Instead of a script, a YAML file that names brain and datasets will do."""


def parse(words):
    """Take the options of ``fed`` out of a command line.

    Arguments
    ---------
    words : list of str
        ``train.py train.yaml --key value ...`` or ``train.yaml --key value ...``, and
        anywhere among them ``--federation``, ``--fit``, ``--restart``.

    Returns
    -------
    options : argparse.Namespace
    args : list of str
        What is left.

    Raises
    ------
    ValueError
        If a file that it names is not there, or is not used.
    """
    parser = arguments.Parser(
        prog="fed",
        usage="python -m fed [train.py] train.yaml [--key value ...]",
        description=ABOUT,
        allow_abbrev=False,
    )
    about = "a YAML file that has the key 'federation', for a script"
    parser.add_argument("--federation", help=about)
    about = "which call to fit(): its number, or the class"
    parser.add_argument("--fit", help=about)
    about = "remove what a federation left"
    parser.add_argument("--restart", action="store_true", help=about)
    about = "show where an error comes from"
    parser.add_argument(arguments.TRACEBACK, action="store_true", help=about)
    options, args = parser.parse_known_args(words)
    if not args:
        parser.error("which script, or which YAML file?")
    script = args[0].endswith(".py")
    if script and not Path(args[0]).is_file():
        raise ValueError(f"there is no script {args[0]}")
    if options.federation:
        if not script:
            raise ValueError(
                "--federation is for scripts: write the key 'federation' into "
                f"{args[0]}"
            )
        if not Path(options.federation).is_file():
            raise ValueError(f"--federation: there is no file {options.federation}")
    return options, args


def main():
    """Run the command of this process; what is refused is said in a line."""
    try:
        parse(sys.argv[1:])
        let_torchaudio_load()
        from fed.command import run

        run(sys.argv[1:])
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if arguments.TRACEBACK in sys.argv or not any(
            map(raised_in.is_relative_to, OURS)
        ):
            raise
        sys.exit(f"fed: {arguments.in_a_line(error)}")


if __name__ == "__main__":
    main()
