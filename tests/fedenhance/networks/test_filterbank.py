"""The Fourier start of a filterbank."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.networks.filterbank import fourier_frame, start_as_fourier
from fedenhance.networks.separator import Separator
from fedenhance.networks.sudormrf import Decoder, Encoder

ROOT = Path(__file__).resolve().parents[3]


def separator(num_bases, kernel_size=21):
    return Separator(
        Encoder(num_bases, kernel_size, depth=2),
        None,
        Decoder(3, num_bases, kernel_size),
    )


@pytest.mark.parametrize("length", [2, 8, 40])
def test_the_frame_is_tight(length):
    overlap = fourier_frame(length).T @ fourier_frame(length)
    half = length // 2
    shifted = overlap[:half, :half] + overlap[half:, half:]
    assert torch.allclose(shifted, torch.eye(half), atol=1e-5)


def test_masks_of_one_give_the_mixture_in_every_slot():
    network = start_as_fourier(separator(num_bases=24))
    mixture = torch.randn(2, 200)
    latent = network.encoder(mixture)
    estimates = network.decoder(latent.expand(3, 2, 24, -1))
    inside = slice(None, 190)  # the last hop lies in the network's padding
    for slot in range(3):
        assert torch.allclose(estimates[:, slot, inside], mixture[:, inside], atol=1e-5)


def test_it_stays_trainable():
    network = start_as_fourier(separator(num_bases=24))
    latent = network.encoder(torch.randn(1, 80))
    network.decoder(latent.expand(3, 1, 24, -1)).square().sum().backward()
    assert network.encoder.conv.weight.grad.abs().sum() > 0
    assert network.decoder.conv.weight.grad.abs().sum() > 0


def test_too_few_filters_are_refused():
    with pytest.raises(ValueError, match="num_bases is 16.*needs 20"):
        start_as_fourier(separator(num_bases=16))


def test_the_default_network_starts_so():
    path = ROOT / "hparams/models/sudormrf_groupcomm_small.yaml"
    with open(path, encoding="utf-8") as file:
        network = load_hyperpyyaml(file)["separator"]
    length = network.encoder.conv.kernel_size[0] - 1
    analysis = network.encoder.conv.weight[:length, 0, :length]
    assert torch.allclose(analysis, fourier_frame(length))
