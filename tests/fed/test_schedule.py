"""Learning rates by round."""

from functools import partial

import pytest
from speechbrain.nnet.schedulers import LinearScheduler, NewBobScheduler

from fed import schedule


def test_speechbrain_scheduler_by_round():
    linear = partial(LinearScheduler, initial_value=1.0, final_value=0.0, epoch_count=5)
    rates = [schedule.by_round(r, [], linear) for r in range(1, 6)]
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_new_bob_halves_the_rate_when_the_loss_stalls():
    bob = partial(NewBobScheduler, initial_value=1.0, annealing_factor=0.5, patient=0)
    rows = [{"valid_loss": 2.0}, {}, {"valid_loss": 1.0}, {"valid_loss": 1.0}]
    assert schedule.by_metric(3, rows[:3], bob) == 1.0
    assert schedule.by_metric(4, rows, bob) == 0.5


def test_schedule_reaches_the_clients(train, read):
    rates = {1: 1e-9, 2: 1e-9, 3: 0.1}
    train(federation={"schedule": lambda server_round, rows: rates[server_round]})
    losses = [float(row["valid_loss"]) for row in read("rounds.csv")]
    assert losses[2] < 0.9 * losses[1]
