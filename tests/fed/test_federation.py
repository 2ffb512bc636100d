"""Federation from YAML: what it accepts, what it leaves, and that it learns."""

import csv
import multiprocessing
from functools import partial

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain import Stage

import fed
from fed.arrays import get_arrays
from fed.brain import join
from fedenhance.run_folder.states import load
from tests.fed import recipe
from tests.fed.conftest import YAML


def equal(brain, other):
    a, b = get_arrays(brain), get_arrays(other)
    return all((a[name] == b[name]).all() for name in a)


def test_training_helps_and_is_reported(train, read):
    train(rounds=6)
    rows = read("rounds.csv")
    assert [int(row["round"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[-1]["valid_loss"]) < float(rows[0]["valid_loss"])
    assert all(row["clients"] == "4" and row["examples"] == "32" for row in rows)
    assert {"seconds", "failures", "train_loss", "valid_rmse", "test_loss"} <= set(
        rows[0]
    )


def test_two_keys_federate_a_recipe(train):
    brain = train(federation={"partition": partial(fed.partition.iid, n_clients=2)})
    assert isinstance(brain, recipe.Regression)


def test_the_data_say_who_holds_what(train, read):
    def datasets(hparams):
        made = recipe.datasets(hparams)
        ids = made["train"].data_ids
        made["train"].clients = {"b": ids[:8], "a": ids[8:12]}
        return made

    train(federation={"datasets": datasets, "partition": None, "rounds": 1})
    held = {row["client"]: int(row["examples"]) for row in read("clients.csv")}
    assert held == {"a": 4, "b": 8}


def test_datasets_that_are_there_are_not_made_again(tmp_path):
    def datasets(hparams):
        raise AssertionError("made again")

    overrides = f"output_folder: {tmp_path}"
    with open(YAML, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    made = recipe.datasets(hparams)
    federation = fed.Federation(
        datasets, partition=partial(fed.partition.iid, n_clients=2)
    )
    hparams["federation"] = federation
    brain = fed.recipe.train(hparams, {"device": "cpu"}, made)
    assert isinstance(brain, recipe.Regression)


def test_a_brain_that_overrides_fit_batch(train, read):
    train(brain="!name:tests.fed.recipe.TwoSteps")
    assert read("rounds.csv")[-1]["examples"] == "32"


def test_the_same_seed_gives_the_same_weights_and_losses(train, read):
    a = train(folder="a", dropout=0.5)
    b = train(folder="b", dropout=0.5)
    assert equal(a, b)
    for x, y in zip(read("rounds.csv", "a"), read("rounds.csv", "b"), strict=True):
        assert {**x, "seconds": 0} == {**y, "seconds": 0}


def test_another_seed_gives_other_weights(train):
    assert not equal(train(folder="a"), train(folder="b", seed=8))


def test_best_model_is_returned(train, read):
    # The best by a metric that training makes smaller is the first.
    brain = train(federation={"maximize": "valid_loss"}, rounds=4)
    losses = [float(row["valid_loss"]) for row in read("rounds.csv")]
    assert losses[0] == max(losses)
    valid = recipe.datasets({"train_size": 32})["valid"]
    join(brain)
    found = brain.validate(valid, {"batch_size": 4})
    assert found["loss"] == pytest.approx(losses[0])


def test_one_client_equals_centralised_training(train, tmp_path):
    train(federation={"partition": lambda rows: {"all": list(rows)}}, rounds=3)
    federated = load(tmp_path / "out" / "save" / "federation.pt")["arrays"]
    with open(YAML, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, {"output_folder": "unused"})

    class Central(recipe.Regression):
        def on_stage_end(self, stage, stage_loss, epoch=None):
            assert stage == Stage.TRAIN

    brain = Central(hparams["modules"], hparams["opt_class"], hparams)
    data = recipe.datasets(hparams)["train"]
    brain.fit(range(1, 4), data, train_loader_kwargs=hparams["dataloader_options"])
    for name, array in get_arrays(brain).items():
        assert torch.allclose(
            torch.from_numpy(array).double(),
            torch.from_numpy(federated[name]).double(),
            atol=1e-6,
            rtol=0,
        )


def test_fraction_samples_clients(train, read):
    federation = {"fraction": 0.5, "rounds": 8}
    train(federation=federation, n_clients=8)
    rows = read("clients.csv")
    assert len(rows) == 8 * 4
    assert len({row["client"] for row in rows}) > 4


def test_selected_clients_alone_train(train, read):
    train(federation={"selected_clients": ["client02"]})
    assert {row["client"] for row in read("clients.csv")} == {"client02"}


def test_selected_clients_must_exist(train):
    with pytest.raises(ValueError, match="nobody"):
        train(federation={"selected_clients": ["nobody"]})


def test_half_an_epoch_is_half_the_steps(train, read):
    train(federation={"local_epochs": 0.5})
    assert {row["examples"] for row in read("clients.csv")} == {"4"}


def test_half_an_epoch_of_steps_that_nobody_counts_is_refused(train):
    own = {"brain": "!name:tests.fed.recipe.TwoSteps"}
    with pytest.raises(RuntimeError, match="local_epochs 0.5: steps are counted in"):
        train(**own, federation={"local_epochs": 0.5})


def test_callbacks_see_every_round(train):
    seen = []
    train(federation={"callbacks": [lambda r, brain, row: seen.append(row["round"])]})
    assert seen == [1, 2, 3]


def test_a_run_leaves_no_processes(train):
    options = "{batch_size: 4, num_workers: 1, persistent_workers: True}"
    keeping = "!name:tests.fedenhance.training.test_loading.Keeping"
    before = set(multiprocessing.active_children())
    brain = train(rounds=2, dataloader_options=options, brain=keeping)
    assert not brain.loaders.kept
    assert before >= set(multiprocessing.active_children())


def test_weights_are_shares(train, read):
    train(federation={"weighting": fed.weighting.by_loss})
    with_round_1 = [r for r in read("clients.csv") if r["round"] == "1"]
    assert sum(float(row["weight"]) for row in with_round_1) == pytest.approx(1)
    best = min(with_round_1, key=lambda row: float(row["loss"]))
    assert float(best["weight"]) == max(float(r["weight"]) for r in with_round_1)


def test_the_log_has_one_line_a_round(train, tmp_path):
    from speechbrain.utils.train_logger import FileTrainLogger

    train(federation={"loggers": [FileTrainLogger(str(tmp_path / "log.txt"))]})
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("round: 1")


def test_without_a_logger_each_round_prints_a_line(train, capsys):
    train()
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("round ")]
    assert [line.split(",")[0] for line in lines] == ["round 1", "round 2", "round 3"]
    assert all("train loss " in line for line in lines)


def test_a_metric_that_nobody_reports_is_named(train):
    with pytest.raises(ValueError, match="valid_sdr.*valid_rmse"):
        train(federation={"maximize": "valid_sdr"})


def test_a_metric_is_one_of_validation():
    for name in ("si_sdri", "valid_si_sdri"):
        assert fed.Federation(None, maximize=name).metric == "valid_si_sdri"


def test_the_best_is_what_the_recipe_keeps_unless_yaml_says_otherwise():
    asked, row = (
        {"meta": {}, "max_keys": ["acc"]},
        {"valid_acc": 0.5, "valid_loss": 1.0},
    )
    federation = fed.Federation()
    federation.choose_as(asked, row)
    assert (federation.metric, federation.is_better(0.6, 0.5)) == ("valid_acc", True)
    federation = fed.Federation(minimize="valid_loss")
    federation.choose_as(asked, row)
    assert (federation.metric, federation.is_better(0.6, 0.5)) == ("valid_loss", False)


def test_test_never_chooses_the_model():
    with pytest.raises(ValueError, match="valid"):
        fed.Federation(datasets=None, maximize="test_si_sdri")


def test_csv_files_are_csv(train, tmp_path):
    train()
    with open(tmp_path / "out" / "clients.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 3 * 4
