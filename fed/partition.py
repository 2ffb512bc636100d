"""Who holds which rows of a manifest.

A partition is a function of the rows, a dict from example id to a dict of columns, as
in ``DynamicItemDataset.data``. It returns a dict from client name to a list of ids.
"""

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

    Groups are dealt in turn, in order of first appearance, so that clients hold
    equally many groups, give or take one (one group each in FedEnhance's experiments
    with as many clients as speakers).

    Raises
    ------
    ValueError
        When there are fewer groups than clients.

    Example
    -------
    >>> rows = {"a": {"spk_id": "x"}, "b": {"spk_id": "y"}, "c": {"spk_id": "z"}}
    >>> grouped(rows, n_clients=2)
    {'0': ['a', 'c'], '1': ['b']}
    """
    groups = list(by_column(rows, column).values())
    if n_clients > len(groups):
        raise ValueError(
            f"{n_clients} clients need as many different values in column '{column}', "
            f"which has {len(groups)}; lower the number of clients."
        )
    return {
        str(c): [i for group in groups[c::n_clients] for i in group]
        for c in range(n_clients)
    }


def iid(rows, n_clients=10, seed=0):
    """Deals shuffled rows to clients: all hold the same distribution.

    Example
    -------
    >>> {name: len(ids) for name, ids in iid(dict.fromkeys("abc"), 2).items()}
    {'0': 2, '1': 1}
    """
    _check_enough(rows, n_clients)
    order = np.random.default_rng(seed).permutation(len(rows))
    ids = list(rows)
    return {str(c): [ids[i] for i in order[c::n_clients]] for c in range(n_clients)}


def _check_enough(rows, n_clients):
    if n_clients > len(rows):
        raise ValueError(f"{n_clients} clients cannot share {len(rows)} rows.")
