#!/usr/bin/env python
"""Every number that is claimed, beside its CSV, its machine and its command.

    python -m benchmarks.tables          # writes docs/results.md, and tables elsewhere
    python -m benchmarks.tables --check  # exits with 1 if a page says something else

``benchmarks/claims.yaml`` lists what is claimed. docs/results.md has a row for each;
pages have whole tables between two marks, ``<!-- table NAME -->`` and ``<!-- end -->``,
and sentences that are written by hand, with numbers that must be the CSV's.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from statistics import StatisticsError, fmean

import yaml

from fedenhance.data.tables import read_table
from fedenhance.reports import markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results")
CLAIMS = Path(__file__).with_name("claims.yaml")
PAGE = "docs/results.md"
NOT_MEASURED = "not measured"
OPERATORS = {"<=": float.__le__, ">=": float.__ge__}


def read(csv, root=ROOT):
    """Read the rows of a CSV, which is in benchmarks/results or has its path."""
    return read_table(root / csv if "/" in csv else root / RESULTS / csv)


def those(rows, where):
    """Rows with these values, or values of these patterns.

    Example
    -------
    >>> those([{"code": "ours"}, {"code": "bare"}], {"code": "b*"})
    [{'code': 'bare'}]
    """
    return [
        row
        for row in rows
        if all(fnmatchcase(row[name], str(value)) for name, value in where.items())
    ]


@dataclass
class Claim:
    """One or more numbers, as claims.yaml lists them.

    Arguments
    ---------
    what, csv, command : str
        What it is; the CSV's name in benchmarks/results, or its path; what measures it.
    rows : list of dict
        Of each, the mean over the rows that have these values is taken.
    columns : list of str
        Those to take; none: rows are counted.
    ratio : bool
        Whether the first number is divided by the second.
    form : str
        Format of the numbers.
    bar : str
        What the first should be, such as ``<= 0.45``; empty: there is no bar.
    quoted : dict
        Page -> sentence with the format of the numbers.
    """

    what: str
    csv: str
    command: str
    rows: list = field(default_factory=lambda: [{}])
    columns: list = field(default_factory=list)
    ratio: bool = False
    form: str = "{:.2f}"
    bar: str = ""
    quoted: dict = field(default_factory=dict)

    def read(self, root=ROOT):
        """Read the numbers, and the machine; nothing where there is no such row."""
        try:
            table = read(self.csv, root)
            found = [those(table, where) for where in self.rows]
            if not self.columns:
                return [*map(len, found)], table[0].get("machine", "")
            numbers = [
                fmean(float(row[column]) for row in rows)
                for rows in found
                for column in self.columns
            ]
        except (FileNotFoundError, StatisticsError, ValueError):
            return [], ""
        if self.ratio:
            numbers = [numbers[0] / numbers[1]]
        return numbers, found[0][0].get("machine", "")

    def verdict(self, numbers):
        """Say whether a bar holds.

        Example
        -------
        >>> Claim("", "", "", bar="<= 0.45").verdict([0.5])
        '<= 0.45: missed'
        """
        if not (self.bar and numbers):
            return self.bar
        operator, bound = self.bar.split()
        holds = OPERATORS[operator](float(numbers[0]), float(bound))
        return f"{self.bar}: {'holds' if holds else 'missed'}"


def claims(path=CLAIMS):
    """Read the claims: heading -> list of them."""
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: [Claim(**claim) for claim in group] for name, group in groups.items()}


def page(groups, root=ROOT):
    """Write docs/results.md.

    Arguments
    ---------
    groups : dict
        Heading -> claims.
    root : Path
        Below which the CSVs are.

    Returns
    -------
    str
    """
    machines, parts = {}, [HEAD]
    for heading, group in groups.items():
        lines = []
        for claim in group:
            numbers, machine = claim.read(root)
            number = machines.setdefault(machine, len(machines) + 1) if machine else ""
            lines.append(
                [
                    claim.what,
                    claim.form.format(*numbers) if numbers else NOT_MEASURED,
                    claim.verdict(numbers),
                    number,
                    f"`{claim.csv}`" if numbers else "",
                    f"`{claim.command}`",
                ]
            )
        columns = ["what", "value", "bar", "machine", "CSV", "command"]
        parts.append(f"## {heading}\n\n{markdown.table(columns, lines)}")
    listed = "\n".join(f"{number}. {name}" for name, number in machines.items())
    return "\n\n".join([*parts, f"## Machines\n\n{listed}"]) + "\n"


HEAD = """\
# Results

Made of the CSV files in `benchmarks/results` by `python -m benchmarks.tables`; a test
compares it with them. Commands begin with `python -m benchmarks.`, unless they name a
program. What has no row in a CSV is not measured. A bar is what a number should be, as
the maintainers set it."""


@dataclass
class Table:
    """A table within a page.

    Arguments
    ---------
    page, csv : str
        The page's path, and the CSV's in benchmarks/results.
    make : callable
        From rows to Markdown.
    """

    page: str
    csv: str
    make: Callable

    def write(self, text, name, root=ROOT):
        """Write the table anew between its marks in the text of the page.

        Raises
        ------
        ValueError
            When the marks are missing.
        """
        try:
            made = self.make(read(self.csv, root))
        except FileNotFoundError:
            made = NOT_MEASURED
        marks = rf"(<!-- table {name} -->\n)[^<]*(<!-- end -->)"
        new, count = re.subn(marks, lambda m: f"{m[1]}\n{made}\n\n{m[2]}", text)
        if count != 1:
            raise ValueError(f"{self.page} has {count} places for the table {name}")
        return new


def cells(rows, heads, columns):
    """Make a table of some columns, numbers as in the CSV.

    Arguments
    ---------
    rows : list of dict
    heads : sequence of str
    columns : sequence of str or tuple
        A column, or one and a format, or a callable that takes the row.

    Returns
    -------
    str

    Example
    -------
    >>> print(cells([{"a": "1.234", "b": "x"}], ["B", "A"], ["b", ("a", "{:.1f}")]))
    | B | A |
    |---|---|
    | x | 1.2 |
    """

    def cell(row, column):
        if callable(column):
            return column(row)
        name, form = column if isinstance(column, tuple) else (column, None)
        text = row[name]
        return form.format(float(text)) if form and text else text

    return markdown.table(
        heads, [[cell(row, column) for column in columns] for row in rows]
    )


def pages(groups, tables, root=ROOT):
    """Make all pages anew.

    Returns
    -------
    dict
        Path below the root -> text.
    """
    made = {PAGE: page(groups, root)}
    for name, table in tables.items():
        text = made.get(table.page) or (root / table.page).read_text(encoding="utf-8")
        made[table.page] = table.write(text, name, root)
    return made


def untrue(groups, root=ROOT):
    """List sentences that a page should have, by what the CSVs say, and has not."""
    found = []
    for claim in chain(*groups.values()):
        numbers, _ = claim.read(root)
        for name, form in claim.quoted.items():
            sentence = form.format(*numbers) if numbers else NOT_MEASURED
            text = " ".join((root / name).read_text(encoding="utf-8").split())
            if sentence not in text:
                found.append(f"{name} should say: {sentence}")
    return found


def main(argv=None):
    """Write the pages, or say where they differ."""
    from benchmarks.page_tables import TABLES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    wrong = []
    for name, text in pages(claims(), TABLES).items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if args.check:
            wrong.append(f"{name} is not what python -m benchmarks.tables writes")
        else:
            path.write_text(text, encoding="utf-8")
    wrong += untrue(claims())
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
