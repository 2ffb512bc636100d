"""A separator joins its parts and keeps the mixture's length."""

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from fedenhance.networks.separator import PaddedEncoder, PerSource, Separator


class Identity:
    """One frame is two samples; the latent is the waveform itself."""

    @staticmethod
    def encoder(mixture):
        return mixture.unflatten(1, (-1, 2)).transpose(1, 2)

    @staticmethod
    def decoder(latents):
        return latents.permute(1, 0, 3, 2).flatten(2)


class Masks(torch.nn.Module):
    def forward(self, latent):
        return torch.stack([torch.full_like(latent, 3.0), torch.zeros_like(latent)])


class AsModule(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def separator(**options):
    return Separator(
        AsModule(Identity.encoder), Masks(), AsModule(Identity.decoder), **options
    )


def test_masks_multiply_the_latent_once():
    expected = torch.tensor([[[3.0, 6.0], [0.0, 0.0]]])
    assert torch.equal(separator()(torch.tensor([[1.0, 2.0]])), expected)


def test_a_direct_mapping_multiplies_nothing():
    expected = torch.tensor([[[3.0, 3.0], [0.0, 0.0]]])
    assert torch.equal(separator(masking=False)(torch.tensor([[1.0, 2.0]])), expected)


@pytest.mark.parametrize("shape", [(1237,), (2, 1, 1237), (2, 0)])
def test_a_mixture_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, time\) with time >= 1"):
        separator()(torch.zeros(shape))


@pytest.mark.parametrize("num_samples", [1, 15, 16, 17, 24, 25])
def test_padded_frames_cover_every_sample(num_samples):
    encoder = PaddedEncoder(Encoder(16, out_channels=4), kernel_size=16, stride=8)
    num_frames = encoder(torch.randn(2, num_samples)).shape[-1]
    covered = 16 + 8 * (num_frames - 1)
    assert covered - 8 < max(num_samples, 9) <= covered


def test_a_padded_encoder_gives_the_frames_a_network_needs():
    encoder = PaddedEncoder(Encoder(16, out_channels=4), 16, stride=8, min_frames=5)
    assert encoder(torch.randn(1, 1)).shape[-1] == 5


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_source_is_decoded_by_itself(batch_size):
    decoder = Decoder(in_channels=4, out_channels=1, kernel_size=16, stride=8)
    latents = torch.randn(2, batch_size, 4, 5)
    waveforms = PerSource(decoder)(latents)
    assert waveforms.shape == (batch_size, 2, 48)
    for source in range(2):
        alone = decoder(latents[source]).view(batch_size, -1)
        torch.testing.assert_close(waveforms[:, source], alone)
