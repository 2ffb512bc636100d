"""Who holds which rows of a manifest.

A partition is a function of the rows, a dict from example id to a dict of columns, as
in ``DynamicItemDataset.data``. It returns a dict from client name to a list of ids.
"""

import csv
from itertools import pairwise

import numpy as np


def values(rows, column):
    """Takes one column of all rows.

    Arguments
    ---------
    rows : dict of dict
        From id to columns.
    column : str
        The column.

    Returns
    -------
    list
        One value for each row.

    Raises
    ------
    ValueError
        When a row lacks the column.
    """
    missing = next((i for i, row in rows.items() if column not in row), None)
    if missing is not None:
        raise ValueError(
            f"The partition needs the column '{column}', which row '{missing}' lacks; "
            f"it has {sorted(map(str, rows[missing]))}."
        )
    return [row[column] for row in rows.values()]


def check_enough(rows, count):
    """Refuse to leave clients without rows."""
    if count > len(rows):
        raise ValueError(
            f"{count} rows are needed, one for each client; there are {len(rows)}."
        )


def by_column(rows, column="client"):
    """Makes one client of each value of a column.

    Example
    -------
    >>> by_column({"a": {"client": 0}, "b": {"client": 1}, "c": {"client": 0}})
    {'0': ['a', 'c'], '1': ['b']}
    """
    clients = {}
    for i, value in zip(rows, values(rows, column), strict=True):
        clients.setdefault(str(value), []).append(i)
    return clients


def grouped(rows, n_clients, column="spk_id"):
    """Deals the groups of a column, such as speakers, to clients: no group is split.

    Clients take groups in order of first appearance, equally many give or take one, as
    FedEnhance's speakers are dealt to its clients.

    Raises
    ------
    ValueError
        When there are fewer groups than clients.

    Example
    -------
    >>> rows = {"a": {"spk_id": "x"}, "b": {"spk_id": "y"}, "c": {"spk_id": "z"}}
    >>> grouped(rows, n_clients=2)
    {'0': ['a', 'b'], '1': ['c']}
    """
    groups = list(by_column(rows, column).values())
    if n_clients > len(groups):
        raise ValueError(
            f"{n_clients} clients need as many different values in column '{column}', "
            f"which has {len(groups)}; lower the number of clients."
        )
    ends = [len(groups) * c // n_clients for c in range(n_clients + 1)]
    # The first clients take the one more, where there are some left over.
    ends = [len(groups) - end for end in reversed(ends)]
    return {
        str(c): [i for group in groups[first:last] for i in group]
        for c, (first, last) in enumerate(pairwise(ends))
    }


def iid(rows, n_clients=10, seed=0):
    """Deals shuffled rows to clients: all hold the same distribution.

    Example
    -------
    >>> {name: len(ids) for name, ids in iid(dict.fromkeys("abc"), 2).items()}
    {'0': 2, '1': 1}
    """
    check_enough(rows, n_clients)
    order = np.random.default_rng(seed).permutation(len(rows))
    ids = list(rows)
    return {str(c): [ids[i] for i in order[c::n_clients]] for c in range(n_clients)}


def dirichlet(rows, n_clients, column, alpha=0.5, seed=0, min_rows=1, max_tries=1000):
    """Deals the rows of each value of a column in Dirichlet proportions.

    For each value, such as a noise class, the clients' shares are drawn from a
    symmetric Dirichlet distribution (Hsu et al., 2019).

    Arguments
    ---------
    rows : dict of dict
        From id to columns.
    n_clients : int
    column : str
        Whose distribution is to differ between clients.
    alpha : float
        Large: all clients alike. Small: each value is with few clients.
    seed : int
        Of the draws.
    min_rows : int
        Draw again until every client holds as many.
    max_tries : int
        Draws before giving up.

    Returns
    -------
    dict of list

    Raises
    ------
    ValueError
        When no draw gives every client ``min_rows``.

    Example
    -------
    >>> rows = {i: {"label": i % 2} for i in range(100)}
    >>> clients = dirichlet(rows, n_clients=4, column="label")
    >>> sorted(i for ids in clients.values() for i in ids) == list(rows)
    True
    """
    check_enough(rows, n_clients * min_rows)
    groups = list(by_column(rows, column).values())
    generator = np.random.default_rng(seed)
    for _ in range(max_tries):
        clients = {str(c): [] for c in range(n_clients)}
        for ids in groups:
            ids = [ids[i] for i in generator.permutation(len(ids))]
            shares = generator.dirichlet(np.full(n_clients, alpha))
            bounds = np.rint(np.cumsum(shares)[:-1] * len(ids)).astype(int)
            parts = np.split(np.arange(len(ids)), bounds)
            for client, part in zip(clients, parts, strict=True):
                clients[client] += [ids[i] for i in part]
        if min(map(len, clients.values())) >= min_rows:
            return clients
    raise ValueError(
        f"No draw in {max_tries} gave each of {n_clients} clients {min_rows} rows; "
        f"raise alpha ({alpha}) or lower the number of clients."
    )


def size_skew(rows, n_clients, alpha=1.0, seed=0, min_rows=1):
    """Deals shuffled rows to clients whose sizes follow a power law.

    Arguments
    ---------
    rows : dict of dict
        From id to columns.
    n_clients : int
    alpha : float
        The k-th largest client holds a share proportional to ``k ** -alpha``; 0 makes
        them equal.
    seed : int
        Of the shuffle.
    min_rows : int
        That every client holds at least.

    Returns
    -------
    dict of list

    Example
    -------
    >>> [len(ids) for ids in size_skew(dict.fromkeys(range(12)), 3).values()]
    [6, 3, 3]
    """
    check_enough(rows, n_clients * min_rows)
    shares = np.arange(1, n_clients + 1) ** -float(alpha)
    spare = len(rows) - n_clients * min_rows
    bounds = np.rint(np.cumsum(shares / shares.sum()) * spare).astype(int)
    bounds += min_rows * np.arange(1, n_clients + 1)
    ids = list(rows)
    order = np.random.default_rng(seed).permutation(len(ids))
    parts = np.split(order, bounds[:-1])
    return {str(c): [ids[i] for i in part] for c, part in enumerate(parts)}


def from_file(rows, path):
    """Reads who holds what from a csv file with the columns ``ID`` and ``client``.

    Rows that the file does not name belong to nobody.

    Raises
    ------
    ValueError
        When the file lacks a column, or names rows that do not exist.
    """
    clients = {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"ID", "client"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} must have the columns ID and client.")
        for line in reader:
            if line["ID"] not in rows:
                raise ValueError(f"{path} names '{line['ID']}', which has no row.")
            clients.setdefault(line["client"], []).append(line["ID"])
    return clients
