"""Every architecture of hparams/models is a separator in itself."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.based_yaml import PACKAGE

MODELS = PACKAGE / "hparams" / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.yaml"))


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    with open(MODELS / f"{request.param}.yaml") as file:
        return load_hyperpyyaml(file)


def test_the_named_architectures_exist():
    assert {
        "convtasnet",
        "dprnn",
        "gtcrn",
        "sepformer",
        "sudormrf_causal",
        "sudormrf_groupcomm",
        "sudormrf_groupcomm_small",
        "sudormrf_improved",
        "sudormrf_original",
    } <= set(NAMES)


@pytest.mark.parametrize("num_samples", [1, 7, 4001])
def test_sources_are_as_long_as_the_mixture(model, num_samples):
    separator = model["separator"].eval()
    with torch.no_grad():
        estimates = separator(torch.randn(2, num_samples))
    assert estimates.shape == (2, model["num_sources"], num_samples)
    assert estimates.isfinite().all()


def test_every_parameter_learns(model):
    separator = model["separator"].train()
    mixture = torch.randn(2, 4000)
    (separator(mixture) - mixture.unsqueeze(1)).square().mean().backward()
    for name, parameter in separator.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_one_mixture_alone_gives_what_it_gives_in_a_batch(model):
    separator = model["separator"].eval()
    mixtures = torch.randn(2, 3000)
    with torch.no_grad():
        together, alone = separator(mixtures), separator(mixtures[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-4)


def test_fedenhances_network_has_its_number_of_parameters():
    with open(MODELS / "sudormrf_groupcomm.yaml") as file:
        separator = load_hyperpyyaml(file)["separator"]
    assert sum(p.numel() for p in separator.parameters()) == 794_921
