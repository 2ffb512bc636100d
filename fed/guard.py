"""What one client can do to the model at most: its update is as long as most are."""

import math

import numpy as np
from speechbrain.utils.logger import get_logger

from fed.arrays import pack, view
from fed.strategy import accumulator, cast

logger = get_logger(__name__)

HELD, BYTES = 8, 2**30
"""How many replies may wait for others to be compared with, and how large together;
one may in any case."""
NORMS = ("update_norm", "buffers_norm", "counts_norm")
"""Columns: of weights, of what else is real, of integers."""


def groups_of(arrays, trained):
    """Sort arrays into those whose changes are compared, one kind with the other.

    Arguments
    ---------
    arrays : dict of numpy.ndarray
    trained : set of str
        Weights that training changes.

    Returns
    -------
    dict of list
        For each of ``NORMS`` the names, where there are some.
    """
    groups = {}
    for name, array in arrays.items():
        real = np.issubdtype(array.dtype, np.floating)
        place = (0 if name in trained else 1) if real else 2
        groups.setdefault(NORMS[place], []).append(name)
    return groups


def step(array, old):
    """Subtract what was sent, in the precision in which is averaged."""
    return np.subtract(array, old, dtype=accumulator(old.dtype))


def norm(arrays, names, sent=None):
    """The L2 norm of some arrays together, or of their distance to what was sent."""
    squares = 0.0
    for name in names:
        array = arrays[name]
        array = step(array, sent[name] if sent else np.zeros((), array.dtype)).ravel()
        square = float(np.vdot(array, array))
        if not square and array.any():  # too small to be squared
            square = float(np.square(array, dtype=np.float64).sum())
        squares += square
    return math.sqrt(squares)


def lower_median(values):
    """The median; of an even number of values, the lower one in the middle.

    Example
    -------
    >>> lower_median([10.0, 1.0]), lower_median([3.0, 1.0, 10.0])
    (1.0, 3.0)
    """
    return float(np.sort(values)[(len(values) - 1) // 2])


class Guard:
    """Scales updates that are much longer than the others down to what may be.

    Norm bounding, which takes the force out of attacks that must shout (Sun et al.,
    "Can You Really Backdoor Federated Learning?", 2019). The bound is a multiple of the
    median of the round's norms, or of that of past rounds if it is larger, so that no
    minority of clients sets it. Weights, buffers and integers have norms of their own,
    so that none hides behind the others. An update within bounds passes as it is.

    Memory stays that of few replies: where there are past rounds to compare with, only
    replies out of bounds wait for the others, and never more than ``HELD``, or of large
    models fewer.

    Arguments
    ---------
    multiple : float or None
        Of the median that an update's norm may be; None: norms are noted only.
    sent : dict of numpy.ndarray
        What the clients started from.
    groups : dict of list
        Of :func:`groups_of`.
    past : list of dict
        Rows of rounds.csv.
    """

    def __init__(self, multiple, sent, groups, past=()):
        self.multiple = multiple
        self.sent = sent
        self.groups = groups
        size = sum(array.nbytes for array in sent.values())
        self.most = max(1, min(HELD, BYTES // max(1, size)))
        self.seen = {key: [] for key in groups}
        recent = {key: [r[key] for r in past[-10:] if key in r] for key in groups}
        self.past = {key: lower_median(v) for key, v in recent.items() if v}

    def __call__(self, accepted):
        """Pass replies on, some of them scaled.

        Arguments
        ---------
        accepted : iterable of tuple
            (reply, row) that may be averaged; the row has their norms.

        Yields
        ------
        tuple
            The same, in their order as long as all are within bounds.
        """
        held = []
        for reply, row in accepted:
            for key, norms in self.seen.items():
                norms.append(row[key])
            held.append((reply, row))
            bounds, waiting = self.bounds(early=True), []
            for pair in held:
                if bounds is None or self.factors(pair[1], bounds):
                    waiting.append(pair)
                else:
                    yield pair
            while len(waiting) > self.most:
                yield self.scaled(*waiting.pop(0), self.bounds())
            held = waiting
        bounds = self.bounds()
        while held:
            yield self.scaled(*held.pop(0), bounds)

    @property
    def count(self):
        """How many updates were seen."""
        return max(map(len, self.seen.values()), default=0)

    def medians(self):
        """The norms that most updates have, so far."""
        return {key: lower_median(norms) for key, norms in self.seen.items() if norms}

    def bounds(self, early=False):
        """The longest that updates may be, so far.

        One client alone in its round is compared with past rounds only.

        Arguments
        ---------
        early : bool
            The first few of a round, who may be no fair sample, do not count.

        Returns
        -------
        dict of float
            None if it cannot be told yet.
        """
        if self.multiple is None:
            return {}
        if early and not self.past and self.count <= self.most:
            return None
        alone = self.count == 1 or early
        now = {} if alone and self.past else self.medians()
        keys = now.keys() | self.past.keys()
        return {
            key: self.multiple * max(now.get(key, 0.0), self.past.get(key, 0.0))
            for key in keys
        }

    def factors(self, row, bounds):
        """By what to scale each group that is out of bounds."""
        return {k: b / row[k] for k, b in bounds.items() if row[k] > b}

    def scaled(self, reply, row, bounds):
        """Scale an update down, if it has to be, and say so."""
        if factors := self.factors(row, bounds):
            row["clip"] = min(factors.values())
            record = reply.content["arrays"]
            arrays = view(record)
            for key, factor in factors.items():
                for name in self.groups[key]:
                    old = self.sent[name]
                    new = old + factor * step(arrays[name], old)
                    record[name] = pack(cast(new, old.dtype))
            logger.warning(
                "Client %s scaled down to %.2g of its update: its norm of %.3g is far "
                "from the others'",
                row["client"],
                row["clip"],
                row["update_norm"],
            )
        return reply, row
