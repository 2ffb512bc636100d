"""How programs take their arguments, and say what they refuse: in one line."""

import argparse

TRACEBACK = "--traceback"
"""Shows where an error comes from; any program takes it."""


def in_a_line(error):
    """Say an error in one line, whatever it says.

    Arguments
    ---------
    error : Exception

    Returns
    -------
    str

    Example
    -------
    >>> in_a_line(FileNotFoundError(2, "No such file or directory", "noisy.wav"))
    'noisy.wav: no such file or directory'
    """
    if isinstance(error, OSError) and error.filename and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return f"{error.filename}: {reason}"
    return " ".join(str(error).split()) or type(error).__name__


class Parser(argparse.ArgumentParser):
    """Parses the arguments of a command; what it refuses is said in one line.

    Arguments
    ---------
    **options : dict
        Of ``argparse.ArgumentParser``.
    """

    def __init__(self, **options):
        keep = {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**keep, **options})

    def error(self, message):
        """End the process."""
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def above_zero(kind):
    """Make a type of arguments: numbers above 0.

    Arguments
    ---------
    kind : type
        int or float.

    Returns
    -------
    callable
    """

    def convert(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"it must be above 0, not {text}")
        return value

    convert.__name__ = kind.__name__  # what argparse calls it where it is no number
    return convert
