"""The attacks send what they say, and one client alone does."""

import numpy as np
import pytest

from benchmarks import attacks
from benchmarks.attacks import ATTACKS, Attacked
from fed.arrays import to_arrays
from fedenhance.based_yaml import load_hparams
from tests.fed.conftest import train  # noqa: F401, a fixture


def test_backwards_is_backwards_and_noise_has_the_norm_it_says():
    step, draw = np.float32([3.0, 4.0]), np.random.default_rng(0)
    assert ATTACKS["ten times backwards"][0](step, draw).tolist() == [-30.0, -40.0]
    noise = ATTACKS["ten times noise"][0](step, draw)
    assert np.linalg.norm(noise) == pytest.approx(50.0)
    assert ATTACKS["ten times noise"][0](np.float32(0), draw) == 0


def test_the_last_client_lies_and_no_other(train, monkeypatch):  # noqa: F811
    honest, lying = {}, {}

    def grid(attack, found):
        def runtime(serve, num_sampled):
            made = Attacked(num_sampled, ATTACKS[attack])
            pull = made.pull_messages

            def noted(keys):
                (question,) = (made.pushed[key] for key in keys)
                (reply,) = pull(keys)
                sent = to_arrays(question.content["arrays"])["model.0.weight"]
                step = reply.content["arrays"]["model.0.weight"].numpy() - sent
                client = question.content["config"]["client"]
                found[client] = step, reply.content["metrics"]["num-examples"]
                yield reply

            made.pull_messages = noted
            serve(made)

        return runtime

    for attack, found in (("none", honest), ("backwards, 10^9 examples", lying)):
        train(
            attack.split(",")[0], federation={"runtime": grid(attack, found)}, rounds=1
        )
    for client in ("client00", "client01", "client02"):
        assert lying[client][0] == pytest.approx(honest[client][0])
        assert lying[client][1] == 8
    assert lying["client03"][0] == pytest.approx(-honest["client03"][0], abs=1e-6)
    assert lying["client03"][1] == 10**9


def test_the_small_network_is_the_default_one_in_other_sizes(tmp_path):
    hparams = load_hparams(attacks.small_network(tmp_path))
    assert {name: hparams[name] for name in attacks.SMALL} == attacks.SMALL
    assert hparams["num_sources"] == 3
