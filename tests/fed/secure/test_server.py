"""Secure aggregation: sums are right, and single updates are nowhere."""

from copy import deepcopy
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import strategy as flower

import fed
from fed.arrays import to_arrays, to_record
from fed.guard import NORMS
from fed.replies import accept
from fed.runtime import ProcessGrid
from fed.secure import masking, members
from fed.secure.server import SecureAggregation, threshold_of
from fed.strategy import Mixture, build
from fedenhance.run_folder.states import load
from tests.fed import recipe

START = {"w": np.ones(5, "float32"), "b": np.zeros((), "float32")}


def updated(node):
    """What the client on a node trains."""
    random = np.random.default_rng(node)
    return {n: np.float32(a + random.normal(size=a.shape)) for n, a in START.items()}


class Clients:
    """A grid of clients that train nothing, and a record of what they send.

    Arguments
    ---------
    count : int
    gone : dict of str
        From node to the message that it no longer answers: keys, shares, train, seeds.
    """

    def __init__(self, count, gone=(), weighting=fed.weighting.by_examples):
        ProcessGrid(1)
        self.federation = fed.Federation(None, weighting=weighting, secure=True)
        self.site = SimpleNamespace(federation=self.federation, trained=frozenset())
        self.gone = dict(gone)
        self.states = {node: RecordDict() for node in range(1, count + 1)}
        self.received = {"keys": {}, "shares": {}, "train": {}, "seeds": {}}
        self.strategy = SecureAggregation(build(), self.federation)
        self.strategy.strategy.participants = [(str(n), n, n) for n in self.states]

    def train(self, message, context):
        node = message.metadata.dst_node_id
        metrics = {"num-examples": node, "loss": 0.5 * node, "seconds": 1.0}
        content = {"arrays": to_record(updated(node)), "metrics": MetricRecord(metrics)}
        content["config"] = ConfigRecord({"client": str(node)})
        return Message(RecordDict(content), reply_to=message)

    def push_messages(self, messages):
        return messages

    def pull_messages(self, messages):
        for message in messages:
            node = message.metadata.dst_node_id
            kind = message.metadata.message_type.rpartition(".")[2]
            context = Context(1, node, {}, self.states[node], {})
            if kind == self.gone.get(node):
                self.gone[node] = kind = "gone"
            if kind == "gone" or self.gone.get(node) == "gone":
                reply = Message(Error(0, "gone"), reply_to=message)
            elif kind == "train":
                handler = partial(members.mask, self.site)
                reply = handler(message, context, self.train)
            else:
                reply = members.HANDLERS[kind](message, context)
            if not reply.has_error():
                self.received[kind][node] = deepcopy(reply.content)
            yield reply

    def round(self):
        """One round; return the mean and what is known of all clients together."""
        messages = self.strategy.configure_train(
            1, to_record(START), ConfigRecord(), self
        )
        participants = [(None, None, None) for _ in messages]
        accepted = accept(
            self.pull_messages(messages), participants, [], self.strategy, Mixture()
        )
        good = (reply for reply, _ in accepted)
        arrays, metrics = self.strategy.aggregate_train(1, good)
        return (arrays and to_arrays(arrays)), metrics


@pytest.mark.parametrize(
    "count", [2, 3, 4, 7, 16, pytest.param(64, marks=pytest.mark.slow)]
)
def test_sums_are_exact_whoever_drops_out_after_the_keys(count):
    lost = count - threshold_of(count)
    stages = ["shares", "train"]
    gone = {3 * i + 1: stages[i % 2] for i in range(lost)}
    clients = Clients(count, gone)
    mean, metrics = clients.round()
    left = [node for node in range(1, count + 1) if node not in gone]
    assert len(left) == count - count // 3
    # The numbers of the sum, without masks: integers, hence to the last bit.
    values = [
        np.concatenate(
            [*((updated(n)[k] - START[k]).ravel() * np.float64(n) for k in START)]
        )
        for n in left
    ]
    exact = sum(masking.encode(v, count) for v in values)
    total = np.concatenate([(mean[k] - START[k]).ravel() for k in START])
    assert total == pytest.approx(masking.decode(exact, count) / sum(left), abs=1e-6)
    assert metrics["examples"] == sum(left)
    assert metrics["train_loss"] == pytest.approx(
        sum(0.5 * n * n for n in left) / sum(left), abs=1e-9
    )


@pytest.mark.parametrize("weighting", ["uniform", "by_examples"])
def test_weights_are_in_the_sum(weighting):
    weighting = getattr(fed.weighting, weighting)
    mean, _ = Clients(3, weighting=weighting).round()
    weights = [weighting({"num-examples": n}) for n in (1, 2, 3)]
    expected = np.average([updated(n)["w"] for n in (1, 2, 3)], axis=0, weights=weights)
    assert mean["w"] == pytest.approx(expected, abs=1e-6)


def test_a_key_that_two_clients_send_leaves_these_out_alone(monkeypatch):
    send, sent = members.HANDLERS["keys"], []

    def copying(message, context):
        reply = send(message, context)
        if message.metadata.dst_node_id in (2, 3):
            sent.append(reply.content[members.NAME]["key"])
            reply.content[members.NAME]["key"] = sent[0]
        return reply

    monkeypatch.setitem(members.HANDLERS, "keys", copying)
    clients = Clients(5)
    mean, metrics = clients.round()
    assert metrics["examples"] == 1 + 4 + 5
    assert clients.strategy.lost.keys() == {2, 3}


def test_a_server_cannot_give_a_client_its_seeds(monkeypatch):
    exchange = SecureAggregation.ask

    def ask(self, action, contents):
        chosen = {"own": bytes(16), "key": bytes(16), "cipher": bytes(16)}
        more = chosen if action == "shares" else {}
        return exchange(self, action, {p: {**c, **more} for p, c in contents.items()})

    monkeypatch.setattr(SecureAggregation, "ask", ask)
    clients, kept = Clients(3, {3: "train"}), []
    own_mask = masking.own_mask
    monkeypatch.setattr(
        masking, "own_mask", lambda seed, n: kept.append(seed) or own_mask(seed, n)
    )
    clients.round()
    assert kept and bytes(16) not in kept


def test_the_members_of_a_sum_are_those_who_have_keys():
    clients = Clients(3)
    context = Context(1, 1, {}, RecordDict(), {})
    keys = ConfigRecord({"place": 0, "keys": [b"a", b"b", b"c"], "threshold": 2})
    context.state[members.NAME] = ConfigRecord({"session": b"s", **keys})
    asked = ConfigRecord({"session": b"s", "members": [0, -3], "shares": [b"", b""]})
    message = Message(RecordDict({members.NAME: asked}), 1, "train")
    with pytest.raises(ValueError, match="would not hide this one"):
        members.mask(clients.site, message, context, clients.train)


def test_with_more_dropouts_nothing_is_unmasked():
    clients = Clients(6, {1: "train", 2: "train", 3: "train"})
    assert clients.round() == (None, None)
    assert not clients.received["seeds"]
    late = Clients(6, {node: "seeds" for node in (1, 2, 3)})
    assert late.round() == (None, None)


def test_one_client_alone_is_not_asked():
    clients = Clients(2, {1: "keys"})
    assert clients.round() == (None, None)
    assert clients.strategy.lost == {1: "gone"}
    assert not clients.received["train"]


# ----------------------------------------------------------------- what the server sees


@pytest.fixture(scope="module")
def seen():
    """What the server received of six clients, of which one has vanished."""
    clients = Clients(6, {4: "train"})
    mean, _ = clients.round()
    assert mean
    return clients


def test_nothing_but_keys_ciphertexts_masked_vectors_and_shares_is_sent(seen):
    shapes = {}
    for kind, contents in seen.received.items():
        for content in contents.values():
            for name, record in content.items():
                keys = {k: type(v).__name__ for k, v in record.items()}
                shapes.setdefault(kind, {})[name, type(record)] = keys
    own = "secure", ConfigRecord
    assert shapes["keys"] == {own: {"key": "bytes", "cipher": "bytes"}}
    assert shapes["shares"] == shapes["seeds"] == {own: {"shares": "list"}}
    assert shapes["train"] == {
        ("arrays", ArrayRecord): {"masked": "Array"},
        ("metrics", MetricRecord): {},
        ("config", ConfigRecord): {"client": "str"},
        own: {"metrics": "list"},
    }


def recovered(seen):
    """Own masks' and keys' seeds that follow from all shares, by place."""
    strategy, found = seen.strategy, ({}, {})
    for i, member in enumerate(strategy.members):
        shares = {
            place: seen.received["seeds"][node]["secure"]["shares"][i]
            for place, node in strategy.nodes.items()
            if node in seen.received["seeds"]
        }
        seed = masking.recover(shares, strategy.threshold)
        found[member not in survivors(seen)][member] = seed
    return found


def survivors(seen):
    nodes = seen.strategy.nodes
    return [p for p, node in nodes.items() if node in seen.received["train"]]


def test_of_each_client_one_seed_can_be_made_and_never_both(seen):
    own, keys = recovered(seen)
    assert sorted(own) == survivors(seen)
    assert sorted(keys) == [3]  # node 4
    for place, seed in own.items():
        # It is the seed of the own mask, and not that of the keys.
        assert masking.public_key(seed) != seen.strategy.keys[place]
    assert masking.public_key(keys[3]) == seen.strategy.keys[3]


def test_no_sum_of_fewer_than_all_can_be_formed(seen):
    # For each set of survivors: the sum of what they sent, less all masks that the
    # server can compute, is their sum only if they are all.
    strategy = seen.strategy
    own, keys = recovered(seen)
    places, sent, bare = survivors(seen), {}, {}
    for place in places:
        node = strategy.nodes[place]
        vector = to_arrays(seen.received["train"][node]["arrays"])["masked"]
        roster = dict(enumerate(strategy.keys))
        one = {place: own[place]}
        sent[place] = masking.unmask(vector, one, keys, roster, strategy.session)
        row = Clients(1).train(
            Message(RecordDict(), message_type="train", dst_node_id=node), None
        )
        values, _ = members.summands(seen.site, START, row)
        bare[place] = masking.encode(values, len(strategy.keys))
    for size in range(1, len(places) + 1):
        for some in combinations(places, size):
            equal = sum(sent[p] for p in some) == sum(bare[p] for p in some)
            if size == len(places):
                assert equal.all()
            else:
                assert not equal.any()


def test_masked_vectors_look_random():
    seeds = [masking.new_seed() for _ in range(6)]
    keys = {place: masking.public_key(seeds[place]) for place in range(3)}
    zeros = np.zeros(20_000, "uint64")
    for place in keys:
        own = seeds[3 + place], seeds[place]
        vector = masking.mask(zeros, *own, place, keys, b"session")
        bits = np.unpackbits(vector.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))


# -------------------------------------------------------------- what clients refuse


def ask(clients, node, kind, content):
    """Ask one client something; return what it says, or raise what it raises."""
    strategy = clients.strategy
    record = ConfigRecord({"session": strategy.session, **content})
    message = Message(
        RecordDict({"secure": record}),
        message_type=f"query.{kind}",
        dst_node_id=node,
    )
    context = Context(1, node, {}, clients.states[node], {})
    return members.HANDLERS[kind](message, context)


def test_clients_answer_once_and_only_for_enough_survivors():
    clients = Clients(3, {node: "seeds" for node in (1, 2, 3)})
    clients.round()
    with pytest.raises(ValueError, match="not at this point"):
        ask(clients, 1, "shares", {"place": 0, "keys": [], "ciphers": []})
    with pytest.raises(ValueError, match="a sum of 1 clients is not unmasked"):
        ask(clients, 1, "seeds", {"survivors": [0]})
    with pytest.raises(ValueError, match="not at this point"):
        ask(clients, 1, "seeds", {"survivors": [0, 1, 2]})
    ask(clients, 2, "seeds", {"survivors": [0, 1, 2]})
    with pytest.raises(ValueError, match="not at this point"):
        ask(clients, 2, "seeds", {"survivors": [0, 1]})


def test_clients_refuse_rosters_that_would_not_hide_them():
    clients = Clients(4, {node: "shares" for node in (1, 2, 3, 4)})
    clients.round()
    keys, ciphers = clients.strategy.keys, [bytes(32)] * 4
    roster = {"place": 0, "keys": keys, "ciphers": ciphers}
    for wrong in (
        {"threshold": 2},
        {"threshold": 5},
        {"threshold": 3, "place": 1},
        {"threshold": 3, "keys": [keys[0], keys[1], keys[1], keys[2]]},
        {"threshold": 1, "keys": keys[:1]},
    ):
        with pytest.raises(ValueError, match="threshold|different clients"):
            ask(clients, 1, "shares", {**roster, **wrong})


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("keys", {"key": bytes(32), "cipher": bytes(32)}),
        ("keys", {"key": 3}),
        ("keys", {}),
        ("shares", {"shares": [b"short"] * 4}),
        ("shares", {"shares": 1.5}),
        ("seeds", {"shares": [b"x"] * 4}),
    ],
)
def test_a_client_that_sends_nonsense_is_named_and_the_others_go_on(
    monkeypatch, kind, content
):
    own = members.HANDLERS[kind]

    def handler(message, context):
        if message.metadata.dst_node_id == 2:
            return members.reply_to(message, content)
        return own(message, context)

    monkeypatch.setitem(members.HANDLERS, kind, handler)
    clients = Clients(4)
    mean, metrics = clients.round()
    assert "that are none" in clients.strategy.lost[2]
    # Who lies about seeds has sent its update.
    assert metrics["examples"] == (10 if kind == "seeds" else 8)
    assert np.isfinite(mean["w"]).all()


# ------------------------------------------------------------------------ whole runs


def arrays_of(folder):
    return load(folder / "save" / "federation.pt")["arrays"]


def test_a_run_trains_the_same_but_for_rounding(train, tmp_path, read):
    train(folder="open")
    train(folder="secure", federation={"secure": True})
    a, b = (arrays_of(tmp_path / folder) for folder in ("open", "secure"))
    for name in a:
        if a[name].dtype.kind == "f":
            assert a[name] == pytest.approx(b[name], abs=1e-5)
    rows, other = (read("rounds.csv", folder) for folder in ("open", "secure"))
    # What is measured of single updates is not there; all else is.
    assert rows[0].keys() - other[0].keys() == {"clipped", *NORMS}
    assert rows[0]["examples"] == other[0]["examples"]
    assert float(rows[0]["train_loss"]) == pytest.approx(float(other[0]["train_loss"]))
    assert set(read("clients.csv", "secure")[0]) == {
        "round",
        "client",
        "status",
        "bytes",
    }


def test_a_resumed_run_is_the_same_to_the_bit(train, tmp_path):
    options = {"secure": True, "strategy": partial(flower.FedAvgM, server_momentum=0.9)}
    train(folder="whole", federation=options | {"rounds": 4})
    train(folder="parts", federation=options | {"rounds": 2})
    train(folder="parts", federation=options | {"rounds": 4})
    a, b = (arrays_of(tmp_path / folder) for folder in ("whole", "parts"))
    assert all((a[key] == b[key]).all() for key in a)


def fail(kind, message, context, call_next):
    """A mod that makes one client fail while it trains."""
    reply = call_next(message, context)
    if message.content["config"]["client"] == "client02":
        if kind == "exception":
            raise RuntimeError("out of luck")
        arrays = to_arrays(reply.content["arrays"])
        arrays["model.0.bias"][0] = np.nan if kind == "not finite" else 1e6
        reply.content["arrays"] = to_record(arrays)
    return reply


@pytest.mark.parametrize(
    ("kind", "status"),
    [("exception", "luck"), ("not finite", "not finite"), ("large", "exceeds")],
)
def test_a_client_that_fails_is_named_and_the_others_are_averaged(
    train, tmp_path, read, kind, status
):
    mods = {"mods": [partial(fail, kind)]}
    train(folder="secure", federation={"secure": True, **mods})
    train(folder="open", federation=mods)
    a, b = (arrays_of(tmp_path / folder) for folder in ("open", "secure"))
    for name in a:
        assert a[name] == pytest.approx(b[name], abs=1e-5)
    found = {r["client"]: r["status"] for r in read("clients.csv", "secure")}
    assert status in found.pop("client02")
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weighting": fed.weighting.by_loss}, "weights"),
        ({"strategy": partial(flower.FedTrimmedAvg, beta=0.1)}, "compare"),
        ({"strategy": flower.Krum}, "compare"),
        ({"compress": "int8"}, "compress"),
        ({"privacy": fed.privacy.central}, "privacy"),
    ],
)
def test_what_needs_single_updates_is_refused(options, what):
    with pytest.raises(ValueError, match=f"excludes .*{what}"):
        fed.Federation(recipe.datasets, secure=True, **options)
