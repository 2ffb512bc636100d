"""Training on recordings: objectives that fit the network, averaged models."""

import pytest
import torch

from fedenhance.based_yaml import PACKAGE, load_hparams
from fedenhance.networks.scaling import separate
from fedenhance.training.separation import mixtures_of


@pytest.fixture
def hparams(tmp_path):
    overrides = f"output_folder: {tmp_path}\np_supervised: 0.5"
    return load_hparams(PACKAGE / "hparams" / "recorded_gtcrn.yaml", overrides)


def test_every_group_of_clients_trains_its_network(hparams):
    separator = hparams["modules"]["separator"]
    sources = torch.randn(1, 3, 4000)
    for group, targets in (
        ("unsupervised", mixtures_of(sources)),
        ("supervised", sources),
    ):
        estimates = separate(separator, sources.sum(1), hparams["consistency"])
        torch.testing.assert_close(estimates.sum(1), sources.sum(1), atol=0.02, rtol=0)
        separator.zero_grad()
        hparams["objectives"][group](estimates, targets).mean().backward()
        gradients = [weight.grad for weight in separator.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients), group


def test_the_rate_stays_and_the_models_are_averaged(hparams):
    federation, rate = hparams["federation"], hparams["learning_rate"]
    assert federation.average == 0.95 and federation.keep_optimizer
    assert federation.schedule(1, []) == federation.schedule(10_000, []) == rate
    assert hparams["mixing"].snr_range == [-5, 10] and hparams["mixing"].loop_noise
