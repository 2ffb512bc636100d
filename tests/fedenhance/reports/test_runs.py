"""What result folders say, and which of them are one experiment."""

from functools import partial

import numpy as np
import pytest

from fedenhance.reports import runs
from tests.fedenhance import finished


@pytest.fixture
def write_run(tmp_path):
    return partial(finished.write_run, tmp_path)


def test_runs_are_found_anywhere_below_and_once(write_run, tmp_path):
    write_run("a")
    write_run("a", seed=2)
    found = runs.find_runs([tmp_path, tmp_path / "a"])
    assert sorted(run.seed for run in found) == [1, 2]
    with pytest.raises(FileNotFoundError, match="nowhere holds no federated run"):
        runs.find_runs([tmp_path / "nowhere"])


def test_what_is_reached_is_of_the_best_round_in_validation(write_run):
    run = write_run("a", test=(5.0, 3.0), valid=(1.0, 2.0))
    assert run.reached("test_si_sdri_1") == 3.0
    assert run.summary() == {
        "seed": 1,
        "si_sdri_1": 3.0,
        "si_sdri_2": 4.0,
        "rounds": 12,
        "hours": 6.0,
        "minutes": 6.0,
    }


def test_a_central_run_is_read_from_its_test_set(write_run):
    run = write_run("a")
    (run.folder / "rounds.csv").unlink()
    (run.folder / "test_metrics.csv").write_text(
        "n_noises,si_sdri\n1,2.0\n2,8.0\n1,4.0\n"
    )
    assert run.summary()["si_sdri_1"] == 3.0


def test_seeds_and_lone_clients_are_averaged_and_nothing_else(write_run):
    same = [write_run("a", seed=s) for s in (1, 2)]
    more = write_run("b", n_clients=8)
    lone = [write_run(f"c{i}", selected_clients=f"[{i}]") for i in (0, 1)]
    started = [write_run("d", seed=s, initial_model=f"x/{s}") for s in (1, 2)]
    for pair in (same, lone, started):
        assert pair[0].settings == pair[1].settings
    experiments = [group[0].settings for group in (same, [more], lone, started)]
    assert all(experiments.count(settings) == 1 for settings in experiments)


@pytest.mark.parametrize(
    "parts",
    [
        {"snr_range": ("[-5, 10]", "[0, 5]")},
        {"models": ("{channels: 16}", "{channels: 32}")},
        {"objectives": ("{unsupervised: !name:a }", "{unsupervised: !name:b }")},
    ],
)
def test_levels_networks_and_objectives_make_another_experiment(write_run, parts):
    ((key, values),) = parts.items()
    found = [write_run(f"a{i}", **{key: value}) for i, value in enumerate(values)]
    assert found[0].settings != found[1].settings
    assert runs.swept_runs(found, "n_clients") == {4: [found[0]]}


def test_rounds_that_were_not_evaluated_are_nan(write_run):
    tested = write_run("a", test=(1.0, 3.0)).rounds["test_si_sdri_1"]
    assert (tested[0], tested[-1]) == (1.0, 3.0)
    assert np.isnan(tested[1:-1]).all()


def test_epochs_that_were_trained_again_count_once(write_run):
    run = write_run("a")
    lines = ["epoch: 1 - train loss: 2.00 - valid loss: -1.00e+00, valid si_sdr: 3.0"]
    lines += ["epoch: 2 - train loss: 1.50", "epoch: 2 - train loss: 1.25"]
    (run.folder / "train_log.txt").write_text("\n".join([*lines, "test loss: 1"]))
    columns = {name: column.tolist() for name, column in run.epochs.items()}
    assert columns["epoch"] == [1, 2]
    assert columns["train_loss"] == [2, 1.25]
    assert (columns["valid_loss"][0], columns["valid_si_sdr"][0]) == (-1, 3)
    assert np.isnan(columns["valid_loss"][1])


def test_a_sweep_is_of_federations_that_differ_in_nothing_else(write_run):
    found = [write_run(f"p{p}", p_supervised=p) for p in (1.0, 0.0)]
    others = [write_run("c", n_clients=8), write_run("d", n_clients=1)]
    others += [write_run("e", local_epoch_p=5)]
    assert runs.swept_runs([*found, *others], "p_supervised") == {
        0.0: [found[1]],
        1.0: [found[0]],
    }
    assert list(runs.swept_runs([*found, *others], "n_clients")) == [4, 8]
    assert runs.swept_runs(found, "n_clients", pretrained=True) == {}


def test_curves_of_seeds_are_cut_to_the_rounds_that_all_know(write_run):
    short = write_run("a", rounds=6)
    long = write_run("a", seed=2, rounds=12, test=(1.0, 2.0, 3.0), valid=(1, 2, 3))
    rounds, values = runs.common_curves([short, long], "test_si_sdri_1")
    assert rounds.tolist() == [1, 6]
    assert values.tolist() == [[1.0, 3.0], [1.0, 2.0]]
