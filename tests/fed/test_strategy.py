"""The mean, and Flower's strategies around it."""

from functools import partial

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from fed.arrays import to_arrays, to_record
from fed.runtime import ProcessGrid
from fed.strategy import FedAvg, RunningMean, build


def replies(*pairs):
    """Replies of clients, from pairs of arrays and weights."""
    ProcessGrid(1)
    for arrays, weight in pairs:
        content = {
            "arrays": to_record(arrays),
            "metrics": MetricRecord({"weight": weight}),
        }
        yield Message(RecordDict(content), message_type="train", dst_node_id=1)


def scalar(value, dtype="float32"):
    return {"w": np.array([value], dtype=dtype)}


def aggregate(strategy, *pairs, start=0.0):
    strategy.participants = []
    strategy.configure_train(1, to_record(scalar(start)), {}, None)
    mean, _ = strategy.aggregate_train(1, replies(*pairs))
    return float(to_arrays(mean)["w"][0])


def test_mean_by_examples():
    assert aggregate(build(), (scalar(0), 1.0), (scalar(4), 3.0)) == 3


def test_mean_stays_between_extremes_whatever_the_weights():
    mean = RunningMean()
    for value, weight in [(1.0, 1e-300), (2.0, 1e300), (3.0, 1e-300)]:
        mean.add(scalar(value), weight)
    assert mean.arrays()["w"] == pytest.approx(2.0)


def test_mean_of_one_is_itself_to_the_bit():
    array = np.random.default_rng(0).normal(size=100).astype("float32")
    mean = RunningMean()
    mean.add({"w": array}, 0.3)
    assert np.array_equal(mean.arrays()["w"], array)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_dtype_is_kept(dtype):
    mean = RunningMean()
    mean.add(scalar(1, dtype), 1)
    mean.add(scalar(1, dtype), 2)
    assert mean.arrays()["w"].dtype == dtype
    assert mean.arrays()["w"] == 1


def test_integers_are_rounded():
    mean = RunningMean()
    mean.add(scalar(1, "int64"), 1)
    mean.add(scalar(3, "int64"), 3)
    assert mean.arrays()["w"] == 2  # 2.5, to even


def test_scalars_have_no_dimension_after_the_mean():
    mean = RunningMean()
    mean.add({"n": np.array(2, dtype="int64")}, 1)
    mean.add({"n": np.array(4, dtype="int64")}, 1)
    assert mean.arrays()["n"].shape == ()
    assert mean.arrays()["n"] == 3


def test_half_precision_is_averaged_in_single():
    # 2048 + 1 is 2048 in half precision: a sum would lose every second update.
    mean = RunningMean()
    for _ in range(4096):
        mean.add(scalar(1, "float16"), 1)
    assert mean.arrays()["w"] == 1


def test_momentum_of_fedavgm():
    # Updates are +1 and then +1: momentum 0.5 gives steps of 1 and 1.5.
    chosen = partial(flower.FedAvgM, server_learning_rate=1.0, server_momentum=0.5)
    strategy = build(chosen)
    assert aggregate(strategy, (scalar(1), 1.0), start=0) == 1
    assert aggregate(strategy, (scalar(2), 1.0), start=1) == 2.5


def test_server_optimizers_use_the_weighted_mean():
    # The mean of the updates is 3, whose sign is all that Adagrad's first step has.
    strategy = build(partial(flower.FedAdagrad, eta=0.1, tau=1e-9))
    moved = aggregate(strategy, (scalar(0), 1.0), (scalar(4), 3.0))
    assert moved == pytest.approx(0.1, rel=1e-3)


def test_median_ignores_one_outlier():
    pairs = [(scalar(v), 1.0) for v in (1, 2, 1000)]
    assert aggregate(build(flower.FedMedian), *pairs) == 2


def test_trimmed_mean_ignores_both_ends():
    pairs = [(scalar(v), 1.0) for v in (-1000, 1, 2, 3, 1000)]
    assert aggregate(build(partial(flower.FedTrimmedAvg, beta=0.2)), *pairs) == 2


def test_krum_selects_from_the_crowd():
    pairs = [(scalar(v), 1.0) for v in (0.9, 1.0, 1.1, 50)]
    krum = build(partial(flower.Krum, num_malicious_nodes=1))
    assert aggregate(krum, *pairs) == pytest.approx(1.0, abs=0.11)


def test_a_strategy_must_be_a_fedavg():
    with pytest.raises(ValueError, match="subclass"):
        build(dict)


def test_own_subclass_is_taken_as_it_is():
    class Halving(FedAvg):
        def aggregate_train(self, server_round, replies):
            mean, metrics = super().aggregate_train(server_round, replies)
            halves = {k: v / 2 for k, v in to_arrays(mean).items()}
            return to_record(halves), metrics

    assert aggregate(build(Halving), (scalar(4), 1.0)) == 2


class Two(flower.FedAvg):
    """Asks the first two of those that it is given."""

    def configure_train(self, *args):
        return list(super().configure_train(*args))[:2]


def test_a_strategy_may_ask_fewer(train, read):
    train(federation={"strategy": Two}, rounds=1)
    good = [row["client"] for row in read("clients.csv") if row["status"] == "ok"]
    assert good == ["client00", "client01"]
