"""Tables of what is measured once: what was stopped goes on, nothing is redone."""

from benchmarks.measuring import cell
from fedenhance.data.tables import read_table, write_table


class Kept:
    """A table of what is done once: a benchmark that was stopped goes on with it.

    Arguments
    ---------
    path : Path
        The CSV file. Where there is one, its rows are taken over.
    keys : sequence of str
        The columns that tell one row from another.
    restart : bool
        Whether to begin anew.
    **same : str
        What columns must hold; rows of other values, such as of older code, are done
        again.
    """

    def __init__(self, path, keys, restart=False, **same):
        self.path, self.keys = path, keys
        self.seen = self.read()
        rows = [] if restart else self.seen
        self.rows = [row for row in rows if same.items() <= row.items()]

    def read(self):
        """Read the rows that are there."""
        return read_table(self.path) if self.path.exists() else []

    def lacks(self, *values):
        """Tell whether there is no row of this key."""
        wanted = list(map(cell, values))  # as they were written
        return wanted not in ([row[key] for key in self.keys] for row in self.rows)

    def add(self, *rows):
        """Add rows, and write the table, with what others have added meanwhile."""
        known = [filled(row) for row in (*self.seen, *self.rows)]
        self.rows += [row for row in self.read() if filled(row) not in known]
        self.rows += [{name: cell(value) for name, value in r.items()} for r in rows]
        columns = dict.fromkeys(name for row in self.rows for name in row)
        order = sorted(columns, key="machine".__eq__)  # it is the last
        write_table(self.path, self.rows, order)


def filled(row):
    """The cells of a row that are not empty.

    Example
    -------
    >>> filled({"seed": "1", "note": ""})
    {'seed': '1'}
    """
    return {name: text for name, text in row.items() if text}
