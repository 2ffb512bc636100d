"""What a reply must be, from what was sent: looked at before anything else is."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fed.arrays import NUMPY, header
from fed.brain import COUNT
from fed.numbers import state_of

MOST_METRICS, MOST_NUMBERS, LONGEST_NAME, LARGEST = 100, 2**17, 100, 1e100
RESERVED = set(
    "round client status examples weight bytes clip update_norm buffers_norm "
    "counts_norm".split()
)
"""Columns of clients.csv that the server fills."""


REQUIRED = "num-examples", "seconds", "loss"
"""Metrics that every client reports."""


@dataclass
class Schema:
    """What the replies to one round's messages must be.

    Arguments
    ---------
    arrays : dict of numpy.ndarray
        Names, shapes and types that come back, in this order.
    numbers : callable
        Tells by name whether a client may send a number from outside of the model;
        None: none are sent.
    totals : iterable of str
        Metrics that are added up, and must be finite if they are there.
    """

    arrays: dict
    numbers: Callable | None = None
    totals: Iterable = ()
    expected: dict = field(init=False)

    def __post_init__(self):
        """Look up what each array looks like in a message."""
        self.expected = {
            name: (str(a.dtype), a.shape, a.nbytes, headers(a.dtype, a.shape))
            for name, a in self.arrays.items()
        }

    def check(self, content, client):
        """Refuse content that is not what is expected.

        Arguments
        ---------
        content : flwr.app.RecordDict
        client : str
            Who was asked.

        Raises
        ------
        ValueError
            Saying what is wrong first.
        """
        records = {"arrays": ArrayRecord, "metrics": MetricRecord}
        records["config"] = ConfigRecord
        if self.numbers:
            records["numbers"] = ArrayRecord
        require_names(content, records, "records")
        for name, kind in records.items():
            if type(content[name]) is not kind:
                got = type(content[name]).__name__
                raise ValueError(f"record '{name}' is {got} instead of {kind.__name__}")
        if dict(content["config"]) != {"client": client}:
            raise ValueError("answers for another client")
        self.check_metrics(content["metrics"])
        self.check_arrays(content["arrays"])
        if self.numbers:
            self.check_numbers(content["numbers"])

    def check_metrics(self, metrics):
        """Refuse metrics that are no numbers, lack, or go by odd names."""
        if len(metrics) > MOST_METRICS:
            raise ValueError(f"has {len(metrics)} metrics, more than {MOST_METRICS}")
        for name, value in metrics.items():
            if not is_fair(name) or name in RESERVED:
                raise ValueError(f"has a metric named {line(name)!r}")
            if type(value) not in (int, float):
                raise ValueError(f"metric '{name}' is {line(repr(value), 40)}")
            if type(value) is int and abs(value) >= LARGEST:
                raise ValueError(f"metric '{name}' is too large")
        for name in REQUIRED:
            if name not in metrics:
                raise ValueError(f"no metric '{name}'; it has {line(sorted(metrics))}")
        count = metrics["num-examples"]
        if not (0 <= count <= 2**53 and count == int(count)):
            raise ValueError(f"metric 'num-examples' is {count}; it must be a count")
        if not count:
            raise ValueError(
                "trained on no examples (fewer than a batch, with drop_last?)"
            )
        for name in metrics.keys() & {*REQUIRED, *self.totals}:
            if not abs(metrics[name]) < LARGEST:
                raise ValueError(f"metric '{name}' is {metrics[name]}")
        if metrics["seconds"] < 0:
            raise ValueError(f"took {metrics['seconds']} s")

    def check_arrays(self, record):
        """Refuse arrays of other names, order, types, shapes or lengths than sent."""
        require_names(record, self.expected, "arrays")
        if list(record) != list(self.expected):
            raise ValueError("its arrays are in another order than was sent")
        for name, (dtype, shape, nbytes, starts) in self.expected.items():
            array = record[name]
            kind = type_and_shape(name, array)
            if kind != (dtype, shape):
                got = line("".join(map(str, kind)))
                raise ValueError(f"{name} is {got} instead of {dtype}{shape}")
            check_bytes(name, array, nbytes, starts)

    def check_numbers(self, record):
        """Refuse numbers that the server has no place for, or too many of them."""
        # A moving average of the weights is as large as they are.
        total, most = (
            0,
            MOST_NUMBERS + sum(array.size for array in self.arrays.values()),
        )
        for name, array in record.items():
            if not (is_fair(name) and self.numbers(name)):
                raise ValueError(f"has a number named {line(name)!r}")
            dtype, shape = type_and_shape(name, array)
            if not (type(dtype) is str and dtype in NUMERIC):
                raise ValueError(f"number '{name}' is {line(dtype)}")
            total += math.prod(shape)
            if total > most or len(shape) > 8:
                raise ValueError(f"has more than {most} numbers beside weights")
            dtype = np.dtype(dtype)
            size = math.prod(shape) * dtype.itemsize
            check_bytes(name, array, size, headers(dtype, shape))
            values = np.frombuffer(array.data, dtype, offset=len(array.data) - size)
            if not np.isfinite(values).all():
                raise ValueError(f"number '{name}' is not finite")
            if name.startswith("optimizers.") and (values < 0).any():
                raise ValueError(f"learning rate '{name}' is negative")


NUMERIC = {np.dtype(code).name for code in "efdbhilBHIL"}


def type_and_shape(name, array):
    """Tell what an array says of itself, refusing what says nothing that can be."""
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", None)
    sizes = shape if type(shape) is tuple else [None]
    if type(array) is not Array or not all(type(n) is int and n >= 0 for n in sizes):
        raise ValueError(f"{name} is no array, or its shape is none")
    return dtype, shape


def headers(dtype, shape):
    """List what may precede an array's numbers in NumPy's format: either order."""
    start = header(dtype, shape)[1]
    columns_first = start.replace(b"'fortran_order': False", b"'fortran_order': True")
    return start, columns_first[:-1] + b" \n"  # padded to the same length


def check_bytes(name, array, nbytes, starts):
    """Refuse an array whose bytes are not those of its type and shape."""
    if array.stype != NUMPY:
        raise ValueError(f"{name} is {line(array.stype)} instead of {NUMPY}")
    if type(array.data) is not bytes or len(array.data) != len(starts[0]) + nbytes:
        raise ValueError(f"{name} is longer or shorter than its shape says")
    if not array.data.startswith(starts):
        raise ValueError(f"{name} is not in NumPy's format")


def require_names(found, expected, what):
    """Refuse a mapping with other names than expected, and name some of them."""
    if found.keys() != expected.keys():
        odd = sorted(map(str, found.keys() ^ expected.keys()))
        shown = ", ".join(line(name, LONGEST_NAME) for name in odd[:5])
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise ValueError(f"sent back other {what} than asked for: {shown}{more}")


def is_fair(name):
    """Tell whether a client's name of something may stand in tables and logs."""
    return (
        type(name) is str
        and 0 < len(name) <= LONGEST_NAME
        and name.isprintable()
        and name[0] not in "=+-@ "
    )


def line(text, longest=300):
    r"""Writes what a client says as one line of limited length.

    Example
    -------
    >>> line("a\x1b[2J\n\n b" + 400 * "c", 12)
    'a [2J bccccc...'
    """
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * longest])
    shown = " ".join(shown.split())
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


def may_set(brain):
    """Make the rule for numbers outside of the model.

    A client may send what the server's Brain counts itself, what its objects come to
    count while they train, and learning rates; so no name reaches another attribute.

    Arguments
    ---------
    brain : Brain
        The server's, in a federation.

    Returns
    -------
    callable
        From a name, as in ``Federated.numbers``, to whether it may be sent.
    """
    own = brain.numbers()
    # As they are now: a client may train on this very Brain before its reply is read.
    taken = {
        name: {key for key, value in state_of(owner).items() if value is not None}
        for name, owner in brain.stateful.items()
    }

    def known(name):
        owner, _, key = name.rpartition(".")
        if name in own or name == f"brain.{COUNT}":
            return True
        if owner == "optimizers":
            return key.isidentifier()
        if owner not in taken or not key.isidentifier() or key.startswith("__"):
            return False
        kind = type(brain.stateful[owner])
        return key not in taken[owner] and getattr(kind, key, None) is None

    return known
