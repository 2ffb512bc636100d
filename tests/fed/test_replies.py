"""Which replies of clients count."""

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from fed.arrays import to_record
from fed.replies import accept, in_order, summarize
from fed.runtime import ProcessGrid
from fed.strategy import Mixture


def message(node, weight=1.0):
    """A reply of a node."""
    ProcessGrid(1)
    question = Message(RecordDict(), message_type="train", dst_node_id=node)
    metrics = MetricRecord({"weight": weight})
    content = RecordDict({"arrays": to_record({}), "metrics": metrics})
    return Message(content, reply_to=question)


def test_a_vanished_node_is_named():
    rows = []
    participants = [("a", 0, 11), ("b", 1, 12)]
    check = lambda reply, row: "ok"  # noqa: E731
    passed = list(accept([message(12)], participants, rows, check, Mixture()))
    assert [reply.metadata.src_node_id for reply in passed] == [12]
    statuses = {row["client"]: row["status"] for row in rows}
    assert statuses == {"b": "ok", "a": "no reply"}


def test_an_error_reply_is_no_update():
    ProcessGrid(1)
    question = Message(RecordDict(), message_type="train", dst_node_id=11)
    reply = Message(Error(code=0, reason="node unavailable"), reply_to=question)
    rows = []
    check = lambda reply, row: reply.error.reason  # noqa: E731
    assert not list(accept([reply], [("a", 0, 11)], rows, check, Mixture()))
    assert rows[0]["status"] == "node unavailable"


def test_replies_are_sorted_as_their_messages():
    replies = [message(node) for node in (13, 11, 12)]
    ordered = in_order(replies, [11, 12, 13])
    assert [reply.metadata.src_node_id for reply in ordered] == [11, 12, 13]


def test_totals_add_up_and_means_are_by_example():
    base = {"status": "ok", "seconds": 0.0, "weight": 0.5}
    clients = [
        {"client": "a", **base, "examples": 1, "loss": 0.0, "hours": 1.0},
        {"client": "b", **base, "examples": 3, "loss": 4.0, "hours": 2.0},
        {"client": "c", **base, "status": "no reply", "examples": 0},
    ]
    row = summarize(5, clients, ["hours"])
    assert row["train_loss"] == 3.0
    assert row["hours"] == 3.0
    assert (row["clients"], row["failures"], row["examples"]) == (2, 1, 4)
    assert "train_hours" not in row


@pytest.mark.parametrize("known", [{}, {"x": 1.0}])
def test_a_metric_that_one_client_lacks_is_not_a_number(known):
    base = {"status": "ok", "seconds": 0.0, "examples": 1, "weight": 0.5}
    clients = [{"client": "a", **base, "x": 1.0}, {"client": "b", **base, **known}]
    mean = summarize(1, clients, [])["train_x"]
    assert (mean == 1.0) if known else (mean != mean)
