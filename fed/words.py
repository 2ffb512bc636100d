"""The command line of ``python -m fed``, read before anything slow is imported."""

from pathlib import Path

from fedenhance.run_folder.arguments import TRACEBACK, Parser

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
    parser = Parser(
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
    parser.add_argument(TRACEBACK, action="store_true", help=about)
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
