"""Files that a killed run goes on from: whole, checked, and free of programs."""

import csv
import io
import pickle
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from fedenhance.run_folder.checkpoints import check_archive
from fedenhance.run_folder.files import inert, whole_file


def save(path, state):
    """Save what a run goes on from: tensors and plain values, no objects.

    Arguments
    ---------
    path : Path
    state : dict
        Arrays and tensors, numbers, text, booleans, None, in dicts, lists and tuples.

    Raises
    ------
    TypeError
        Naming what is none of these.
    """
    buffer = io.BytesIO()
    torch.save(plain(state), buffer)
    write(path, buffer.getvalue())


def write(path, data):
    """Write bytes to a file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def load(path):
    """Load what :func:`save` saved; tensors come back as arrays.

    Raises
    ------
    DamagedFileError, ValueError
        Naming a file that has changed since, or that an older version made.
    """
    return with_arrays(load_tensors(path))


def load_tensors(path):
    """Load what :func:`save` saved; arrays come back as tensors."""
    check_archive(path, "put it back as it was, or start anew")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} may be of an older version, whose files could hold programs, and "
            "is not read: go on with that version, or start anew (the best model, in "
            "CKPT+..., can be used as before)"
        ) from error


def plain(value, place="state"):
    """Turn arrays into tensors; see that all else is plain.

    Raises
    ------
    TypeError
        Naming the place of what is not.

    Example
    -------
    >>> plain({"w": np.float32([1]), "lr": np.float64(0.5), 0: (None, "x")})
    {'w': tensor([1.]), 'lr': 0.5, 0: (None, 'x')}
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {key: plain(v, f"{place}.{key}") for key, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(v, f"{place}.{i}") for i, v in enumerate(value))
    if not isinstance(value, (bool, int, float, str, type(None), torch.Tensor)):
        raise TypeError(f"{place} is a {type(value).__name__}, which is not saved")
    return value


def with_arrays(value):
    """Turn tensors into arrays."""
    if isinstance(value, dict):
        return {key: with_arrays(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(with_arrays, value))
    return value.numpy() if isinstance(value, torch.Tensor) else value


def file_name(text):
    """Turn any text into the name of a file or folder, and of no other place.

    Example
    -------
    >>> file_name("a/b"), file_name("..")
    ('a%2Fb', '%2E%2E')
    """
    name = quote(str(text), safe="")
    return name if name.strip(".") else name.replace(".", "%2E")


class ClientStates:
    """What clients keep from round to round, in one file a client and round.

    A client that is asked to train round r goes on from its newest state before r, so
    that a round that is repeated after a crash starts from the same state.

    Arguments
    ---------
    folder : Path
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def _files(self, key):
        folder = self.folder.joinpath(*map(file_name, key))
        return folder, {int(path.stem): path for path in folder.glob("[0-9]*.pt")}

    def load(self, key, server_round):
        """Return the state of a (run, client) before a round, or nothing."""
        _, files = self._files(key)
        rounds = [r for r in files if r < server_round]
        if not rounds:
            return {}
        state = load_tensors(files[max(rounds)])
        return state | {k: with_arrays(state.get(k, {})) for k in ("arrays", "numbers")}

    def save(self, key, server_round, state):
        """Save the state of a (run, client) after a round; keep the one before."""
        folder, files = self._files(key)
        save(folder / f"{server_round}.pt", state)
        for old in sorted(r for r in files if r < server_round)[:-1]:
            files[old].unlink()


class Table:
    """A csv file of rows that have a ``round``.

    Arguments
    ---------
    path : Path
    """

    def __init__(self, path):
        self.path = Path(path)
        self.columns = []

    def start(self, last_round):
        """Drop what was written after a round; forget everything for round -1."""
        rows = []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                # A line that was cut off by a kill belongs to a later round.
                complete = (r for r in reader if None not in r.values())
                rows = [r for r in complete if int(r["round"]) <= last_round]
        self.rewrite(rows)

    def rewrite(self, rows):
        """Write all rows anew."""
        self.columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(map(inert_row, rows))
        write(self.path, text.getvalue().encode())

    def append(self, rows):
        """Add rows; new columns make it write the file anew."""
        if any(key not in self.columns for row in rows for key in row):
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rewrite([*csv.DictReader(file), *rows])
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerows(map(inert_row, rows))


def inert_row(row):
    """Clients may call themselves what a spreadsheet takes for a formula."""
    return {key: inert(cell) for key, cell in row.items()}
