"""Files that are there whole or not at all."""

import os
from contextlib import contextmanager
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
