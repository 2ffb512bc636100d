"""What the server does in secure aggregation."""

import math
import os
from collections import Counter

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from speechbrain.utils.logger import get_logger

from fed import weighting as weightings
from fed.arrays import view
from fed.guard import groups_of
from fed.replies import Checker, collect, require_content, size
from fed.schema import MOST_METRICS, RESERVED, Schema, is_fair
from fed.secure import masking
from fed.secure.masking import KEY_BYTES, SEED_BYTES, SHARE_BYTES
from fed.secure.members import NAME
from fed.strategy import Wrapper, as_reply, compares_replies

PAIR = ("key", "cipher")
"""The two public keys of a client."""

logger = get_logger(__name__)


def threshold_of(members):
    """Say how many must stay to the end: two thirds.

    More than half, so that no two answers to different questions unmask one member.

    Example
    -------
    >>> [threshold_of(members) for members in (2, 3, 6, 64)]
    [2, 2, 4, 43]
    """
    return members - members // 3


def refuse(federation):
    """Refuse what needs single updates.

    Arguments
    ---------
    federation : Federation

    Raises
    ------
    ValueError
    """
    weighs = federation.weighting in (weightings.uniform, weightings.by_examples)
    for excluded, what in (
        (not weighs, "weights other than uniform and by_examples"),
        (compares_replies(federation.strategy), "strategies that compare updates"),
        (federation.privacy, "privacy, where the server clips updates"),
        (federation.compress, "compress, as masks do not get shorter"),
    ):
        if excluded:
            raise ValueError(
                f"secure: the server sees sums of updates alone, which excludes {what}."
            )


def are_bytes(values, count, size):
    """Tell whether a client sent so many byte strings of one size, or empty ones."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, bytes) and len(v) in (0, size) for v in values)
    )


class SecureAggregation(Wrapper):
    """Wraps a strategy that needs the mean alone, and gives it that of a masked sum.

    Arguments
    ---------
    strategy : flwr.serverapp.strategy.FedAvg
    federation : Federation
        Has limits and totals.

    Attributes
    ----------
    patience : float
        Seconds to wait in each exchange; the server sets it.
    lost : dict of str
        From node id to reason, of those that fell out in this round.
    groups : dict of list
        Empty: the norms of single updates are not known.
    """

    groups = {}

    def __init__(self, strategy, federation):
        self.strategy = strategy
        self.federation = federation
        self.lost = {}
        self.threshold = 2
        self.patience = math.inf

    def ask(self, action, contents):
        """Send a query to each place; return the records of those that answer."""
        messages = [
            Message(
                RecordDict({NAME: ConfigRecord({"session": self.session, **content})}),
                message_type=f"query.{action}",
                dst_node_id=self.nodes[place],
            )
            for place, content in contents.items()
        ]
        found, replies = {}, collect(self.grid, messages, self.patience)
        for place, reply in zip(contents, replies, strict=True):
            try:
                require_content(reply, self.patience)
                found[place] = reply.content.get(NAME, {})
            except ValueError as error:
                self.lose(place, str(error))
        return found

    def lose(self, place, reason):
        """Note that a client fell out."""
        self.lost[self.nodes[place]] = reason

    def keep(self, answers, fits, what):
        """Keep the answers that fit, and lose who gave others."""
        for place in [p for p, answer in answers.items() if not fits(answer)]:
            del answers[place]
            self.lose(place, f"sent {what} that are none")
        return answers

    def configure_train(self, server_round, arrays, config, grid):
        """Exchange keys and shares; then send the model to who took part in both."""
        configured = self.strategy.configure_train(server_round, arrays, config, grid)
        messages = dict(enumerate(configured))
        self.grid, self.session, self.lost = grid, os.urandom(SEED_BYTES), {}
        self.nodes = {p: m.metadata.dst_node_id for p, m in messages.items()}
        self.start, self.names = view(arrays), None
        pairs = self.keep(self.ask("keys", {p: {} for p in messages}), is_pair, "keys")
        for place in repeated(pairs):  # clients answer no roster with two equal keys
            del pairs[place]
            self.lose(place, "sent a key that another client sent as well")
        # From here on a place is one among those who have keys.
        self.nodes = {p: self.nodes[old] for p, old in enumerate(pairs)}
        messages = {p: messages[old] for p, old in enumerate(pairs)}
        if len(pairs) < 2:
            logger.warning(
                "Secure aggregation needs two clients; %d are left.", len(pairs)
            )
            return []
        dealt = self.exchange_shares([*pairs.values()])
        self.members = [*dealt]
        for place, message in messages.items():
            if place in dealt:
                own = [answer["shares"][place] for answer in dealt.values()]
                content = {"members": self.members, "shares": own}
                content["session"] = self.session
                message.content[NAME] = ConfigRecord(content)
        return [messages[place] for place in dealt if len(dealt) >= self.threshold]

    def exchange_shares(self, pairs):
        """Tell all who is there, and collect the shares that each deals to each."""
        self.keys = [pair["key"] for pair in pairs]
        self.threshold = threshold_of(len(pairs))
        roster = {"keys": self.keys, "ciphers": [pair["cipher"] for pair in pairs]}
        roster["threshold"] = self.threshold
        asked = {place: {"place": place, **roster} for place in range(len(pairs))}
        return self.keep(
            self.ask("shares", asked),
            lambda answer: are_bytes(answer.get("shares"), len(pairs), SHARE_BYTES),
            "shares",
        )

    def __call__(self, reply, row):
        """Judge a reply as :class:`fed.replies.Checker` does, as far as masks allow.

        Raises
        ------
        ValueError
            Saying what is wrong.
        """
        require_content(reply, self.patience)
        content = reply.content
        kinds = {"arrays": ArrayRecord, "metrics": MetricRecord}
        kinds |= {"config": ConfigRecord, NAME: ConfigRecord}
        if {name: type(record) for name, record in content.items()} != kinds:
            raise ValueError("its records are not those of a masked update")
        names = content[NAME].get("metrics")
        fair = isinstance(names, list) and len(names) <= MOST_METRICS
        if not (fair and all(is_fair(n) and n not in RESERVED for n in names)):
            raise ValueError("its metrics have no names, or odd ones")
        if self.names is None:
            self.names = names
        if names != self.names:
            raise ValueError(f"has other metrics than the first client: {names}")
        values = sum(a.size for a in self.start.values()) + 2 + len(names)
        Schema({"masked": np.empty(values, "uint64")}).check_arrays(content["arrays"])
        row["bytes"] = size(content)
        row["weight"] = 1.0  # which it is, is in the sum

    def aggregate_train(self, server_round, replies):
        """Add what comes in, unmask the sum, and give the strategy the mean.

        Returns
        -------
        flwr.app.ArrayRecord or None
        flwr.app.MetricRecord or None
            ``examples``, totals, and ``train_...``: means of metrics over examples.
        """
        places = {node: place for place, node in self.nodes.items()}
        total, survivors = 0, []
        for reply in replies:
            total = total + view(reply.content["arrays"])["masked"]
            survivors.append(places[reply.metadata.src_node_id])
        if len(survivors) < max(self.threshold, self.federation.min_clients):
            logger.warning("Too few clients are left to unmask their sum.")
            return None, None
        seeds = self.seeds(survivors)
        if seeds is None:
            logger.warning("Too few clients have helped to unmask the sum.")
            return None, None
        keys = dict(enumerate(self.keys))
        total = masking.unmask(total, *seeds, keys, self.session)
        mean, weight, metrics = self.read(masking.decode(total, len(self.keys)))
        try:
            groups = groups_of(self.start, set())
            Checker(self.federation, None, self.start, groups).measure(mean, {})
        except ValueError as error:
            logger.warning("The mean of the clients is left out: %s", error)
            return None, None
        replies = [as_reply(mean, weight)]
        arrays, _ = self.strategy.aggregate_train(server_round, replies)
        return arrays, MetricRecord(metrics)

    def seeds(self, survivors):
        """Ask those who are left for shares; make the seeds of all masks in the sum.

        Returns
        -------
        own_seeds, key_seeds : dict of bytes
            Or None, if there are too few shares.
        """
        size = [len(self.members), SEED_BYTES]
        answers = self.keep(
            self.ask("seeds", {p: {"survivors": survivors} for p in survivors}),
            lambda answer: are_bytes(answer.get("shares"), *size),
            "shares",
        )
        own_seeds, key_seeds = {}, {}
        for i, member in enumerate(self.members):
            shares = {place: answer["shares"][i] for place, answer in answers.items()}
            kind = own_seeds if member in survivors else key_seeds
            kind[member] = masking.recover(shares, self.threshold)
            if kind[member] is None:
                return None
        return own_seeds, key_seeds

    def read(self, sums):
        """Take a sum apart.

        Returns
        -------
        arrays : dict of numpy.ndarray
            The weighted mean.
        weight : float
            The sum of weights.
        metrics : dict
        """
        sizes = [a.size for a in self.start.values()]
        *steps, (weight, examples), added = np.split(sums, np.cumsum([*sizes, 2]))
        arrays = {
            name: (a + step.reshape(a.shape) / weight).astype(a.dtype)
            for (name, a), step in zip(self.start.items(), steps, strict=True)
        }
        metrics = {"examples": round(examples)}
        for name, value in zip(self.names, added.tolist(), strict=True):
            totals = name in self.federation.totals
            metrics |= {name: value} if totals else {f"train_{name}": value / examples}
        return arrays, float(weight), metrics


def repeated(pairs):
    """List the places whose keys are not theirs alone."""
    counts = Counter(pair[name] for pair in pairs.values() for name in PAIR)
    return [p for p, pair in pairs.items() if max(counts[pair[n]] for n in PAIR) > 1]


def is_pair(answer):
    """Tell whether a client sent two public keys."""
    keys = [answer.get(name) for name in PAIR]
    return are_bytes(keys, 2, KEY_BYTES) and all(map(masking.is_key, keys))
