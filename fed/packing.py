"""Arrays that travel between machines in one piece.

Flower sends each array by itself, in requests of its own to and from each process on
the way: with some hundred small arrays, as networks have them, these take longer than
training. Here all arrays of a message become the bytes of a single one, which Flower
cuts where it is long. Clients get the same bytes, so that a SuperLink keeps them once.
"""

import json
import struct

import numpy as np
from flwr.app import Array, ArrayRecord

from fed.arrays import pack as pack_array
from fed.arrays import view

NAME = "packed"
LENGTH = struct.Struct("<Q")
"""Of the description that precedes the arrays' own bytes."""


def pack(content):
    """Put all arrays of a message's content into one, in place.

    Arguments
    ---------
    content : flwr.app.RecordDict
    """
    records = {k: v for k, v in content.items() if isinstance(v, ArrayRecord)}
    if not any(records.values()):
        return
    described, parts = {}, []
    for record, arrays in records.items():
        del content[record]
        parts += [array.data for array in arrays.values()]
        described[record] = [
            (name, array.dtype, array.shape, array.stype, len(array.data))
            for name, array in arrays.items()
        ]
    head = json.dumps(described).encode()
    whole = b"".join([LENGTH.pack(len(head)), head, *parts])
    packed = pack_array(np.frombuffer(whole, "uint8"))
    content[NAME] = ArrayRecord({NAME: packed})


def unpack(content):
    """Undo :func:`pack`, if it was done; tell whether it was.

    Arguments
    ---------
    content : flwr.app.RecordDict

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        When it is not what :func:`pack` makes.
    """
    if NAME not in content:
        return False
    record = content.pop(NAME)
    if not isinstance(record, ArrayRecord) or [*record] != [NAME]:
        raise ValueError(f"'{NAME}' is no single array")
    try:
        records = dict(described(view(record)[NAME].tobytes()))
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"'{NAME}' holds no arrays: {error}") from error
    if twice := [name for name in records if name in content]:
        raise ValueError(f"'{NAME}' has '{twice[0]}', which was sent beside it as well")
    content.update(records)
    return True


def described(whole):
    """Yield the records of packed bytes, by name."""
    (length,) = LENGTH.unpack_from(whole)
    place = LENGTH.size + length
    for record, arrays in json.loads(whole[LENGTH.size : place]).items():
        found = ArrayRecord()
        for name, dtype, shape, stype, size in arrays:
            if type(size) is not int or size < 0:  # none has another one's bytes
                raise ValueError(f"{name} has {size} bytes")
            data, place = whole[place : place + size], place + size
            found[name] = Array(dtype, tuple(shape), stype, data)
        yield record, found
    if place != len(whole):
        raise ValueError("its length is another")


def packing(message, context, call_next):
    """Answer a message as it was sent, packed or not: one of Flower's mods."""
    packed = unpack(message.content)
    reply = call_next(message, context)
    if packed and reply.has_content():
        pack(reply.content)
    return reply


class PackingGrid:
    """A Grid whose messages are packed on their way.

    Arguments
    ---------
    grid : flwr.serverapp.Grid
    """

    def __init__(self, grid):
        self.grid = grid

    def __getattr__(self, name):
        """Leave all else to the grid."""
        return getattr(self.grid, name)

    def push_messages(self, messages):
        """Send messages, packed."""
        messages = list(messages)
        for message in messages:
            pack(message.content)
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids):
        """Yield replies, unpacked.

        Raises
        ------
        ValueError
            When one cannot be.
        """
        for reply in self.grid.pull_messages(message_ids):
            if reply.has_content():
                unpack(reply.content)
            yield reply
