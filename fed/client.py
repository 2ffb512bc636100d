"""The ClientApp: arrays in, one local update, arrays and raw metrics out."""

import time
from functools import reduce

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fed import origin as origins
from fed.arrays import to_arrays, to_record
from fed.origin import describe_deployed

app = ClientApp()


@app.train()
def train(message, context):
    """Train on a client's data; the config says whose, in which round, and how."""
    site = load_site(message, context)
    config = message.content["config"]
    own = "client" in context.node_config
    client = config["client"]
    train_set = site.train_set if own else site.client_set(client)

    def update(message, context):
        start = time.perf_counter()
        arrays, metrics = site.train(
            to_arrays(message.content["arrays"]),
            train_set,
            config["server-round"],
            config["client-index"],
            name=client,
            run=config["run"],
            lr=config.get("lr"),
            proximal_mu=config.get("proximal-mu"),
        )
        content = {
            "arrays": to_record(arrays),
            "metrics": MetricRecord(
                {**metrics, "seconds": time.perf_counter() - start}
            ),
            "config": ConfigRecord({"client": client}),
        }
        if site.federation.mods:
            # Noise must not follow from the seed, which everybody knows.
            np.random.seed()
        return Message(RecordDict(content), reply_to=message)

    return with_mods(update, site.federation.mods)(message, context)


@app.query()
def introduce(message, context):
    """Say which client lives on this node: it has a name, or a number in the data."""
    name = context.node_config.get("client")
    number = context.node_config.get("partition-id")
    if name is None and number is None:
        raise ValueError("--node-config must have client or partition-id.")
    if name is None:
        names = load_site(message, context).names()
        if not 0 <= number < len(names):
            raise ValueError(f"partition-id {number} of {len(names)} clients.")
        name = names[number]
    content = {"config": ConfigRecord({"client": str(name)})}
    return Message(RecordDict(content), reply_to=message)


def load_site(message, context):
    """Load the site that the message names, or a real node's own."""
    if "hparams" in context.run_config:
        return origins.load(describe_deployed(context))
    return origins.load(message.content["config"]["origin"])


def with_mods(update, mods):
    """Wrap the update in Flower's mods, the first one outermost."""

    def wrap(inner, mod):
        return lambda message, context: mod(message, context, inner)

    return reduce(wrap, reversed(mods), update)
