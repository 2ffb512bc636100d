"""No client has more force than most have."""

import numpy as np
import pytest
from flwr.app import RecordDict

from fed.arrays import pack, to_arrays, to_record, view
from fed.guard import HELD, Guard, groups_of, norm
from fed.runtime import ProcessGrid
from fed.strategy import Mixture

SENT = {"w": np.zeros(2, "float32"), "b": np.ones(1, "float32"), "n": np.array(5)}
GROUPS = groups_of(SENT, {"w"})


class Reply:
    """What is left of a reply."""

    def __init__(self, length, buffer=0.0, count=0):
        arrays = {"w": np.float32([length, 0]), "b": np.float32([1 + buffer])}
        arrays["n"] = np.array(5 + count)
        self.content = RecordDict({"arrays": to_record(arrays)})
        self.row = {"client": str(length), "clip": 1.0}
        self.row |= {key: norm(arrays, names, SENT) for key, names in GROUPS.items()}


def guarded(*replies, multiple=3.0, past=()):
    """Pass replies through a guard; return the length of each update, as they come."""
    guard = Guard(multiple, SENT, GROUPS, list(past))
    pairs = [(reply, reply.row) for reply in replies]
    return [float(view(r.content["arrays"])["w"][0]) for r, _ in guard(pairs)]


def test_each_kind_of_array_has_a_norm_of_its_own():
    assert GROUPS == {"update_norm": ["w"], "buffers_norm": ["b"], "counts_norm": ["n"]}
    row = Reply(3.0, 0.5, 2).row
    assert [row[key] for key in GROUPS] == [3.0, 0.5, 2.0]


def test_the_norm_of_tiny_and_of_half_precision_updates():
    tiny = {"w": np.float32([1e-30])}
    assert norm(tiny, ["w"]) == pytest.approx(1e-30)
    large = {"w": np.full(100, 1000, "float16")}
    assert norm(large, ["w"]) == pytest.approx(1e4)


def test_a_long_update_is_scaled_to_a_multiple_of_the_median():
    assert guarded(*map(Reply, (1.0, 1.0, 1.0, -10.0))) == [1.0, 1.0, 1.0, -3.0]


def test_what_is_within_bounds_keeps_its_bytes():
    reply = Reply(2.9999)
    before = {name: a.data for name, a in reply.content["arrays"].items()}
    guarded(Reply(1.0), Reply(1.0), reply)
    assert {n: a.data for n, a in reply.content["arrays"].items()} == before
    assert reply.row["clip"] == 1.0


def test_of_two_the_shorter_sets_the_bound():
    assert guarded(Reply(10.0), Reply(1.0)) == [3.0, 1.0]


def test_one_alone_is_compared_with_past_rounds():
    past = [{key: 1.0 for key in GROUPS}] * 3
    assert guarded(Reply(10.0), past=past) == [3.0]
    assert guarded(Reply(10.0)) == [10.0]


def test_updates_that_grow_together_are_not_held_back_by_the_past():
    past = [{key: 0.1 for key in GROUPS}]
    assert guarded(*map(Reply, (1.0, 1.25, 1.5)), past=past) == [1.0, 1.25, 1.5]


def test_buffers_and_counts_do_not_hide_behind_weights():
    guard = Guard(3.0, SENT, GROUPS)
    honest = [Reply(1.0, 0.1, 2) for _ in range(3)]
    odd = Reply(1.0, -5.0, 10**6)
    pairs = [(reply, reply.row) for reply in (*honest, odd)]
    (*_, (reply, row)) = guard(pairs)
    arrays = to_arrays(reply.content["arrays"])
    assert arrays["w"].tolist() == [1.0, 0.0]
    assert arrays["b"] == pytest.approx(0.7)
    assert arrays["n"] == 11
    assert row["clip"] == pytest.approx(6e-6)


def test_memory_is_that_of_few_replies():
    made = []

    def replies():
        for i in range(100):
            made.append(i)
            reply = Reply(10.0 if i % 3 else 1.0)
            yield reply, reply.row

    for multiple, past in ((3.0, []), (3.0, [{k: 1.0 for k in GROUPS}]), (None, [])):
        made.clear()
        most = seen = 0
        for _ in Guard(multiple, SENT, GROUPS, past)(replies()):
            seen += 1
            most = max(most, len(made) - seen)
        assert seen == 100
        assert most <= HELD + 1


def test_of_large_models_one_reply_waits(monkeypatch):
    monkeypatch.setattr("fed.guard.BYTES", 20)  # a model has 20
    made = []
    replies = ((reply, reply.row) for reply in map(Reply, (100.0, 1.0, 1.0)))
    guard = Guard(3.0, SENT, GROUPS)(made.append(r) or r for r in replies)
    lengths = [float(view(next(guard)[0].content["arrays"])["w"][0])]
    assert len(made) == 2
    lengths += [float(view(r.content["arrays"])["w"][0]) for r, _ in guard]
    assert lengths == [1.0, 1.0, 3.0]


def test_with_past_rounds_honest_replies_do_not_wait():
    past = [{key: 1.0 for key in GROUPS}]
    waited = []

    def replies():
        for length in (1.0, 1.1, 0.9):
            waited.append(length)
            reply = Reply(length)
            yield reply, reply.row

    for _ in Guard(3.0, SENT, GROUPS, past)(replies()):
        assert len(waited) == 1
        waited.clear()


def test_the_first_few_of_a_round_do_not_vouch_for_each_other():
    past = [{key: 1.0 for key in GROUPS}]
    lengths = [9.0, 9.0, *[1.0] * 6]
    assert sorted(guarded(*map(Reply, lengths), past=past)) == [*[1.0] * 6, 3.0, 3.0]
    assert sorted(guarded(*map(Reply, lengths))) == [*[1.0] * 6, 3.0, 3.0]


def test_no_guard_passes_all():
    assert guarded(Reply(1.0), Reply(1.0), Reply(99.0), multiple=None)[-1] == 99.0


def test_numbers_beside_the_model_stay_near_the_median():
    mixture = Mixture(3.0)
    for rate in (0.1, 0.1, 0.1, 1e9):
        mixture.add({"optimizers.a": np.float64([rate])}, 1.0)
    assert mixture.arrays()["optimizers.a"] == pytest.approx(0.1)


def test_what_few_clients_count_is_dropped():
    mixture = Mixture(3.0)
    for i in range(5):
        found = {"x": np.float64(i)} | ({"y": np.float64(0)} if i < 2 else {})
        mixture.add(found, 1.0)
    assert mixture.arrays().keys() == {"x"}


def test_numbers_near_the_median_are_averaged_to_the_bit():
    arrays = [np.float64([x]) for x in (0.1, 0.2, 0.3, 0.35)]
    means = []
    for multiple in (None, 3.0):
        mixture = Mixture(multiple)
        for array in arrays:
            mixture.add({"x": array}, 0.3)
        means.append(mixture.arrays()["x"])
    assert (means[0] == means[1]).all()


@pytest.mark.parametrize("multiple", [3.0, None])
def test_a_client_that_pulls_backwards_is_scaled_down_and_named(
    train,
    read,
    caplog,
    monkeypatch,
    multiple,
):
    honest = ProcessGrid.pull_messages

    def pull(grid, keys):
        (question,) = (grid.pushed[key] for key in keys)
        (reply,) = honest(grid, keys)
        if question.content["config"]["client"] == "client02":
            record = reply.content["arrays"]
            for name, sent in to_arrays(question.content["arrays"]).items():
                if sent.dtype.kind == "f":
                    back = sent - 10 * (record[name].numpy() - sent)
                    record[name] = pack(back.astype(sent.dtype))
        yield reply

    monkeypatch.setattr(ProcessGrid, "pull_messages", pull)
    train(rounds=8, n_clients=8, federation={"clip_updates": multiple})
    losses = [float(row["valid_loss"]) for row in read("rounds.csv")]
    clips = {row["client"]: float(row["clip"]) for row in read("clients.csv")}
    if multiple:
        assert losses[-1] < losses[0]
        assert clips.pop("client02") < 0.5
        assert {row["clipped"] for row in read("rounds.csv")} == {"1"}
        assert "Client client02 scaled down" in caplog.text
    else:
        assert losses[-1] > losses[0]
    assert set(clips.values()) == {1.0}
