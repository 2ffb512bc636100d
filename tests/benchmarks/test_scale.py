"""The model of cost: what doubles when something doubles."""

import numpy as np
import pytest

from benchmarks import scale

MODEL = {"round": 1.0, "registered": 1e-6, "sampled": 0.01, "weight": 1e-9}
MODEL |= {"program_bytes": 1e8, "client_bytes": 100.0, "weight_bytes": 12.0}
MODEL |= {"step": 0.1, "message": 10**6, "parameters": 10**5}


def tables(*argv):
    return scale.extrapolate(scale.parse(list(argv)), MODEL)


def test_a_round_is_the_sum_of_its_terms():
    point = {"registered": 10**6, "clients": 100, "parameters": 10**6}
    times = {name: MODEL[name] for name in scale.TERMS}
    assert scale.predict(times, point) == pytest.approx(1 + 1 + 1 + 0.1)


def test_a_thousand_clients_are_the_most_that_are_sampled():
    simulation, _ = tables()
    assert [row["sampled"] for row in simulation] == [16, 16, 100, 1000, 1000]


def test_training_takes_its_share_of_the_workers():
    one, _ = tables("--workers", "1")
    many, _ = tables("--workers", "10")
    for first, second in zip(one, many, strict=True):
        server = first["of_them_federation"] * first["hours_one_core"]
        training = first["hours_one_core"] - server
        assert first["hours_1_workers"] == pytest.approx(first["hours_one_core"])
        assert second["hours_10_workers"] == pytest.approx(server + training / 10)


def test_twice_the_bandwidth_halves_the_transfer():
    (_, slow), (_, fast) = tables("--gigabits", "1"), tables("--gigabits", "2")
    for first, second in zip(slow, fast, strict=True):
        assert first["seconds_transfer"] == 2 * second["seconds_transfer"]
    # 16 clients x 1 MB x 8 bits at 1 Gbit/s
    assert slow[0]["seconds_transfer"] == pytest.approx(0.128)


def test_a_million_registered_clients_take_the_memory_of_their_names():
    simulation, _ = tables()
    assert simulation[-1]["memory_gb"] == pytest.approx(0.1 + 0.1 + 0.0012)


def test_a_message_goes_there_and_back():
    size = scale.message_bytes({"w": np.zeros(1000, np.float32)})
    assert 2 * 4000 < size < 2 * 4000 + 1000


def test_every_number_of_the_model_says_whether_it_was_measured():
    rows = scale.assumptions(scale.parse([]), MODEL)
    assert {row["from"] for row in rows} == {"measured", "assumed"}
    assert {row["what"] for row in rows} >= set(MODEL)
