"""What a process loads to train, and how it goes on."""

import logging
from functools import partial

import pytest
import torch
from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.parameter_transfer import Pretrainer

import fed
from fed.arrays import get_arrays
from fed.recipe import build
from fed.site import Site, Task, load_optimizer
from tests.fed import recipe
from tests.fed.conftest import load


class Leaves(recipe.Regression):
    """Reports at the end of validation what its last batch of training left."""

    def on_fit_start(self):
        super().on_fit_start()
        self.left = {}

    def fit_batch(self, batch):
        self.left["norm"] = 1.0
        return super().fit_batch(batch)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.VALID:
            self.hparams.train_logger.log_stats(valid_stats=self.left)


class Adversarial(recipe.Regression):
    """Fits by itself before each epoch, as MetricGAN does for its discriminator."""

    within, met = False, []

    def on_stage_start(self, stage, epoch=None):
        if stage == Stage.TRAIN and not self.within:
            self.within = True
            for _ in range(2):
                self.fit(range(1), self.train_set, train_loader_kwargs=OPTIONS)
            self.within = False
            self.epochs += [self.hparams.epoch_counter.current]

    def fit_batch(self, batch):
        seen = self.seen.setdefault("within" if self.within else "epoch", [])
        seen += batch.id
        loss = super().fit_batch(batch)
        return loss + 1000 if self.within else loss

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if self.within:
            return
        self.met.append({**self.seen, "epochs": [*self.epochs]})
        super().on_stage_end(stage, stage_loss, epoch)


OPTIONS = {"batch_size": 4, "shuffle": True}


def site_of(brain_class, data, options=None, **attributes):
    """Make the site of a process, with attributes that a script has given the Brain."""
    hparams = {**load(), "brain": brain_class}
    hparams["epoch_counter"] = EpochCounter(limit=1)
    brain = build(hparams, {"device": "cpu"})
    vars(brain).update(attributes)
    valid_set = recipe.datasets({"train_size": 8})["valid"]
    options = options or {"batch_size": 4}
    return Site(fed.Federation(), brain, data, valid_set, options)


@pytest.fixture
def adversarial():
    whole = recipe.datasets({"train_size": 16, "n_clients": 4})["train"]
    given = {"train_set": whole, "seen": {}, "epochs": []}
    Adversarial.met.clear()
    site = site_of(Adversarial, whole, dict(OPTIONS), **given)
    site.federation.partition = fed.partition.by_column
    return site


def test_a_fit_within_fit_has_the_clients_data_alone(adversarial):
    site = adversarial
    start = get_arrays(site.brain)
    for index, name in enumerate(site.names()):
        task = Task(server_round=3, index=index)
        _, metrics = site.train(start, {}, site.client_data(name), task)
        met, ids = site.brain.met[-1], site.partition[name]
        assert sorted(met["epoch"]) == sorted(ids)
        assert sorted(met["within"]) == sorted([*ids, *ids])
        assert met["epochs"] == [3]
        # Neither examples nor losses of what is within count.
        assert metrics["num-examples"] == len(ids)
        assert metrics["loss"] < 100
    assert site.brain.train_set is site.train_set
    assert (site.brain.seen, site.brain.epochs) == ({}, [])


def test_a_loader_of_all_data_is_no_place_to_train_from():
    whole = torch.utils.data.DataLoader(recipe.datasets({"train_size": 16})["train"])
    with pytest.raises(ValueError, match=r"Adversarial\.train_set.*keep the dataset"):
        site_of(Adversarial, whole, train_set=whole)


def test_a_server_that_only_validates_has_what_training_leaves(caplog):
    site = site_of(Leaves, recipe.datasets({"train_size": 16})["train"])
    arrays = get_arrays(site.brain)
    assert site.validate(arrays, {}, 1)["norm"] == 1.0
    for name, array in get_arrays(site.brain).items():
        assert (array == arrays[name]).all(), name


def test_a_server_without_what_clients_train_on_validates_all_the_same(caplog):
    class Elsewhere(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            raise FileNotFoundError("on other machines")

    caplog.set_level(logging.DEBUG, "fed.site")
    site = site_of(recipe.Regression, Elsewhere())
    for server_round in (1, 2):
        assert site.validate(get_arrays(site.brain), {}, server_round)["loss"] > 0
    tried = [r for r in caplog.records if "Nothing can be trained" in r.getMessage()]
    assert len(tried) == 1


def test_what_a_pretrainer_has_loaded_is_where_round_1_starts(tmp_path):
    site = site_of(recipe.Regression, recipe.datasets({"train_size": 16})["train"])
    site.leave()  # and join again below
    model, own = site.brain.modules["model"], get_arrays(site.brain)
    ones = {n: torch.ones_like(w) for n, w in model.state_dict().items()}
    torch.save(ones, tmp_path / "ones.ckpt")
    pretrainer = Pretrainer(
        collect_in=tmp_path / "collected",
        loadables={"model": model},
        paths={"model": str(tmp_path / "ones.ckpt")},
    )
    pretrainer.collect_files()
    pretrainer.load_collected()
    site.brain.hparams.pretrainer = pretrainer
    federation = fed.Federation(partition=partial(fed.partition.iid, n_clients=2))
    data = site.train_set, site.datasets["valid"], {"batch_size": 4}
    site = Site(federation, site.brain, *data)
    site.rehearse()
    for name, array in get_arrays(site.brain).items():
        assert (array == 1).all() and array.shape == own[name].shape, name
    # It is no state that clients would send.
    assert not any("pretrainer" in name for name in site.brain.numbers())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_optimizers_go_on_by_whatever_means_they_compute_now(before, now):
    def optimizer(fused):
        weight = torch.nn.Parameter(torch.ones(3))
        return weight, torch.optim.Adam([weight], lr=0.1, fused=fused)

    def step(weight, adam):
        weight.grad = torch.arange(3.0)
        adam.step()
        return weight.detach().clone()

    first, adam = optimizer(before)
    step(first, adam)
    second, other = optimizer(now)
    second.data.copy_(first)
    load_optimizer(other, adam.state_dict())
    assert other.param_groups[0]["fused"] is now
    torch.testing.assert_close(step(second, other), step(first, adam))
