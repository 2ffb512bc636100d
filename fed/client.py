"""The ClientApp: arrays in, one local update, arrays and raw metrics out."""

import time
from functools import reduce

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fed import experiment as experiments
from fed.brain import to_arrays, to_record

app = ClientApp()


@app.train()
def train(message, context):
    """Train on a client's data; the config says whose, in which round, and how."""
    experiment = experiments.load(message.content["config"]["experiment"])

    def update(message, context):
        start = time.perf_counter()
        config = message.content["config"]
        arrays, metrics = experiment.train(
            to_arrays(message.content["arrays"]),
            experiment.client_set(config["client"]),
            config["server-round"],
            config["client-index"],
            name=config["client"],
            lr=config.get("lr"),
            proximal_mu=config.get("proximal-mu"),
        )
        content = {
            "arrays": to_record(arrays),
            "metrics": MetricRecord(
                {**metrics, "seconds": time.perf_counter() - start}
            ),
            "config": ConfigRecord({"client": config["client"]}),
        }
        if experiment.federation.mods:
            # Noise must not follow from the seed, which everybody knows.
            np.random.seed()
        return Message(RecordDict(content), reply_to=message)

    return with_mods(update, experiment.federation.mods)(message, context)


def with_mods(update, mods):
    """Wrap the update in Flower's mods, the first one outermost."""

    def wrap(inner, mod):
        return lambda message, context: mod(message, context, inner)

    return reduce(wrap, reversed(mods), update)
