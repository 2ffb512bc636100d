"""Whatever a client sends, it is left out by name, and the others go on."""

from contextlib import suppress

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

import fed
from fed.arrays import get_arrays, to_record
from fed.guard import groups_of
from fed.replies import Checker, client_row
from fed.runtime import ProcessGrid
from fed.schema import RESERVED, Schema, line, may_set
from tests.fed.forgeries import FORGERIES, WEIGHT, forging

ENVELOPES = {
    "an error without reason": (Error(ErrorCode.UNKNOWN), "error 0 without reason"),
    "an error of lines": (Error(ErrorCode.UNKNOWN, "a\nb\x1b[2J"), "a b [2J"),
    "nothing at all": (None, "an empty reply"),
    "what cannot be read": (ValueError("no JSON"), "cannot be read: no JSON"),
}


@pytest.fixture
def forge(monkeypatch):
    """Change the replies of client 02."""

    def forge(change):
        honest = ProcessGrid.pull_messages

        def pull(grid, keys):
            for key in keys:
                client = grid.pushed[key].content["config"]["client"]
                (reply,) = honest(grid, [key])
                yield change(reply) or reply if client == "client02" else reply

        monkeypatch.setattr(ProcessGrid, "pull_messages", pull)

    return forge


def assert_left_out(read, said):
    statuses = {row["client"]: row["status"] for row in read("clients.csv")}
    assert said in statuses.pop("client02")
    assert set(statuses.values()) == {"ok"}
    (row,) = read("rounds.csv")
    assert (row["clients"], row["failures"]) == ("3", "1")


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_reply_is_left_out_by_name(train, read, forge, name):
    edit, said = FORGERIES[name]
    forge(lambda reply: edit(reply.content))
    train(rounds=1)
    assert_left_out(read, said)


def test_there_are_sixty_forgeries_and_more():
    assert len(FORGERIES) >= 60


def test_a_run_outlives_them_all(train, read):
    small = {"n_clients": 2, "train_size": 8}
    train(**small, rounds=len(FORGERIES), federation={"mods": [forging]})
    statuses = [row["status"] for row in read("clients.csv")]
    assert set(statuses[::2]) == {"ok"}
    assert "ok" not in statuses[1::2]
    assert len(statuses) == 2 * len(FORGERIES)


def over_the_wire(content):
    """Take content to bytes and back, as Flower does between processes."""
    objects = get_all_nested_objects(content)
    contents = {key: item.deflate() for key, item in objects.items()}
    return inflate_object_from_contents(content.object_id, contents)


def good_content(arrays):
    """Content that is what was asked for."""
    moved = {n: (a + 1).astype(a.dtype) for n, a in arrays.items()}
    metrics = {"num-examples": 8, "loss": 0.5, "seconds": 0.1}
    return RecordDict(
        {
            "arrays": to_record(moved),
            "metrics": MetricRecord(metrics),
            "config": ConfigRecord({"client": "client02"}),
            "numbers": to_record({"annealing.patient": np.array(0)}),
        }
    )


HARMLESS = {"shape a list", "loss a truth"}
"""On their way they become what they should be."""


@pytest.fixture
def check(brain):
    """Make what judges a reply's content; it has no other words than a ValueError."""
    arrays = get_arrays(brain)
    schema, groups = Schema(arrays, may_set(brain)), groups_of(arrays, set())
    checker = Checker(fed.Federation(), schema, arrays, groups)

    def check(content):
        ProcessGrid(1)
        question = Message(RecordDict(), message_type="train", dst_node_id=1)
        checker(Message(content, reply_to=question), client_row("client02"))

    check.arrays = arrays
    return check


def test_what_is_honest_arrives_and_passes(check):
    check(over_the_wire(good_content(check.arrays)))


@pytest.mark.parametrize("name", [n for n in FORGERIES if n not in HARMLESS])
def test_what_arrives_of_a_forgery_is_refused(check, name):
    content = good_content(check.arrays)
    FORGERIES[name][0](content)
    with suppress(AttributeError, TypeError, ValueError):  # Flower cannot send it
        content = over_the_wire(content)
    with pytest.raises(ValueError, match="."):
        check(content)


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_reply_without_content_is_left_out_by_name(train, read, forge, name):
    instead, said = ENVELOPES[name]

    def change(reply):
        if isinstance(instead, Exception):
            raise instead
        vars(reply).update(_content=None, _error=instead)

    forge(change)
    train(rounds=1)
    assert_left_out(read, said)


def test_no_metric_takes_a_column_that_the_server_fills():
    assert {*client_row(""), "round"} - {"seconds"} <= RESERVED


def test_what_clients_say_takes_one_line_of_the_log():
    assert line("a\r\n\tb\x1b[31m\u2028c") == "a b [31m c"
    assert len(line("x" * 10**6)) < 400


def test_made_up_metrics_make_no_columns(train, read, forge):
    forge(lambda reply: reply.content["metrics"].update(made_up=1.0))
    train(rounds=1)
    assert read("rounds.csv")[0]["clients"] == "4"
    assert "made_up" not in read("clients.csv")[0]
    assert not [key for key in read("rounds.csv")[0] if "made_up" in key]


def test_arrays_in_columns_first_order_are_no_forgery(train, read, forge):
    def columns_first(reply):
        array = reply.content["arrays"][WEIGHT].numpy()
        reply.content["arrays"][WEIGHT] = Array(np.asfortranarray(array))

    forge(columns_first)
    train(rounds=1)
    assert {row["status"] for row in read("clients.csv")} == {"ok"}


def test_an_example_count_is_believed_as_far_as_a_client_can_hold(
    train, read, forge, caplog
):
    forge(lambda reply: reply.content["metrics"].update({"num-examples": 10**12}))
    train(rounds=1, federation={"local_epochs": 2})
    weights = [float(row["weight"]) for row in read("clients.csv")]
    assert weights == [0.25] * 4
    assert "client02 counts 1000000000000 examples; counted as 16" in caplog.text


def test_in_a_fraction_of_an_epoch_that_many_batches(train, read, forge):
    forge(lambda reply: reply.content["metrics"].update({"num-examples": 10**12}))
    train(rounds=1, federation={"local_epochs": 0.5})
    assert {row["examples"] for row in read("clients.csv")} == {"4"}


def test_a_limit_of_examples_counts_where_nobody_knows_better(train, read, forge):
    forge(lambda reply: reply.content["metrics"].update({"num-examples": 10**12}))
    train(rounds=1, federation={"max_examples": 24})
    weights = {row["client"]: float(row["weight"]) for row in read("clients.csv")}
    assert weights["client02"] == 0.5


def test_a_weighting_that_fails_leaves_out_whoever_it_failed_for(train, read, forge):
    forge(lambda reply: reply.content["metrics"].update(loss=1e6))
    weigh = lambda metrics: 1.0 / (metrics["loss"] < 1e5)  # noqa: E731
    train(rounds=1, federation={"weighting": weigh})
    assert_left_out(read, "division by zero")


def test_a_total_that_is_there_is_finite(train, read, forge):
    forge(lambda reply: reply.content["metrics"].update(hours=float("nan")))
    train(rounds=1, federation={"totals": ["hours"]})
    assert_left_out(read, "'hours' is nan")
