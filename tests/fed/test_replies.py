"""Which replies of clients count."""

import logging
import math
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

import fed
from fed.replies import collect, introduced, summarize
from fed.runtime import ProcessGrid
from fed.server import Server


def question(node):
    """A message to a node."""
    ProcessGrid(1)
    content = RecordDict({"config": ConfigRecord({"client": f"c{node}"})})
    return Message(content, message_type="train", dst_node_id=node)


class Link:
    """A grid whose replies come when they are told to.

    Arguments
    ---------
    times : dict
        From node to how often its reply is asked for in vain.
    """

    def __init__(self, times):
        self.times = times

    def get_node_ids(self):
        return [11, 12, 13]

    def push_messages(self, messages):
        self.asked = {str(m.metadata.dst_node_id): m for m in messages}
        return list(self.asked)

    def pull_messages(self, keys):
        (key,) = keys
        self.times[int(key)] -= 1
        if self.times[int(key)] >= 0:
            return []
        reply = Message(Error(5, "node unavailable"), reply_to=self.asked[key])
        # As SuperLink says it of a node that is gone: it is the sender.
        reply.metadata.__dict__["_src_node_id"] = 1
        return [reply]


def test_the_reply_for_a_dead_node_is_known_by_its_message():
    link = Link({11: 0, 12: 0})
    replies = list(collect(link, [question(11), question(12)]))
    assert [reply.metadata.src_node_id for reply in replies] == [1, 1]
    assert [reply.error.reason for reply in replies] == ["node unavailable"] * 2


def test_replies_come_in_the_order_of_their_messages_and_late_ones_not():
    link = Link({11: 3, 12: math.inf, 13: 0})
    replies = list(collect(link, [question(n) for n in (11, 12, 13)], patience=0.5))
    assert [reply is not None for reply in replies] == [True, False, True]


def test_a_node_that_was_gone_for_a_moment_is_not_waited_for():
    class Restarted(Link):
        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return [11, 13] if self.looks == 2 else [11, 12, 13]

    link = Restarted({11: 5, 12: math.inf, 13: 0})
    asked = [question(node) for node in (11, 12, 13)]
    first, second, third = collect(link, asked, patience=60)
    assert first is not None and third is not None
    assert second.error.reason == "its SuperNode was gone in the meantime"


def test_a_message_that_could_not_be_sent_is_answered():
    class Full(Link):
        def push_messages(self, messages):
            return []

    (reply,) = collect(Full({}), [question(11)])
    assert "could not be sent" in reply.error.reason


def test_a_superlink_that_is_gone_is_no_clients_fault():
    class Gone(Link):
        def pull_messages(self, keys):
            raise ConnectionRefusedError("SuperLink")

    with pytest.raises(ConnectionRefusedError):
        list(collect(Gone({}), [question(11)]))


def test_whoever_is_waited_for_is_told_each_minute(monkeypatch):
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    told = []
    link = Link({11: 10})
    list(collect(link, [question(11)], 1e9, lambda m, seconds: told.append(seconds)))
    assert told == [60, 120, 180]


def test_a_silent_node_is_left_out_after_the_timeout(train, read, caplog, monkeypatch):
    honest = ProcessGrid.pull_messages

    def pull(grid, keys):
        config = grid.pushed[keys[0]].content["config"]
        return iter(()) if config["client"] == "client02" else honest(grid, keys)

    monkeypatch.setattr(ProcessGrid, "pull_messages", pull)
    with caplog.at_level(logging.WARNING):
        train(rounds=2, federation={"timeout": 1})
    statuses = {row["client"]: row["status"] for row in read("clients.csv")}
    assert "no reply within 1 s" in statuses["client02"]
    assert [row["clients"] for row in read("rounds.csv")] == ["3", "3"]
    assert "client02 left out: no reply" in caplog.text


def test_whoever_counts_for_itself_is_believed_with_a_word_of_warning(caplog):
    server = SimpleNamespace(simulated=False, federation=fed.Federation())
    assert Server.most_examples(server, "a") == math.inf
    assert "max_examples" in caplog.text
    server.federation.max_examples = 5
    assert Server.most_examples(server, "a") == 5


def clients(*rows):
    """Rows of clients.csv, of good clients unless they say otherwise."""
    base = {"status": "ok", "seconds": 0.0, "bytes": 8, "weight": 0.5, "clip": 1.0}
    return [{"client": str(i)} | base | row for i, row in enumerate(rows)]


def test_totals_add_up_and_means_are_by_example():
    rows = clients(
        {"examples": 1, "loss": 0.0, "hours": 1.0},
        {"examples": 3, "loss": 4.0, "hours": 2.0, "clip": 0.5},
        {"status": "no reply", "examples": 0},
    )
    row = summarize(5, rows, ["hours"])
    assert row["train_loss"] == 3.0
    assert row["hours"] == 3.0
    assert (row["clients"], row["failures"], row["examples"]) == (2, 1, 4)
    assert (row["clipped"], row["bytes"]) == (1, 24)
    assert "train_hours" not in row


@pytest.mark.parametrize("known", [{}, {"x": 1.0}])
def test_a_metric_that_one_client_lacks_is_not_a_number(known):
    rows = clients({"examples": 1, "x": 1.0}, {"examples": 1, **known})
    mean = summarize(1, rows, [])["train_x"]
    assert (mean == 1.0) if known else (mean != mean)


def test_a_metric_that_few_clients_report_has_no_column():
    rows = clients({"examples": 1, "x": 1.0}, {"examples": 1}, {"examples": 1})
    assert "train_x" not in summarize(1, rows, [])
    assert "x" not in rows[0]


@pytest.mark.parametrize(
    ("slowest", "timeout", "simulated", "patience"),
    [
        (0.0, None, False, 3600.0),  # nobody has trained yet
        (5.0, None, False, 600.0),
        (100.0, None, False, 1000.0),
        (9999.0, None, False, 3600.0),
        (5.0, 7.0, False, 7.0),
        (5.0, None, True, math.inf),
        (5.0, 7.0, True, 7.0),
    ],
)
def test_real_machines_have_a_time_in_which_to_reply(
    slowest, timeout, simulated, patience
):
    server = SimpleNamespace(slowest=slowest, simulated=simulated)
    server.federation = fed.Federation(timeout=timeout)
    assert Server.patience.fget(server) == patience


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"config": ConfigRecord()}),
        RecordDict({"config": MetricRecord({"client": 1})}),
        RecordDict({"config": ConfigRecord({"client": b"a"})}),
        RecordDict({"config": ConfigRecord({"client": "a\nb"})}),
        RecordDict({"config": ConfigRecord({"client": "x" * 999})}),
    ],
)
def test_a_node_that_is_nobody_is_told_so(content):
    with pytest.raises(ValueError, match="which client"):
        introduced(Message(content, reply_to=question(11)))
    named = RecordDict({"config": ConfigRecord({"client": "clinic-a"})})
    assert introduced(Message(named, reply_to=question(11))) == "clinic-a"
