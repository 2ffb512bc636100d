"""A client that exits, or alters the Brain, fails by itself."""

import sys

import pytest
import torch

from tests.fed import recipe


def exits(brain):
    sys.exit("no such file")


def fails(brain):
    brain.modules["more"] = torch.nn.Linear(1, 1)
    raise RuntimeError("midway")


def adds_a_module(brain):
    brain.modules["more"] = torch.nn.Linear(1, 1)


def drops_a_module(brain):
    del brain.modules["model"]


def replaces_modules(brain):
    brain.modules = torch.nn.ModuleDict({"model": torch.nn.Linear(4, 2)})


def replaces_a_layer(brain):
    brain.modules["model"][2] = torch.nn.Sigmoid()


def replaces_a_weight(brain):
    brain.modules["model"][0].weight = torch.nn.Parameter(torch.zeros(1, 1))


def cuts_a_weight(brain):
    weight = brain.modules["model"][0].weight
    weight.data = weight.data[:1]


def doubles_precision(brain):
    brain.modules.double()


def drops_a_buffer(brain):
    del brain.modules["model"][1].running_mean


def forgets_its_hparams(brain):
    brain.hparams = None


def brings_a_checkpointer(brain):
    brain.checkpointer = object()


def loses_its_modules(brain):
    del brain.modules


def becomes_another(brain):
    brain.__class__ = recipe.Regression


DEEDS = {
    exits: "the recipe exits, with 'no such file'",
    fails: "more.weight; then RuntimeError: midway",
    adds_a_module: "altered the Brain: more",
    drops_a_module: "altered the Brain: model",
    replaces_modules: "altered the Brain: modules",
    replaces_a_layer: "altered the Brain: model.2",
    replaces_a_weight: "altered the Brain: model.0.weight",
    cuts_a_weight: "altered the Brain: model.0.weight",
    doubles_precision: "altered the Brain: model.0.bias",
    drops_a_buffer: "altered the Brain: model.1.running_mean",
    forgets_its_hparams: "altered the Brain: hparams",
    brings_a_checkpointer: "altered the Brain: checkpointer",
    loses_its_modules: "altered the Brain: modules",
    becomes_another: "altered the Brain: class",
}


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_it_is_left_out_and_the_others_train_as_if_it_were_not(
    train, read, monkeypatch, deed
):
    def acts(deed):
        def on_fit_batch_end(brain, batch, outputs, loss, should_step):
            if set(batch.client) == {"client02"}:
                deed(brain)

        monkeypatch.setattr(recipe.Regression, "on_fit_batch_end", on_fit_batch_end)

    acts(absent)
    train(folder="absent", rounds=2)
    acts(deed)
    train(rounds=2)
    statuses = [row["status"] for row in read("clients.csv")]
    assert all(DEEDS[deed] in status for status in statuses[2::4]), statuses
    assert statuses.count("ok") == 6
    losses = [[row["valid_loss"] for row in read("rounds.csv", f)] for f in FOLDERS]
    assert losses[0] == losses[1]


FOLDERS = "absent", "out"


def absent(brain):
    """Fail, and do nothing else."""
    raise RuntimeError("absent")
