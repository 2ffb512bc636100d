"""Files that a killed run goes on from: written aside, then moved into place."""

import csv
import io
import os
from pathlib import Path
from urllib.parse import quote

import torch


def write_atomically(path, data):
    """Writes a file that is complete or absent, whenever the process dies.

    Arguments
    ---------
    path : Path
    data : bytes
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def save(path, state):
    """Save an object with ``torch.save``, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer, pickle_protocol=5)  # the default writes bytes as text
    write_atomically(path, buffer.getvalue())


def load(path):
    """Load what :func:`save` saved: a file of this run's own, hence trusted."""
    return torch.load(path, map_location="cpu", weights_only=False)


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
        folder = self.folder.joinpath(*(quote(str(part), safe="") for part in key))
        return folder, {int(path.stem): path for path in folder.glob("*.pt")}

    def load(self, key, server_round):
        """Return the state of a (run, client) before a round, or nothing."""
        _, files = self._files(key)
        rounds = [r for r in files if r < server_round]
        return load(files[max(rounds)]) if rounds else {}

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
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())

    def append(self, rows):
        """Add rows; new columns make it write the file anew."""
        if any(key not in self.columns for row in rows for key in row):
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rewrite([*csv.DictReader(file), *rows])
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerows(rows)
