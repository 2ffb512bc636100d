"""A table and figures of what each client holds."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from fed.ledger import Table
from fed.partition import values


def report(rows, clients, folder, amount=None, columns=()):
    """Writes ``clients_data.csv``, and a figure for each column.

    Arguments
    ---------
    rows : dict of dict
        From id to columns.
    clients : dict of list
        Of a partition.
    folder : Path
        Figures go into ``figures`` below.
    amount : str
        A column to add up, such as ``duration``.
    columns : list of str
        Columns whose distributions to show.
    """
    table = Table(Path(folder, "clients_data.csv"))
    table.rewrite(tabulate(rows, clients, amount, columns))
    for column in columns:
        plot(rows, clients, column, Path(folder, "figures", f"clients_{column}.png"))


def tabulate(rows, clients, amount=None, columns=()):
    """Tabulates what each client holds.

    Arguments
    ---------
    rows, clients, amount, columns
        As for :func:`report`.

    Returns
    -------
    list of dict
        ``client``, ``rows``, the sum of ``amount``, and for each column how many
        different values there are, or the quartiles if it holds numbers.

    Example
    -------
    >>> rows = {"a": {"s": 2.0, "who": "x"}, "b": {"s": 3.0, "who": "x"}}
    >>> tabulate(rows, {"0": ["a", "b"]}, amount="s", columns=["who"])
    [{'client': '0', 'rows': 2, 's': 5.0, 'who': 1}]
    """
    table = []
    for client, ids in clients.items():
        held = {i: rows[i] for i in ids}
        line = {"client": client, "rows": len(held)}
        if amount:
            line[amount] = sum(map(float, values(held, amount)))
        for column in columns:
            found = values(held, column)
            if are_numbers(found):
                quartiles = np.percentile(list(map(float, found)), [25, 50, 75])
                line |= {f"{column}_q{q}": v for q, v in enumerate(quartiles, 1)}
            else:
                line[column] = len(set(found))
        table.append(line)
    return table


def are_numbers(found):
    """Tell whether all values can be read as real numbers, which labels cannot.

    Example
    -------
    >>> are_numbers(["2.5", "3.0"]), are_numbers(["19", "103"])
    (True, False)
    """
    if all(isinstance(value, str) and value.isdigit() for value in found):
        return False
    try:
        return np.float64(found).ndim == 1
    except ValueError:
        return False


def plot(rows, clients, column, path):
    """Draws how many rows of each value of a column each client holds.

    Arguments
    ---------
    rows, clients
        As for :func:`report`.
    column : str
        Numbers are put into ten bins; of labels, the twelve most frequent are shown.
    path : Path
        The figure's file.
    """
    from matplotlib.figure import Figure

    found = {c: values({i: rows[i] for i in ids}, column) for c, ids in clients.items()}
    if all(map(are_numbers, found.values())):
        numbers = [np.float64(held) for held in found.values()]
        edges = np.histogram_bin_edges(np.concatenate(numbers))
        labels = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
        counts = [np.histogram(held, edges)[0] for held in numbers]
    else:
        tallies = [Counter(map(str, held)) for held in found.values()]
        labels = [label for label, _ in sum(tallies, Counter()).most_common(12)]
        counts = [[tally[label] for label in labels] for tally in tallies]
    figure = Figure(figsize=(4 + 0.2 * min(len(found), 100), 4), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(found))
    for label, heights in zip(labels, np.transpose(counts), strict=True):
        axes.bar(list(found), heights, bottom=bottom, label=label)
        bottom += heights
    axes.set(xlabel="client", ylabel="rows", title=column)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
