"""Differential privacy: what noise, what is spent, and what is not told."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp import strategy as flower

import fed
from fed.arrays import to_arrays
from fed.privacy import Clipping, central, epsilon_of, noise_for
from fed.runtime import ProcessGrid
from fed.strategy import as_reply, build
from fedenhance.run_folder.states import load
from tests.fed import recipe

pytest.importorskip("dp_accounting")

PRIVATE = {
    "weighting": fed.weighting.uniform,
    "privacy": partial(fed.privacy.central, noise_multiplier=2.0, clipping_norm=0.1),
}
START = {"w": np.zeros(3, "float32"), "b": np.zeros(2, "float64")}


def mechanism(**options):
    """What the server does of 20 clients that are expected, of 100."""
    ProcessGrid(1)
    options = {"population": 100, "sampled": 20, "rounds": 1, **options}
    made = central(build(), **options)
    made.start, made.asked = START, [None]
    made.strategy.participants = []
    return made


def update(*values):
    """A client's reply, in another order than was asked for."""
    ProcessGrid(1)
    w, b = np.float32(values[:3]), np.float64(values[3:])
    return as_reply({"b": b, "w": w})


def released(made, *replies):
    arrays = to_arrays(made.aggregate_train(1, replies)[0])
    return np.concatenate([arrays["w"], arrays["b"]])


# ------------------------------------------------------------------------ mechanism


def test_one_client_changes_the_sum_by_the_clipping_norm_at_most():
    quiet = {"noise_multiplier": 1e-9, "clipping_norm": 0.5}
    others = [update(0.1, 0.1, 0, 0, 0), update(0, 0, 0, 0, 3.0)]
    for one in (
        update(1e6, -1e6, 0, 0, 1e6),
        update(0, 0, 0.5, 0, 0),
        update(*5 * [0]),
    ):
        without = released(mechanism(**quiet), *others)
        change = released(mechanism(**quiet), *others, one) - without
        # The sum is divided by the 20 that are expected, whoever comes.
        assert np.linalg.norm(20 * change) <= 0.5 * (1 + 1e-6)


def test_an_update_that_is_short_enough_stays_as_it_is():
    made = mechanism(noise_multiplier=1e-9, clipping_norm=1.0)
    got = released(made, update(0.1, 0, 0.2, 0, -0.3), update(*5 * [0]))
    assert 20 * got == pytest.approx([0.1, 0, 0.2, 0, -0.3], abs=1e-6)


def test_noise_on_the_sum_is_its_multiplier_times_the_clipping_norm():
    made = mechanism(noise_multiplier=3.0, clipping_norm=0.5)
    made.start = {"w": np.zeros(100_000)}
    noise = 20 * to_arrays(made.aggregate_train(1, [as_reply(made.start)])[0])["w"]
    assert noise.std() == pytest.approx(1.5, rel=0.02)
    assert abs(noise.mean()) < 0.05


def test_nobody_drawn_is_a_round_of_noise():
    made = mechanism(noise_multiplier=1.0)
    made.asked = []
    assert np.abs(released(made)).min() > 0
    assert made.accountant.num_releases == 1


def test_nobody_who_answers_is_no_round():
    made = mechanism()
    assert made.aggregate_train(1, []) == (None, None)
    assert made.accountant.num_releases == 0


def test_noise_follows_from_no_seed():
    values = set()
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        values.add(released(mechanism(), update(*5 * [0]))[0])
    assert len(values) == 2


# --------------------------------------------------------------------------- clipping


def test_the_clipping_norm_follows_the_quantile():
    generator = np.random.default_rng(0)
    norms = np.sort(generator.uniform(0, 2, size=1000))
    clipping = Clipping(0.1, quantile=0.25)
    clipping.noise_multiplier(1.0, sampled=1000)
    norm = 0.1
    for _ in range(100):
        count = np.where(norms <= norm, 0.5, -0.5).sum()
        norm = clipping.adapt(norm, count, 1000, generator)
    assert norm == pytest.approx(0.5, abs=0.15)


def test_updates_and_count_together_are_what_is_accounted_for():
    # Both have sensitivity and noise; the sum of squared ratios is that of the whole.
    clipping = Clipping(1.0, quantile=0.5, count_stddev=2.0)
    updates = clipping.noise_multiplier(1.5, sampled=20)
    assert updates**-2 + (0.5 / 2.0) ** 2 == pytest.approx(1.5**-2)
    assert updates > 1.5


def test_too_little_noise_on_the_count_is_refused():
    with pytest.raises(ValueError, match="count_stddev 0.2"):
        mechanism(quantile=0.5, sampled=4)


def test_updates_that_are_clipped_lower_the_count():
    made = mechanism(quantile=0.5, clipping_norm=1.0, count_stddev=1e3)
    made.clipping.count_stddev = 1e-9
    released(made, *20 * [update(0.1, 0, 0, 0, 0)])
    assert made.clipping_norm == pytest.approx(math.exp(-0.2 * 0.5))
    released(made, *20 * [update(9, 0, 0, 0, 0)])
    assert made.clipping_norm == pytest.approx(1.0)


# ------------------------------------------------------------------------- accounting


def test_sampling_is_given_credit():
    all_of_them = epsilon_of(1.0, delta=1e-5, q=1.0, rounds=100)
    few = epsilon_of(1.0, delta=1e-5, q=0.01, rounds=100)
    assert few < 1.5 < 50 < all_of_them
    made = mechanism(noise_multiplier=1.0)
    for _ in range(3):
        released(made, update(*5 * [0]))
    expected = epsilon_of(1.0, delta=1e-5, q=0.2, rounds=3)
    assert made.privacy_spent().epsilon == pytest.approx(expected)


def test_one_round_of_all_is_the_gaussian_mechanism():
    # Balle and Wang (2018), theorem 8: its exact delta, at the epsilon that is found.
    noise, delta = 2.0, 1e-5
    epsilon = epsilon_of(noise, delta, q=1.0, rounds=1)
    cdf = torch.distributions.Normal(0.0, 1.0).cdf
    a, b = (torch.tensor(s * 0.5 / noise - epsilon * noise) for s in (1, -1))
    exact = float(cdf(a) - math.exp(epsilon) * cdf(b))
    assert exact <= delta  # Renyi accounting is an upper bound,
    assert exact > delta / 100  # and not a loose one.


def test_noise_is_found_for_a_budget_and_spends_no_more():
    noise = noise_for(8.0, delta=1e-5, q=0.05, rounds=100)
    spent = epsilon_of(noise, delta=1e-5, q=0.05, rounds=100)
    assert 7.9 < spent <= 8.0
    assert mechanism(max_epsilon=8.0).event.noise_multiplier == pytest.approx(
        noise_for(8.0, delta=1e-5, q=0.2, rounds=1)
    )


# ------------------------------------------------------------------------- whole runs


def test_epsilon_is_reported_and_nothing_that_is_not_blurred(train, read):
    train(federation=PRIVATE | {"fraction": 0.5})
    rows = read("rounds.csv")
    epsilons = [float(row["epsilon"]) for row in rows]
    assert 0 < epsilons[0] < epsilons[1] < epsilons[2]
    known = {"round", "seconds", "epsilon", "valid_loss", "valid_rmse", "test_loss"}
    assert set(rows[0]) == known
    assert read("clients.csv") == []


def test_failures_are_named(train, read):
    def mod(message, context, call_next):
        if message.content["config"]["client"] == "client02":
            raise RuntimeError("out of luck")
        return call_next(message, context)

    train(federation=PRIVATE | {"mods": [mod], "rounds": 1})
    (row,) = read("clients.csv")
    assert (row["client"], row["status"]) == ("client02", "RuntimeError: out of luck")
    assert set(row) == {"round", "client", "status"}


def test_accounting_and_clipping_resume(train, tmp_path, read):
    adaptive = partial(PRIVATE["privacy"], quantile=0.5, count_stddev=5.0)
    private = PRIVATE | {"privacy": adaptive}
    train(federation=private | {"rounds": 4}, folder="whole")
    train(federation=private | {"rounds": 2}, folder="parts")
    kept = load(tmp_path / "parts" / "save" / "federation.pt")["strategy"]
    assert kept[0]["clipping_norm"] not in (0.1, 1.0)
    train(federation=private | {"rounds": 4}, folder="parts")
    whole, parts = (read("rounds.csv", name) for name in ("whole", "parts"))
    assert whole[-1]["epsilon"] == parts[-1]["epsilon"]


def test_clients_are_drawn_by_chances_of_their_own(train, monkeypatch):
    sizes, asked = [], []

    def mod(message, context, call_next):
        asked.append(message.content["config"]["client"])
        return call_next(message, context)

    for _ in range(2):
        asked.clear()
        train(
            folder=f"out{len(sizes)}",
            federation=PRIVATE | {"fraction": 0.5, "rounds": 10, "mods": [mod]},
        )
        sizes.append([*asked])
    assert 8 < len(sizes[0]) < 32  # of 40: 20 are expected, deviation 3.2
    assert sizes[0] != sizes[1]  # which the seed would make the same


def test_the_budget_ends_the_run(train):
    spending = partial(PRIVATE["privacy"], max_epsilon=1e-3)
    with pytest.raises(Exception, match="exceed max_epsilon"):
        train(federation=PRIVATE | {"privacy": spending})


def test_a_budget_alone_lasts_for_all_rounds(train, read):
    budget = partial(fed.privacy.central, max_epsilon=3.0, clipping_norm=0.1)
    train(federation=PRIVATE | {"privacy": budget})
    assert 2.9 < float(read("rounds.csv")[-1]["epsilon"]) <= 3.0


def test_server_optimizers_go_on_from_the_private_mean(train, read):
    adam = partial(flower.FedAdam, eta=0.01)
    train(federation=PRIVATE | {"strategy": adam})
    assert len(read("rounds.csv")) == 3


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weighting": fed.weighting.by_examples}, "uniform"),
        ({"strategy": flower.FedMedian}, "compare"),
        ({"min_clients": 2}, "min_clients"),
    ],
)
def test_what_would_break_the_bound_is_refused(options, what):
    with pytest.raises(ValueError, match=what):
        fed.Federation(recipe.datasets, **(PRIVATE | options))


def test_local_privacy_noises_each_update(train, tmp_path):
    mod = LocalDpMod(clipping_norm=0.1, sensitivity=0.01, epsilon=1.0, delta=1e-5)
    models = []
    for folder in ("a", "b"):
        train(federation={"mods": [mod]}, folder=folder)
        models.append(load(tmp_path / folder / "save" / "federation.pt")["arrays"])
    a, b = models
    assert any((a[name] != b[name]).any() for name in a)
