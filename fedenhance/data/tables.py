"""Tables of rows on disk, and files that appear whole or not at all.

:func:`read_table` and :func:`write_table` are for CSV files with a header, whose rows
are dicts; :func:`write_json` for a record; ``run_folder.files.whole_file``
for all else that must never be seen half written, such as audio, arrays and figures.
"""

import csv
import json
from pathlib import Path

from fedenhance.run_folder.files import inert, told, whole_file


def read_table(path, needed=(), **style):
    """Read a CSV file with a header.

    Arguments
    ---------
    path : str or Path
        UTF-8, with a byte order mark or without. Blanks around cells are dropped, and
        so is a column without a name.
    needed : iterable of str
        Columns that it must have.
    **style
        Of :class:`csv.DictReader`. By default the delimiter is that of the first line:
        commas, semicolons or tabs.

    Returns
    -------
    list of dict
        Column -> text, a dict for each row.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column is lacking, or it is no such table; the message names the file.
    """
    rows = [row for _, row in numbered_rows(path, needed, **style)]
    for row in rows:
        row.pop(None, None)
    return rows


def numbered_rows(path, needed=(), **style):
    """Read a CSV file with a header; arguments and errors as of :func:`read_table`.

    Yields
    ------
    int, dict
        The number of the row's last line, and the row. Cells beyond the last column,
        if they are not empty, are a list under ``None``.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            style = {"delimiter": max(",;\t", key=head.count), **style}
            table = csv.DictReader(file, restval="", **style)
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            lacking = [name for name in needed if name not in table.fieldnames]
            if lacking:
                has = table.fieldnames
                raise ValueError(f"{path} lacks the columns {lacking}; it has {has}")
            for row in table:
                beyond = [cell for cell in row.pop(None, ()) if cell.strip()]
                row = {name: told(cell.strip()) for name, cell in row.items() if name}
                yield table.line_num, row | ({None: beyond} if beyond else {})
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table in UTF-8: {error}") from error


def write_table(path, rows, columns=None):
    """Write a CSV file with a header, whole or not at all.

    Arguments
    ---------
    path : str or Path
        Its folder is made.
    rows : iterable of dict
        Column -> value; an absent value is an empty cell.
    columns : iterable of str, optional
        What is written, in this order. By default all columns of all rows, in the order
        in which they come. Text that a spreadsheet would take for a formula gets an
        apostrophe, which :func:`read_table` takes away.

    Example
    -------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_table(f"{folder}/table.csv", [{"a": 1}, {"a": 2, "b": 3}])
    ...     read_table(f"{folder}/table.csv")
    [{'a': '1', 'b': ''}, {'a': '2', 'b': '3'}]
    """
    rows = list(rows)
    if columns is None:
        columns = dict.fromkeys(name for row in rows for name in row)
    with (
        whole_file(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(
            file, list(columns), extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows({k: inert(cell) for k, cell in row.items()} for row in rows)


def grouped(rows, key):
    """Rows by what ``key(row)`` says, in the order in which they come.

    Example
    -------
    >>> grouped(["a1", "b1", "a2"], lambda row: row[0])
    {'a': ['a1', 'a2'], 'b': ['b1']}
    """
    groups = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def write_json(path, value):
    """Write a JSON file, whole or not at all, with sorted keys."""
    with whole_file(path) as partial:
        text = json.dumps(value, indent=1, sort_keys=True)
        partial.write_text(f"{text}\n", encoding="utf-8")


def read_json(path):
    """Read a JSON file, as :func:`write_json` writes it.

    Raises
    ------
    ValueError
        If it is none; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
