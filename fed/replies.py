"""Which replies of clients to trust, and what to report of them."""

import functools
import math
import time
from collections import Counter
from dataclasses import dataclass

from flwr.app import ConfigRecord, Error, Message
from flwr.common.constant import ErrorCode
from speechbrain.utils.logger import get_logger

from fed.arrays import view
from fed.compression import decompress
from fed.guard import NORMS, lower_median, norm
from fed.schema import Schema, is_fair, line

logger = get_logger(__name__)

PATIENCE = 600.0, 3600.0
"""Seconds that real machines have for a round, at least and at most, by default."""


def client_row(client, status="ok"):
    """Start the row of a client in clients.csv."""
    row = {"client": client, "status": status, "seconds": 0.0, "bytes": 0}
    row |= {"examples": 0, "weight": 0.0, "update_norm": 0.0, "clip": 1.0}
    return row


# ---------------------------------------------------------------- replies as they come


def collect(grid, messages, patience=math.inf, waiting=lambda message, seconds: None):
    """Yields the reply to each message, in the order of the messages.

    The reply that Flower makes for a node that is gone has the SuperLink as sender:
    only the message that it answers tells whose it is. Replies wait at the SuperLink
    for their turn, so that one is in memory here, and one that cannot be read is known
    by the message that was asked about. A node that was gone for a moment has forgotten
    what it was asked, whether it is back or not.

    Arguments
    ---------
    grid : flwr.serverapp.Grid
    messages : list of Message
    patience : float
        Seconds to wait for all of them.
    waiting : callable
        Called with a message and seconds each minute in which its reply fails to come.

    Yields
    ------
    Message or None
        None: it has not come in time.
    """
    keys, start = list(grid.push_messages(messages)), time.monotonic()
    keys += [None] * (len(messages) - len(keys))
    asked, gone = {message.metadata.dst_node_id for message in messages}, set()
    for message, key in zip(messages, keys, strict=True):
        pause, minutes = 0.05, 1
        while (reply := pull(grid, message, key)) is None:
            seconds = time.monotonic() - start
            if seconds >= patience:
                break
            gone |= asked.difference(grid.get_node_ids())
            if message.metadata.dst_node_id in gone:
                reply = failure(message, "its SuperNode was gone in the meantime")
                break
            if seconds >= 60 * minutes:
                waiting(message, seconds)
                minutes = seconds // 60 + 1
            pause = min(1.0, 1.5 * pause)
            time.sleep(min(pause, patience - seconds))
        yield reply


def pull(grid, message, key):
    """Ask for one reply; what cannot be read is an error reply."""
    if key is None:
        return failure(message, "the message could not be sent")
    try:
        return next(iter(grid.pull_messages([key])), None)
    except OSError:
        raise  # the SuperLink is gone, and no client's fault
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            raise
        return failure(message, f"its reply cannot be read: {error}")


def failure(message, reason):
    """Make an error reply in a client's place."""
    return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)


# -------------------------------------------------------------- which of them to trust


def accept(replies, participants, rows, check, numbers):
    """Passes on good replies, and says of all others why they are left out.

    Arguments
    ---------
    replies : iterable of Message
        One for each participant, in their order; None where none has come.
    participants : list of tuple
        (client, index, node id) of all that were asked.
    rows : list of dict
        One row for each participant is added.
    check : callable
        Takes a reply and its row, which it fills; raises ValueError with what is wrong.
    numbers : Mixture
        Takes up the numbers of good replies.

    Yields
    ------
    tuple
        (reply, row); the reply's arrays are all that is left of it, and a weight.
    """
    for (client, _, _), reply in zip(participants, replies, strict=True):
        row = client_row(client)
        rows.append(row)
        try:
            check(reply, row)
        except ValueError as error:
            row["status"] = line(error)
            logger.warning("Client %s left out: %s", client, row["status"])
            continue
        sent = reply.content.pop("numbers", None)
        numbers.add(view(sent or {}), row["weight"])
        reply.content["metrics"].clear()
        reply.content["metrics"]["weight"] = row["weight"]
        yield reply, row


def require_content(reply, patience=math.inf):
    """Refuse what is no answer, saying why.

    Arguments
    ---------
    reply : flwr.app.Message or None
    patience : float
        Seconds for which was waited.

    Raises
    ------
    ValueError
    """
    if reply is None:
        raise ValueError(
            f"no reply within {patience:.0f} s (is its machine up, and does the app "
            "start? Its SuperNode's log says so)"
        )
    if reply.has_error():
        error = reply.error
        raise ValueError(str(error.reason or f"error {error.code} without reason"))
    if not reply.has_content():
        raise ValueError("an empty reply")


def introduced(reply):
    """Read who a SuperNode says that it is.

    Raises
    ------
    ValueError
        When it says no name that may stand in tables.
    """
    require_content(reply)
    config = reply.content.get("config")
    name = config.get("client") if isinstance(config, ConfigRecord) else None
    if not is_fair(name):
        raise ValueError("does not say which client it is")
    return name


def size(content):
    """Count the bytes of what a client has sent."""
    return sum(record.count_bytes() for record in content.values())


@dataclass
class Checker:
    """Judges replies: what is malformed, too late, too far off, or worth nothing.

    Arguments
    ---------
    federation : Federation
        Has the limits, and the weighting.
    schema : Schema
    sent : dict of numpy.ndarray
        What the clients started from.
    groups : dict of list
        Of :func:`fed.guard.groups_of`.
    most_examples : callable
        From a client to how many examples it may count.
    patience : float
        Seconds for which was waited.
    may_be_still : bool
        Whether weights may stay what they were: a rate that begins at 0 warms up.
    """

    federation: object
    schema: Schema
    sent: dict
    groups: dict
    most_examples: object = lambda client: math.inf
    patience: float = math.inf
    may_be_still: bool = False

    def __call__(self, reply, row):
        """Judge a reply; fill its metrics, norms and weight into the client's row.

        Raises
        ------
        ValueError
            Saying what is wrong.
        """
        require_content(reply, self.patience)
        self.schema.check(reply.content, row["client"])
        row["bytes"] = size(reply.content)
        if name := self.federation.compress:
            decompress(reply.content, self.sent, name)
        metrics = dict(reply.content["metrics"])
        metrics["num-examples"] = row["examples"] = self.count(metrics, row["client"])
        row |= {k: v for k, v in metrics.items() if k != "num-examples"}
        if self.federation.timeout and row["seconds"] > self.federation.timeout:
            raise ValueError(f"took {row['seconds']:.1f} s, over the timeout")
        self.measure(view(reply.content["arrays"]), row)
        try:
            weight = float(self.federation.weighting(metrics))
        except Exception as error:  # a weighting is given any numbers
            raise ValueError(str(error.args[0] if error.args else error)) from error
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight {weight}; it must be positive")
        row["weight"] = weight

    @functools.cached_property
    def limit(self):
        """The longest update that is averaged at all."""
        real = [name for key in NORMS[:2] for name in self.groups.get(key, ())]
        return self.federation.max_update * max(1.0, norm(self.sent, real))

    def count(self, metrics, client):
        """Believe a client no more examples than it may hold."""
        count, most = int(metrics["num-examples"]), self.most_examples(client)
        if count > most:
            logger.warning(
                "Client %s counts %d examples; counted as %d, the most that it may "
                "hold (max_examples)",
                client,
                count,
                most,
            )
        return min(count, int(most)) if most < math.inf else count

    def measure(self, arrays, row):
        """Note how far a client has moved; refuse what is not finite, far, or still."""
        row |= {k: norm(arrays, names, self.sent) for k, names in self.groups.items()}
        moved = math.hypot(*(row[key] for key in NORMS[:2] if key in row))
        if not math.isfinite(moved):
            raise ValueError("update is not finite")
        if moved > (limit := self.limit):
            raise ValueError(f"update of norm {moved:.3g} exceeds {limit:.3g}")
        if NORMS[0] in self.groups and not (row[NORMS[0]] or self.may_be_still):
            raise ValueError(
                "learnt nothing: no weight has changed (learning rate 0, gradients not "
                "finite, or grad_accumulation_factor above its number of batches?)"
            )


# ------------------------------------------------------------------- what to report


def failures(rows, most=3):
    """Says in a line which clients failed, and why: each reason once.

    Arguments
    ---------
    rows : list of dict
        Of clients.
    most : int
        Clients that are named with a reason.

    Example
    -------
    >>> row = {"status": "OSError: disk"}
    >>> failures([row | {"client": name} for name in "abcde"])
    'a, b, c and 2 more: OSError: disk'
    """
    reasons = {}
    for row in rows:
        reasons.setdefault(row["status"], []).append(row["client"])
    return "; ".join(
        ", ".join(names[:most])
        + (f" and {len(names) - most} more" if len(names) > most else "")
        + f": {reason}"
        for reason, names in reasons.items()
    )


def withhold(clients, federation):
    """Leave out of the clients' rows what nobody shall know of a single one.

    Secure aggregation leaves what the server saw. With differential privacy not even
    who took part may be known: only failures, which changed nothing, have rows.
    """
    if federation.privacy:
        failed = [row for row in clients if row["status"] != "ok"]
        return [{key: row[key] for key in ("client", "status")} for row in failed]
    if federation.secure:
        return [
            {key: row[key] for key in ("client", "status", "bytes")} for row in clients
        ]
    return clients


def begin_row(server_round, clients):
    """Begin a round's row with what is known whatever clients report."""
    good = [row for row in clients if row["status"] == "ok"]
    row = {"round": server_round, "seconds": 0.0, "clients": len(good)}
    row["failures"] = len(clients) - len(good)
    row["bytes"] = sum(client["bytes"] for client in clients)
    return row


def summarize(server_round, clients, totals):
    """Makes a round's row: totals add up, other metrics are means by example.

    Arguments
    ---------
    server_round : int
    clients : list of dict
        Their rows.
    totals : list of str
        Metrics to add up.

    Returns
    -------
    dict
        ``train_...`` for each metric of the clients that is no total.
    """
    good = [row for row in clients if row["status"] == "ok"]
    examples = sum(row["examples"] for row in good)
    row = begin_row(server_round, clients) | {"examples": examples}
    row["clipped"] = sum(r["clip"] < 1 for r in good)
    row |= {k: lower_median([r[k] for r in good]) for k in NORMS if k in good[0]}
    row |= {key: sum(r.get(key, 0.0) for r in good) for key in totals}
    for key in metrics_of(clients):
        if key not in totals:
            mean = sum(r.get(key, math.nan) * r["examples"] for r in good)
            row[f"train_{key}"] = mean / examples
    return row


def metrics_of(clients):
    """List the metrics that most good clients report; rows lose all others.

    A client that makes up metrics makes no columns.
    """
    good = [row for row in clients if row["status"] == "ok"]
    own = {*client_row(""), *NORMS}
    counts = Counter(key for row in good for key in row if key not in own)
    common = [key for key, count in counts.items() if 2 * count >= len(good)]
    for row in clients:
        for key in row.keys() - own - set(common):
            del row[key]
    return common
