"""Flower's FedAvg, so that a round is reproducible, cheap and keeps data types."""

from collections import Counter
from functools import partial

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import strategy as flower

from fed.arrays import to_record, view


class RunningMean:
    """A weighted mean of arrays by name that holds one model, not all of them.

    Each update moves the mean by its share, so that huge and tiny weights are safe.
    Arrays are averaged in their own precision, but at least in single; integers in
    double, and rounded.

    Example
    -------
    >>> mean = RunningMean()
    >>> mean.add({"w": np.float32([0.0])}, weight=1)
    >>> mean.add({"w": np.float32([4.0])}, weight=3)
    >>> mean.arrays()["w"]
    array([3.], dtype=float32)
    """

    def __init__(self):
        self.total = 0.0
        self.means = {}
        self.dtypes = {}

    def add(self, arrays, weight):
        """Move the mean towards the arrays.

        Arguments
        ---------
        arrays : dict of numpy.ndarray
        weight : float
            Positive.
        """
        self.total += weight
        share = weight / self.total
        for name, array in arrays.items():
            if name not in self.means:
                self.dtypes[name] = array.dtype
                self.means[name] = array.astype(accumulator(array.dtype))
            else:
                mean = self.means[name]
                step = np.asarray(np.subtract(array, mean, dtype=mean.dtype))
                step *= share
                mean += step
                del step  # before the next is made

    def arrays(self):
        """Return the mean in the data types that came in."""
        return {name: cast(m, self.dtypes[name]) for name, m in self.means.items()}


class Mixture:
    """Weighted means of numbers by name, of which some clients may lack some.

    Where clients disagree on a shape, that of most weight counts. With more than two
    clients, none counts as further from their median than ``multiple`` times as most,
    and what fewer than half of them count is dropped.

    Arguments
    ---------
    multiple : float
        Of the median distance from the median; None: whatever clients send counts.
    """

    def __init__(self, multiple=None):
        self.multiple = multiple
        self.found = {}
        self.clients = 0

    def add(self, numbers, weight):
        """Take up what one client counts, as :meth:`RunningMean.add` does."""
        self.clients += 1
        for name, array in numbers.items():
            self.found.setdefault((name, array.shape), []).append((array, weight))

    def arrays(self):
        """Return the means."""
        means, known = {}, Counter()
        for (name, _), pairs in self.found.items():
            known[name] += len(pairs)
        for key, pairs in self.found.items():
            if self.multiple is not None and 2 * known[key[0]] < self.clients:
                continue
            mean = means[key] = RunningMean()
            arrays, weights = zip(*pairs, strict=True)
            if self.multiple is not None and len(arrays) > 2:
                arrays = within(arrays, self.multiple)
            for array, weight in zip(arrays, weights, strict=True):
                mean.add({key[0]: array}, weight)
        found = {}
        for mean in sorted(means.values(), key=lambda mean: mean.total):
            found |= mean.arrays()
        return found


def within(arrays, multiple):
    """Move what is far from the median to where it is not.

    Arguments
    ---------
    arrays : list of numpy.ndarray
        Of one shape.
    multiple : float
        Of the median distance, for each element.

    Returns
    -------
    list of numpy.ndarray

    Example
    -------
    >>> float(within([np.float64(x) for x in (1, 2, 3, 100)], 3)[3])
    5.5
    """
    stack = np.stack(arrays).astype(np.float64)
    median = np.median(stack, axis=0)
    reach = multiple * np.median(np.abs(stack - median), axis=0)
    moved = np.clip(stack, median - reach, median + reach)
    return [
        array if (array == new).all() else cast(new, array.dtype)
        for array, new in zip(arrays, moved, strict=True)
    ]


def accumulator(dtype):
    """Chooses the precision in which to average."""
    if not np.issubdtype(dtype, np.floating):
        return np.float64
    return np.promote_types(dtype, np.float32)


def cast(array, dtype):
    """Converts to a data type, rounding to integers.

    Example
    -------
    >>> cast(np.array([0.6, 1.5]), np.dtype("int64"))
    array([1, 2])
    """
    if not np.issubdtype(dtype, np.floating):
        array = np.rint(array)
    return np.asarray(array).astype(dtype, copy=False)


class Reproducible(flower.FedAvg):
    """FedAvg that asks the participants it is given, in their order.

    Flower samples nodes by ids that differ from run to run. Here the server samples
    clients by name and sets ``participants``, a list of (client, index, node id).
    """

    def configure_train(self, server_round, arrays, config, grid):
        """Send the arrays and the config to each participant."""
        if isinstance(getattr(self, "current_arrays", None), ArrayRecord):
            # FedAvgM takes what it returned for what is sent; training on the server
            # may have changed it since.
            self.current_arrays = arrays
        return [
            Message(
                RecordDict(
                    {"arrays": arrays, "config": ConfigRecord({**config, **own})}
                ),
                message_type=MessageType.TRAIN,
                dst_node_id=node_id,
                group_id=str(server_round),
            )
            for own, node_id in self.configs(server_round)
        ]

    def configs(self, server_round):
        """Say what each participant is told, and where it lives."""
        for client, index, node_id in self.participants:
            own = {"client": client, "client-index": index}
            yield {"server-round": server_round, **own}, node_id


class FedAvg(Reproducible):
    """FedAvg that adds up replies as they come and then forgets them."""

    def aggregate_train(self, server_round, replies):
        """Average the arrays of the replies by their weight."""
        mean = RunningMean()
        for reply in replies:
            metrics = reply.content["metrics"]
            mean.add(view(reply.content["arrays"]), metrics[self.weighted_by_key])
            # Whoever still holds the reply while the next one is made: it is empty.
            reply.content["arrays"].clear()
        self.mean = mean.arrays()
        return (to_record(self.mean) if self.mean else None), None


def follow(average, arrays, share, server_round):
    """Moves the moving average of the models of all rounds on to the newest.

    Early models weigh little: of round r the average keeps ``(1 + r) / (10 + r)`` of
    what it was, or ``share`` where that is less. Integers are those of the newest.

    Arguments
    ---------
    average : dict of numpy.ndarray or None
        Before this round, if any.
    arrays : dict of numpy.ndarray
        The newest model.
    share : float
        That the average keeps each round, in [0, 1).
    server_round : int
        From 1.

    Returns
    -------
    dict of numpy.ndarray

    Example
    -------
    >>> follow({"w": np.float32([0])}, {"w": np.float32([4])}, 0.75, 1000)["w"]
    array([1.], dtype=float32)
    """
    if average is None:
        return arrays
    keep = min(share, (1 + server_round) / (10 + server_round))
    return {
        name: cast(keep * average[name] + (1 - keep) * array, array.dtype)
        if np.issubdtype(array.dtype, np.floating)
        else array
        for name, array in arrays.items()
    }


class Wrapper(flower.Strategy):
    """A strategy around another one, ``strategy``; evaluation is left to the server."""

    def configure_evaluate(self, server_round, arrays, config, grid):
        """Ask nobody."""
        return []

    def aggregate_evaluate(self, server_round, replies):
        """Return nothing."""

    def summary(self):
        """Log nothing."""


def as_reply(arrays, weight=1.0):
    """Write a mean as the only reply, for the strategy that goes on with it."""
    content = {"arrays": to_record(arrays), "metrics": MetricRecord({"weight": weight})}
    return Message(RecordDict(content), dst_node_id=0, message_type=MessageType.TRAIN)


COMPARING = (
    flower.FedMedian,
    flower.FedTrimmedAvg,
    flower.Krum,
    flower.MultiKrum,
    flower.Bulyan,
    flower.QFedAvg,
)


def compares_replies(strategy):
    """Tell whether a strategy, as YAML names it, needs more than the mean."""
    chosen = getattr(strategy, "func", strategy)
    return isinstance(chosen, type) and issubclass(chosen, COMPARING)


def build(strategy=None, privacy=None):
    """Builds the server's strategy from what YAML names.

    Arguments
    ---------
    strategy : type or functools.partial
        Any subclass of Flower's FedAvg, with its own arguments. Its
        ``super().aggregate_train`` becomes the running mean above.
    privacy : callable
        Wraps the strategy, as :func:`fed.privacy.central` does.

    Returns
    -------
    flwr.serverapp.strategy.Strategy

    Raises
    ------
    ValueError
        When the strategy is no FedAvg.
    """
    factory = strategy or flower.FedAvg
    factory = factory if isinstance(factory, partial) else partial(factory)
    chosen = factory.func
    if not (isinstance(chosen, type) and issubclass(chosen, flower.FedAvg)):
        raise ValueError(
            f"strategy: {chosen} must be a subclass of flwr.serverapp.strategy.FedAvg, "
            "given as !name:flwr.serverapp.strategy.FedAdam."
        )
    bases = (FedAvg,) if issubclass(FedAvg, chosen) else (chosen, FedAvg)
    composed = type(chosen.__name__, bases, {})
    built = composed(**{"weighted_by_key": "weight", **factory.keywords})
    return privacy(built) if privacy else built


def layers(strategy):
    """List a strategy and those that it wraps, outermost first."""
    found = [strategy]
    while hasattr(found[-1], "strategy"):
        found.append(found[-1].strategy)
    return found


def remember(strategy):
    """Note all that a strategy knows, in case that a round fails."""
    return [dict(vars(layer)) for layer in layers(strategy)]


def put_back(strategy, noted):
    """Make a strategy forget what it learned since :func:`remember`."""
    for layer, attributes in zip(layers(strategy), noted, strict=True):
        vars(layer).clear()
        vars(layer).update(attributes)


LASTING = "m_t v_t momentum_vector clipping_norm".split()
"""What Flower's strategies take from round to round; accountants have more."""


def strategy_state(strategy):
    """Collect what each layer of a strategy takes from round to round."""
    states = []
    for layer in layers(strategy):
        state = {name: vars(layer)[name] for name in LASTING if name in vars(layer)}
        if accountant := getattr(layer, "accountant", None):
            state["accountant"] = accountant.state_dict()
        states.append(state)
    return states


def restore_strategy(strategy, states):
    """Put back what :func:`strategy_state` collected."""
    for layer, state in zip(layers(strategy), states, strict=True):
        if "accountant" in state:
            layer.accountant.load_state_dict(state["accountant"])
        lasting = {name: state[name] for name in LASTING if name in state}
        vars(layer).update(lasting)
