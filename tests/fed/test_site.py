"""What a process loads to train, and how it goes on."""

import logging

import pytest
import torch
from speechbrain import Stage

import fed
from fed.arrays import get_arrays
from fed.recipe import build
from fed.site import Site, load_optimizer
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


def site_of(brain_class, train_set):
    """Make the site of a process that serves no client."""
    brain = build({**load(), "brain": brain_class}, {"device": "cpu"})
    valid_set = recipe.datasets({"train_size": 8})["valid"]
    return Site(fed.Federation(), brain, train_set, valid_set, {"batch_size": 4})


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
