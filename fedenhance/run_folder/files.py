"""Files that are there whole or not at all; cells of tables that are no formulas."""

import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path):
    """Let a file take its place only once it is complete.

    Arguments
    ---------
    path : str or Path
        Where it will be, instead of what is there; its folder is made.

    Yields
    ------
    Path
        Where to write it: beside its place, hidden, with the same suffix. After an
        error it is deleted, and what was in the place remains.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # the content is on the disk before the name
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder):
    """Remove what processes that were killed have left half written.

    Arguments
    ---------
    folder : Path
        With the folders in it.
    """
    for path in folder.rglob(".*"):
        name = re.fullmatch(r"\.(\d+)\..+", path.name)
        if name and path.is_file() and not is_running(int(name[1])):
            path.unlink(missing_ok=True)


def sizes(names):
    """Tell how long files are.

    Arguments
    ---------
    names : iterable of str
        What is no file on this machine is left out.

    Returns
    -------
    dict
        Name -> bytes.
    """
    found = {}
    for name in dict.fromkeys(names):
        with suppress(OSError, ValueError):
            known = os.stat(name)
            if stat.S_ISREG(known.st_mode):
                found[name] = known.st_size
    return found


def is_running(process):
    """Tell whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


FORMULA = re.compile(r"[=@\t\r]|[+-].*[(!|=]")
"""How text begins that a spreadsheet would compute, or run."""


def inert(cell):
    """Keep a spreadsheet from taking a cell's text for a formula.

    Example
    -------
    >>> inert("=HYPERLINK(A1)"), inert("-5 to 0"), inert(-5)
    ("'=HYPERLINK(A1)", '-5 to 0', -5)
    """
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def told(text):
    """Read a cell that :func:`inert` wrote.

    Example
    -------
    >>> told("'=A1"), told("'s"), told("=A1")
    ('=A1', "'s", '=A1')
    """
    return text[1:] if text[:1] == "'" and FORMULA.match(text[1:]) else text
