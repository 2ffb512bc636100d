"""Updates in fewer bytes."""

from functools import partial

import numpy as np
import pytest
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp import strategy as flower

import fed
from fed.arrays import to_record
from fed.compression import FORMATS, decode, encode, layout
from fed.schema import Schema
from fedenhance.run_folder.states import load
from tests.fed import recipe

# A small network's: weights, biases, and a counter of BatchNorm.
START = {
    "conv.weight": np.zeros((64, 64, 3), "float32"),
    "conv.bias": np.zeros(64, "float32"),
    "norm.count": np.array(3),
    "none": np.zeros(0, "float32"),
    "scalar": np.zeros((), "float64"),
}


def trained(seed=0):
    """What training makes of it: each array moves by another amount."""
    random = np.random.default_rng(seed)
    arrays = {"norm.count": np.array(5), "none": START["none"]}
    for power, name in enumerate(["conv.weight", "conv.bias", "scalar"]):
        start = START[name]
        step = random.normal(0, 10.0**-power, start.shape)
        arrays[name] = np.asarray(step).astype(start.dtype)
    return {name: arrays[name] for name in START}


@pytest.mark.parametrize(("name", "share"), [("float16", 0.51), ("int8", 0.27)])
def test_bytes_and_error(name, share):
    arrays = trained()
    sent, lost = encode(arrays, START, name)
    whole, short = (to_record(a).count_bytes() for a in (arrays, sent))
    assert short <= share * whole
    back = decode(sent, START, name)
    assert list(back) == list(START)
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        assert back[key].shape == array.shape
        # Half a step of 127 each way, or half of float16's 11 bits.
        largest = np.abs(array).max(initial=0)
        assert np.abs(back[key] - array).max(initial=0) <= largest / 253
    assert (back["norm.count"] == 5) and np.abs(lost).max() > 0


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_lost_comes_with_the_next_update(name):
    wanted, got, residual = 0.0, 0.0, 0.0
    for seed in range(50):
        arrays = trained(seed)
        sent, residual = encode(arrays, START, name, residual)
        got = got + decode(sent, START, name)["conv.weight"].astype("float64")
        wanted = wanted + arrays["conv.weight"].astype("float64")
    # Of 50 errors one is left.
    assert np.abs(got - wanted).max() <= 1.01 * np.abs(residual).max() + 1e-4


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(name, value):
    arrays = trained()
    arrays["conv.bias"][3] = value
    sent, lost = encode(arrays, START, name)
    assert not np.isfinite(decode(sent, START, name)["conv.bias"]).all()
    assert not np.isfinite(lost).all()


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_that_are_no_update_are_refused(name):
    sent, _ = encode(trained(), START, name)
    schema = Schema(layout(START, name))
    schema.check_arrays(to_record(sent))
    for key, array in sent.items():
        others = {n: a for n, a in sent.items() if n != key}
        for wrong in (
            others,
            {**sent, key: array.astype("complex64")},
            {**sent, key: np.stack([array, array])},
            {**sent, "more": array},
        ):
            with pytest.raises(ValueError, match=f"{key}|more"):
                schema.check_arrays(to_record(wrong))


def test_an_unknown_format_is_named():
    with pytest.raises(ValueError, match="'int4' is none of"):
        fed.Federation(recipe.datasets, compress="int4")


def arrays_of(folder):
    return load(folder / "save" / "federation.pt")["arrays"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_trains_about_the_same_in_fewer_bytes(train, tmp_path, read, name):
    train(folder="whole")
    train(folder="short", federation={"compress": name})
    a, b = (arrays_of(tmp_path / folder) for folder in ("whole", "short"))
    for key in a:
        assert a[key].dtype == b[key].dtype
        assert np.abs(a[key] - b[key]).max() < 0.02, key
    whole, short = (read("rounds.csv", folder) for folder in ("whole", "short"))
    assert int(short[0]["bytes"]) < int(whole[0]["bytes"])
    assert int(whole[0]["bytes"]) == sum(
        int(row["bytes"]) for row in read("clients.csv", "whole") if row["round"] == "1"
    )


def test_a_resumed_run_is_the_same_to_the_bit(train, tmp_path):
    options = {"compress": "int8", "fraction": 0.5, "keep_optimizer": True}
    train(folder="whole", federation=options | {"rounds": 4})
    train(folder="parts", federation=options | {"rounds": 2})
    train(folder="parts", federation=options | {"rounds": 4})
    a, b = (arrays_of(tmp_path / folder) for folder in ("whole", "parts"))
    assert all((a[key] == b[key]).all() for key in a)


def test_clients_remember_what_was_lost(train, tmp_path, monkeypatch):
    train(folder="with", federation={"compress": "int8"})
    monkeypatch.setattr("fed.ledger.ClientStates.save", lambda *args: None)
    train(folder="without", federation={"compress": "int8"})
    a, b = (arrays_of(tmp_path / folder) for folder in ("with", "without"))
    assert any((a[key] != b[key]).any() for key in a)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": partial(flower.FedAdam, eta=0.01)},
        {"strategy": flower.FedMedian},
        {"local": ["model.1.*"]},
        {"mods": [LocalDpMod(1.0, sensitivity=0.01, epsilon=1.0, delta=1e-5)]},
    ],
)
def test_it_goes_with_everything(train, read, options):
    train(federation={"compress": "int8", "rounds": 2, **options})
    assert [row["failures"] for row in read("rounds.csv")] == ["0", "0"]
