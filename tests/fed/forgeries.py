"""Replies that no honest client sends: every field of a wrong type, size, name, order.

``FORGERIES`` maps the name of each to what makes it of a good reply, in place, and to a
part of what the server says of it.
"""

import copy
from functools import partial

import numpy as np
from flwr.app import Array, ConfigRecord, MetricRecord

from fed.arrays import pack

WEIGHT = "model.0.weight"


def put(record, name, value):
    """Put a value into a record past its own checks, as bytes from a wire would."""
    record.__dict__["_data"][name] = value


def drop(*path):
    """Leave out a record, or an item of one."""

    def forge(content):
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return forge


def swap(name, record):
    """Put another record in a record's place."""
    return lambda content: put(content, name, record)


def metric(name, value):
    """Report a metric."""
    return lambda content: put(content["metrics"], name, value)


def config(name, value):
    """Say something else in the config."""
    return lambda content: put(content["config"], name, value)


def array(edit, name=WEIGHT, record="arrays"):
    """Change the fields of an array."""

    def forge(content):
        changed = copy.copy(content[record][name])
        edit(changed)
        put(content[record], name, changed)

    return forge


def fields(**values):
    """Give an array other fields."""
    return array(lambda changed: vars(changed).update(values))


def data(edit):
    """Give an array other bytes."""
    return array(lambda changed: setattr(changed, "data", edit(changed.data)))


def values(edit, name=WEIGHT):
    """Give an array other values, well packed."""

    def forge(content):
        array = edit(content["arrays"][name].numpy().copy())
        put(content["arrays"], name, pack(array))

    return forge


def number(name, array):
    """Send a number from outside of the model."""
    return lambda content: put(content["numbers"], name, array)


def reorder(key):
    """Send all arrays in another order."""

    def forge(content):
        items = list(content["arrays"].items())
        content["arrays"].clear()
        for name, item in key(items):
            put(content["arrays"], name, item)

    return forge


def rename(content):
    """Misspell an array, in its place."""
    reorder(lambda items: [(name.replace("bias", "bais"), a) for name, a in items])(
        content
    )


def fill(array, value):
    """Put a value into the first place."""
    array.flat[0] = value
    return array


def many_metrics(content):
    """Report a thousand metrics."""
    content["metrics"].update({f"m{i}": 0.0 for i in range(1000)})


HALF = np.float32([0.5])
PICKLE = b"cos\nsystem\n(S'true'\ntR."
FORGERIES = {
    # records
    "no records": (lambda content: content.clear(), "records"),
    "no arrays": (drop("arrays"), "records than asked for: arrays"),
    "no metrics": (drop("metrics"), "records than asked for: metrics"),
    "no config": (drop("config"), "records than asked for: config"),
    "no numbers": (drop("numbers"), "records than asked for: numbers"),
    "one more record": (swap("more", MetricRecord()), "records than asked for: more"),
    "arrays of metrics": (swap("arrays", MetricRecord()), "'arrays' is MetricRecord"),
    "arrays no record": (swap("arrays", [1.0]), "'arrays' is list"),
    "metrics of config": (swap("metrics", ConfigRecord()), "'metrics' is ConfigRec"),
    "config of metrics": (swap("config", MetricRecord()), "'config' is MetricRecord"),
    "numbers of config": (swap("numbers", ConfigRecord()), "'numbers' is ConfigRec"),
    # config
    "another's name": (config("client", "client00"), "another client"),
    "a name in bytes": (config("client", b"client02"), "another client"),
    "no name": (drop("config", "client"), "another client"),
    "more config": (config("lr", 1e9), "another client"),
    # arrays: names and order
    "no array": (lambda content: content["arrays"].clear(), "arrays than asked for"),
    "array missing": (drop("arrays", WEIGHT), f"arrays than asked for: {WEIGHT}"),
    "array more": (lambda c: put(c["arrays"], "x\n", pack(HALF)), "asked for: x"),
    "array renamed": (rename, "model.0.bais"),
    "arrays reversed": (reorder(reversed), "another order"),
    "one array moved": (reorder(lambda items: items[1:] + items[:1]), "another order"),
    # arrays: types
    "float64": (values(lambda a: a.astype("float64")), "is float64(8, 4) instead"),
    "int32": (fields(dtype="int32"), "is int32(8, 4) instead of float32(8, 4)"),
    "unknown type": (fields(dtype="float33"), "is float33"),
    "type object": (fields(dtype="object"), "is object"),
    "type no text": (fields(dtype=32), "is 32"),
    "no array at all": (lambda c: put(c["arrays"], WEIGHT, 0.5), "is no array"),
    # arrays: shapes
    "fewer rows": (values(lambda a: a[:1]), "is float32(1, 4) instead"),
    "transposed": (values(lambda a: a.T.copy()), "is float32(4, 8) instead"),
    "flat": (values(np.ravel), "is float32(32,) instead"),
    "negative shape": (fields(shape=(-8, -4)), "its shape is none"),
    "shape of fractions": (fields(shape=(8.0, 4.0)), "its shape is none"),
    "shape a list": (fields(shape=[8, 4]), "its shape is none"),
    "shape a text": (fields(shape="84"), "its shape is none"),
    "huge shape": (fields(shape=(2**40, 2**40)), "instead of float32(8, 4)"),
    # arrays: bytes
    "a byte less": (data(lambda b: b[:-1]), "longer or shorter"),
    "a byte more": (data(lambda b: b + b"\0"), "longer or shorter"),
    "no header": (data(lambda b: b[-128:]), "longer or shorter"),
    "no bytes": (data(lambda b: b""), "longer or shorter"),
    "bytes of text": (data(lambda b: "0" * len(b)), "longer or shorter"),
    "another header": (data(lambda b: b.replace(b"<f4", b">f4")), "NumPy's format"),
    "pickled": (data(lambda b: (PICKLE + b)[: len(b)]), "NumPy's format"),
    "pickled header": (data(lambda b: b.replace(b"'<f4'", b"'|O' ")), "NumPy's format"),
    "another packing": (fields(stype="torch.tensor"), "torch.tensor instead of"),
    # arrays: values
    "nan": (values(lambda a: fill(a, np.nan)), "not finite"),
    "inf in a buffer": (
        values(lambda a: fill(a, np.inf), "model.1.running_var"),
        "not finite",
    ),
    "huge": (values(lambda a: fill(a, 1e30)), "not finite"),
    "large": (values(lambda a: fill(a, 1e6)), "exceeds"),
    # metrics
    "no count": (drop("metrics", "num-examples"), "no metric 'num-examples'"),
    "a count of none": (metric("num-examples", 0), "no examples"),
    "a negative count": (metric("num-examples", -8), "num-examples' is -8"),
    "half an example": (metric("num-examples", 0.5), "num-examples' is 0.5"),
    "nan examples": (metric("num-examples", float("nan")), "num-examples' is nan"),
    "a list of counts": (metric("num-examples", [8]), "num-examples' is [8]"),
    "endless examples": (metric("num-examples", 10**300), "too large"),
    "no loss": (drop("metrics", "loss"), "no metric 'loss'"),
    "loss nan": (metric("loss", float("nan")), "'loss' is nan"),
    "loss inf": (metric("loss", float("-inf")), "'loss' is -inf"),
    "a list of losses": (metric("loss", [0.5, 0.5]), "'loss' is [0.5, 0.5]"),
    "loss a text": (metric("loss", "0.5"), "'loss' is '0.5'"),
    "loss a truth": (metric("loss", True), "'loss' is True"),
    "no seconds": (drop("metrics", "seconds"), "no metric 'seconds'"),
    "negative seconds": (metric("seconds", -1.0), "took -1.0 s"),
    "nan seconds": (metric("seconds", float("nan")), "'seconds' is nan"),
    "a metric of none": (metric("x", None), "'x' is None"),
    "metric status": (metric("status", 0.0), "metric named 'status'"),
    "metric weight": (metric("weight", 1e9), "metric named 'weight'"),
    "metric client": (metric("client", 0.0), "metric named 'client'"),
    "metric round": (metric("round", 0.0), "metric named 'round'"),
    "metric norm": (metric("update_norm", 0.0), "metric named 'update_norm'"),
    "metric of lines": (metric("a\nb", 0.0), "metric named 'a b'"),
    "metric of a formula": (metric("=1+1", 0.0), "metric named '=1+1'"),
    "metric without name": (metric("", 0.0), "metric named ''"),
    "a long name": (metric("x" * 10**6, 0.0), "metric named 'xxx"),
    "a thousand metrics": (many_metrics, "more than 100"),
    # numbers from outside of the model
    "number of nobody": (number("nobody.x", pack(HALF)), "named 'nobody.x'"),
    "number for modules": (number("brain.modules", pack(HALF)), "'brain.modules'"),
    "number for a method": (number("annealing.load", pack(HALF)), "'annealing.load'"),
    "number for a class": (
        number("annealing.__class__", pack(HALF)),
        "'annealing.__class__'",
    ),
    "number nan": (number("optimizers.a", pack(HALF * np.nan)), "not finite"),
    "a negative rate": (number("optimizers.a", pack(-HALF)), "is negative"),
    "number of text": (
        number("optimizers.a", Array("<U1", (1,), "numpy.ndarray", b"1234")),
        "is <U1",
    ),
    "too many numbers": (
        number("optimizers.a", pack(np.zeros(2**18))),
        "numbers beside weights",
    ),
    "short numbers": (
        number("optimizers.a", Array("int64", (4,), "numpy.ndarray", b"12")),
        "longer or shorter",
    ),
    "number no array": (number("optimizers.a", 3), "is no array"),
}


def forging(message, context, call_next, clients=("client01",)):
    """Forge the replies of some clients, each in another way: a mod for ``mods``.

    Forgeries that Flower itself cannot send, or that speak of numbers, which are not
    sent with mods, become error replies; they have to be left out as well.
    """
    reply, config = call_next(message, context), message.content["config"]
    if config["client"] in clients:
        edit, _ = FORGERIES[forged(config["server-round"], config["client"], clients)]
        edit(reply.content)
    return reply


def forged(server_round, client, clients):
    """Name the forgery that is a client's turn in a round."""
    turn = (int(server_round) - 1) * len(clients) + clients.index(client)
    return [*FORGERIES][turn % len(FORGERIES)]


CLIENTS = ("client01", "client02", "client03")


def mods(forge):
    """List the mods of a node that forges, as YAML names them."""
    return [partial(forging, clients=CLIENTS)] if forge else []
