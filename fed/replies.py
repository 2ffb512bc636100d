"""Which replies of clients to trust, and what to report of them."""

import math
from dataclasses import dataclass

import numpy as np
from speechbrain.utils.logger import get_logger

from fed.arrays import view
from fed.strategy import accumulator

logger = get_logger(__name__)


def client_row(client, status="ok"):
    """Start the row of a client in clients.csv."""
    return dict(client=client, status=status, seconds=0.0, examples=0, weight=0.0)


def accept(replies, participants, rows, check, numbers):
    """Passes on good replies, and says of all others why they are left out.

    Arguments
    ---------
    replies : iterable of Message
    participants : list of tuple
        (client, index, node id) of all that were asked.
    rows : list of dict
        One row for each participant is added.
    check : callable
        Takes a reply and its row; returns what is wrong, or ``ok``.
    numbers : Mixture
        Takes up the numbers of good replies.

    Yields
    ------
    Message
        Its metrics are the weight alone, and of records, the arrays are left.
    """
    pending = {node: client for client, _, node in participants}
    for reply in replies:
        row = client_row(pending.pop(reply.metadata.src_node_id))
        row["status"] = check(reply, row)
        rows.append(row)
        if row["status"] == "ok":
            sent = reply.content.pop("numbers", None)
            numbers.add(view(sent or {}), row["weight"])
            reply.content["metrics"].clear()
            reply.content["metrics"]["weight"] = row["weight"]
            yield reply
        else:
            logger.warning("Client %s left out: %s", row["client"], row["status"])
    for client in pending.values():
        logger.warning("Client %s left out: no reply", client)
        rows.append(client_row(client, "no reply"))


@dataclass
class Checker:
    """Judges replies.

    Arguments
    ---------
    federation : Federation
        Has the limits, and the weighting.
    sent : dict of numpy.ndarray
        What the clients started from.
    trained : set of str
        Of which arrays some must change.
    """

    federation: object
    sent: dict
    trained: set = frozenset()

    def __call__(self, reply, row):
        """Judge a reply; fill its metrics and weight into the client's row.

        Returns
        -------
        str
            ``ok``, or what is wrong.
        """
        if reply.has_error():
            return reply.error.reason
        metrics = dict(reply.content["metrics"])
        row |= {k: v for k, v in metrics.items() if k != "num-examples"}
        row["examples"] = metrics.get("num-examples", 0)
        if not row["examples"]:
            return "trained on no examples (fewer than a batch, with drop_last?)"
        if self.federation.timeout and row["seconds"] > self.federation.timeout:
            return f"took {row['seconds']:.1f} s, over the timeout"
        try:
            if fault := self.fault(view(reply.content["arrays"])):
                return fault
            weight = self.federation.weighting(metrics)
        except (KeyError, ValueError) as error:
            return str(error.args[0])
        if not (math.isfinite(weight) and weight > 0):
            return f"weight {weight}; it must be positive"
        row["weight"] = weight
        return "ok"

    def fault(self, arrays):
        """Compare an update with what was sent; return what is wrong, or None."""
        if arrays.keys() != self.sent.keys():
            odd = sorted(arrays.keys() ^ self.sent.keys())
            return f"sent back other arrays than it got: {odd}"
        squares, scale, moved = 0.0, 0.0, not self.trained
        for name, array in arrays.items():
            old = self.sent[name]
            if array.shape != old.shape or array.dtype != old.dtype:
                got = f"{array.dtype}{array.shape}"
                return f"{name} is {got} instead of {old.dtype}{old.shape}"
            if np.issubdtype(old.dtype, np.floating):
                step = np.subtract(array, old, dtype=accumulator(old.dtype)).ravel()
                moved = moved or (name in self.trained and step.any())
                squares += float(np.vdot(step, step))
                scale += float(np.vdot(old, old))
        if not math.isfinite(squares):
            return "update is not finite"
        limit = self.federation.max_update * max(1.0, math.sqrt(scale))
        if math.sqrt(squares) > limit:
            return f"update of norm {math.sqrt(squares):.3g} exceeds {limit:.3g}"
        if not moved:
            return (
                "learnt nothing: no weight has changed (learning rate 0, gradients not "
                "finite, or grad_accumulation_factor above its number of batches?)"
            )
        return None


def in_order(replies, nodes):
    """Sort replies as their messages were, so that sums are the same in any runtime."""
    if not isinstance(replies, list):
        return replies
    place = {node: i for i, node in enumerate(nodes)}
    return sorted(replies, key=lambda reply: place[reply.metadata.src_node_id])


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
    row = {"round": server_round, "seconds": 0.0, "clients": len(good)}
    row |= {"failures": len(clients) - len(good), "examples": examples}
    row |= {key: sum(r.get(key, 0.0) for r in good) for key in totals}
    for key in list(good[0])[len(client_row("")) :]:
        if key not in totals:
            mean = sum(r.get(key, math.nan) * r["examples"] for r in good)
            row[f"train_{key}"] = mean / examples
    return row
