"""Updates in fewer bytes; what a client's update loses is added to its next one.

A client sends its update, the difference of what it trained to what it got, as real
numbers of 16 bits, or as integers of 8 bits with one scale for each block. It keeps the
rounding error and adds it to its next update: error feedback, which makes the errors of
many rounds cancel (Seide et al., 2014; Karimireddy et al., 2019). The server puts the
arrays together again before it looks at them: all that it does goes on as it is.
"""

import numpy as np

from fed.arrays import to_arrays, to_record, view

BLOCK = 256
"""Values that share a scale: an eighth of a bit each."""


class Float16:
    """Real numbers of 16 bits."""

    @staticmethod
    def layout(sizes):
        """Make arrays like those that are sent of arrays of these sizes, by name.

        Example
        -------
        >>> Float16.layout([3, 4])["float16"].shape
        (7,)
        """
        return {"float16": np.empty(sum(sizes), "float16")}

    @staticmethod
    def encode(values, sizes):
        """Shorten a float32 vector, made of arrays of these sizes."""
        with np.errstate(over="ignore"):  # the server refuses what is not finite
            return {"float16": values.astype(np.float16)}

    @staticmethod
    def decode(sent, sizes):
        """Return the float32 vector."""
        return sent["float16"].astype(np.float32)


class Int8:
    """Integers of 8 bits, from -127 to 127, and a float32 scale for each block.

    Example
    -------
    >>> sent = Int8.encode(np.float32([-1.0, 0.5, 4.0]), sizes=[2, 1])
    >>> sent["int8"]
    array([-127,   64,  127], dtype=int8)
    >>> Int8.decode(sent, sizes=[2, 1]).round(3)
    array([-1.   ,  0.504,  4.   ], dtype=float32)
    """

    @staticmethod
    def blocks(sizes):
        """Return where blocks begin and how long they are; none spans two arrays."""
        ends = np.cumsum([0, *sizes])
        parts = [np.arange(a, b, BLOCK) for a, b in zip(ends, ends[1:], strict=False)]
        starts = np.concatenate([*parts, ends[:0]])
        return starts, np.diff([*starts, ends[-1]])

    @classmethod
    def layout(cls, sizes):
        """Make arrays like those that are sent of arrays of these sizes, by name."""
        scales = np.empty(len(cls.blocks(sizes)[0]), "float32")
        return {"int8": np.empty(sum(sizes), "int8"), "scales": scales}

    @classmethod
    def encode(cls, values, sizes):
        """Shorten a float32 vector, made of arrays of these sizes."""
        starts, lengths = cls.blocks(sizes)
        scales = np.maximum.reduceat(np.abs(values), starts) / np.float32(127)
        with np.errstate(invalid="ignore"):  # the server refuses what is not finite
            codes = values / np.repeat(np.where(scales > 0, scales, 1), lengths)
        return {"int8": np.rint(np.nan_to_num(codes)).astype("int8"), "scales": scales}

    @classmethod
    def decode(cls, sent, sizes):
        """Return the float32 vector."""
        with np.errstate(invalid="ignore"):
            return sent["int8"] * np.repeat(sent["scales"], cls.blocks(sizes)[1])


FORMATS = {"float16": Float16, "int8": Int8}


def real(arrays):
    """Name the arrays of real numbers that have any; the others are sent as they are.

    Example
    -------
    >>> real({"w": np.zeros(2), "count": np.array(3), "none": np.zeros(0)})
    ['w']
    """
    return [n for n, a in arrays.items() if a.dtype.kind == "f" and a.size]


def layout(start, name):
    """Make arrays like those that a client sends back in a format.

    Arguments
    ---------
    start : dict of numpy.ndarray
        What it got.
    name : str
        Of ``FORMATS``.

    Returns
    -------
    dict of numpy.ndarray
        Of the names, order, shapes and types; their values mean nothing.
    """
    names = real(start)
    exact = {n: a for n, a in start.items() if n not in names}
    return FORMATS[name].layout([start[n].size for n in names]) | exact


def encode(arrays, start, name, residual=0.0):
    """Shorten an update.

    Arguments
    ---------
    arrays, start : dict of numpy.ndarray
        What a client sends back, and what it got.
    name : str
        Of ``FORMATS``.
    residual : numpy.ndarray
        What the client's last update has lost, ``(values,)``.

    Returns
    -------
    sent : dict of numpy.ndarray
    residual : numpy.ndarray
        What this one loses.
    """
    names = real(start)
    steps = [np.subtract(arrays[n], start[n]).astype("float32").ravel() for n in names]
    values = np.concatenate([*steps, np.zeros(0, "float32")]) + residual
    sizes = [start[n].size for n in names]
    sent = FORMATS[name].encode(values, sizes)
    with np.errstate(invalid="ignore"):
        lost = values - FORMATS[name].decode(sent, sizes)
    return sent | {n: a for n, a in arrays.items() if n not in names}, lost


def decode(sent, start, name):
    """Put the arrays together again that :func:`encode` shortened.

    Arguments
    ---------
    sent : dict of numpy.ndarray
        As :func:`layout` says.
    start : dict of numpy.ndarray
        What the client got.
    name : str
        Of ``FORMATS``.

    Returns
    -------
    dict of numpy.ndarray
        In the order of ``start``.
    """
    names = real(start)
    sizes = [start[n].size for n in names]
    parts = np.split(FORMATS[name].decode(sent, sizes), np.cumsum(sizes)[:-1])
    steps = dict(zip(names, parts, strict=True))
    return {
        n: (a + steps[n].reshape(a.shape)).astype(a.dtype) if n in steps else sent[n]
        for n, a in start.items()
    }


def compress(site, message, context, call_next):
    """Flower's mod, but for the site: shortens what a client sends.

    Arguments
    ---------
    site : Site
        Keeps what each client's last update has lost, beside its other state.
    message : flwr.app.Message
    context : flwr.app.Context
    call_next : callable

    Returns
    -------
    flwr.app.Message
    """
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    config, name = message.content["config"], site.federation.compress
    key = config["run"], config["client"], "residual"
    before = site.states.load(key, config["server-round"])
    start = view(message.content["arrays"])
    arrays = to_arrays(reply.content["arrays"])
    residual = before.get("arrays", {}).get("residual", 0.0)
    sent, lost = encode(arrays, start, name, residual)
    if np.isfinite(lost).all():
        state = {"arrays": {"residual": lost}}
        site.states.save(key, config["server-round"], state)
    reply.content["arrays"] = to_record(sent)
    return reply


def decompress(content, start, name):
    """Replaces what a client sent by the arrays that it stands for.

    Arguments
    ---------
    content : flwr.app.RecordDict
        Of its reply; its arrays are as :func:`layout` says.
    start : dict of numpy.ndarray
        What it got.
    name : str
        Of ``FORMATS``.
    """
    content["arrays"] = to_record(decode(view(content["arrays"]), start, name))
