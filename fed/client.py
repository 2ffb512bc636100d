"""The ClientApp: arrays in, one local update, arrays and raw metrics out."""

import time
from contextlib import contextmanager
from functools import partial, reduce

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fed import command, personal
from fed.arrays import to_arrays, to_record, view
from fed.compression import compress
from fed.intact import intact
from fed.packing import packing
from fed.secure import members
from fed.site import Task

app = ClientApp(mods=[packing])


@app.train()
def train(message, context):
    """Train on a client's data; the config says whose, in which round, and how."""
    with no_exit():
        site = site_of(message, context)
        update = partial(train_at, site, "client" in context.node_config)
        mods = [*site.federation.mods]
        if site.federation.compress:
            mods.insert(0, partial(compress, site))
        if site.federation.secure:
            mods.insert(0, partial(members.mask, site))
        # The first of Flower's mods is the outermost.
        return reduce(wrap, reversed(mods), update)(message, context)


def wrap(inner, mod):
    """Put a mod around what it calls."""
    return lambda message, context: mod(message, context, inner)


def train_at(site, own_data, message, context):
    """Make the local update of one client, or of the one that has a site of its own."""
    start, config = time.perf_counter(), message.content["config"]
    numbers, client = message.content.get("numbers"), config["client"]
    whole = site.train_set, site.train_options
    task = Task(
        config["server-round"],
        config["client-index"],
        client,
        config["run"],
        lr=config.get("lr"),
        proximal_mu=config.get("proximal-mu"),
    )
    with intact(site.brain):
        arrays, metrics = site.train(
            view(message.content["arrays"]),
            to_arrays(numbers or {}),
            whole if own_data else site.client_data(client),
            task,
        )
    content = {"arrays": to_record(arrays), "config": ConfigRecord({"client": client})}
    if numbers is not None:
        content["numbers"] = to_record(site.brain.numbers())
    if site.federation.mods:
        # Noise must not follow from the seed, which everybody knows.
        np.random.seed()
    seconds = time.perf_counter() - start
    content["metrics"] = MetricRecord({**metrics, "seconds": seconds})
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    """Test the model, and what the client makes of it, on the client's own data."""
    with no_exit():
        site = site_of(message, context)
        with intact(site.brain):
            return personal.answer(site, "client" in context.node_config, message)


@contextmanager
def no_exit():
    """Make a recipe that exits fail, so that there is a reply, and the others go on."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"the recipe exits, with {error.code!r}") from error


for action, handler in members.HANDLERS.items():
    app.query(action)(handler)


@app.query()
def introduce(message, context):
    """Say which client lives on this node: it has a name, or a number in the data."""
    name = context.node_config.get("client")
    number = context.node_config.get("partition-id")
    if name is None and number is None:
        raise ValueError("--node-config must have client or partition-id.")
    if name is None:
        with no_exit():
            names = site_of(message, context).names()
        if not 0 <= number < len(names):
            raise ValueError(f"partition-id {number} of {len(names)} clients.")
        name = names[number]
    config = ConfigRecord({"client": str(name)})
    return Message(RecordDict({"config": config}), reply_to=message)


def site_of(message, context):
    """Make or find the site that the message names, or a real node's own."""
    if "command" in context.node_config:  # of fed.node, whatever the message says
        return command.load(context.node_config["command"])
    if "hparams" in context.run_config:
        return command.load(command.deployed(context))
    return command.load(message.content["config"]["command"])
