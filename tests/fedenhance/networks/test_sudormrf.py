"""The Sudo rm -rf family takes every length and refuses sizes that cannot be."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.networks import fused
from fedenhance.networks.blocks import GroupCommBlock
from fedenhance.networks.sudormrf import Decoder, Encoder, MaskNet

MODELS = Path(__file__).parents[3] / "hparams" / "models"

SIZES = {
    "num_sources": 2,
    "num_bases": 8,
    "channels": 4,
    "hidden_channels": 8,
    "num_blocks": 1,
    "depth": 3,
}
MEMBERS = ["original", "improved", "groupcomm", "causal"]


def build(member, **sizes):
    """A member as its YAML file has it, small."""
    sizes = {**SIZES, "kernel_size": 21, **sizes}
    if member == "groupcomm":
        sizes.setdefault("num_groups", 2)
    with open(MODELS / f"sudormrf_{member}.yaml", encoding="utf-8") as file:
        return load_hyperpyyaml(file, sizes)["separator"]


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("num_samples", [1, 20, 21, 1237])
def test_sources_are_as_long_as_the_mixture(member, num_samples):
    estimates = build(member)(torch.randn(3, num_samples))
    assert estimates.shape == (3, 2, num_samples)


def test_padding_is_to_the_smaller_stride_where_its_frames_halve():
    # hop 20, depth 5: lcm 160 samples, 8 frames, must halve 4 times.
    encoder = Encoder(num_bases=1, kernel_size=41, depth=5)
    assert encoder.padded_length(64000) == 64000
    assert encoder.padded_length(63900) == 64000
    assert encoder.padded_length(4000) == 4480


def test_padding_can_be_to_the_larger_stride():
    encoder = Encoder(num_bases=1, kernel_size=41, depth=5, minimal_padding=False)
    assert encoder.padded_length(64000) == 64000
    assert encoder.padded_length(63000) == 63360


def test_padding_where_the_authors_code_crashes():
    # lcm(20, 16) = 80 pads 4999 samples to 5040, 252 frames, which halve only twice.
    encoder = Encoder(num_bases=1, kernel_size=41, depth=4)
    assert encoder.padded_length(4999) == 5120


def test_decoder_is_a_transposed_convolution():
    decoder = Decoder(num_sources=2, num_bases=3, kernel_size=5)
    latents = torch.randn(2, 4, 3, 6)
    expected = torch.nn.functional.conv_transpose1d(
        latents.transpose(0, 1).flatten(1, 2),
        decoder.conv.weight,
        stride=2,
        padding=2,
        output_padding=1,
    )
    torch.testing.assert_close(decoder(latents), expected)


def test_one_source_has_a_sigmoid_mask():
    masks = build("original", num_sources=1).masknet(torch.randn(2, 8, 8))
    assert masks.shape == (1, 2, 8, 8)
    assert 0 < masks.min() and masks.max() < 1


@pytest.mark.parametrize("member", MEMBERS)
def test_fused_and_pytorchs_operations_agree(member, monkeypatch):
    network, latent = build(member).masknet, torch.randn(2, 8, 16)
    ours = network(latent)
    monkeypatch.setattr(fused, "enabled", lambda x, device="cpu": False)
    torch.testing.assert_close(ours, network(latent), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("member", MEMBERS)
def test_bfloat16_autocast_trains(member):
    network = build(member).masknet
    with torch.autocast("cpu", torch.bfloat16):
        masks = network(torch.randn(2, 8, 16))
    masks.float().square().mean().backward()
    assert network.bottleneck.weight.grad.isfinite().all()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_size_that_is_no_positive_integer_is_refused_by_name(member, key, value):
    with pytest.raises(ValueError, match=f"{key} must be an integer of 1 or more"):
        build(member, **{key: value})


def test_a_block_of_ones_own_is_named_and_no_more():
    masknet = MaskNet(3, 8, channels=4, num_blocks=2, block=torch.nn.Identity)
    latent = torch.randn(2, 8, 16)
    expected = masknet.masks(masknet.bottleneck(masknet.norm(latent.mT)))
    torch.testing.assert_close(masknet(latent), expected)


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_an_even_kernel_is_refused(part):
    sizes = {"depth": 2} if part is Encoder else {"num_sources": 1}
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        part(num_bases=8, kernel_size=20, **sizes)


@pytest.mark.parametrize("key", ["channels", "hidden_channels"])
def test_channels_that_do_not_divide_into_groups_are_refused(key):
    with pytest.raises(ValueError, match=f"{key} must be divisible by num_groups"):
        GroupCommBlock(
            **{"channels": 4, "hidden_channels": 8, key: 10}, depth=3, num_groups=4
        )


def test_an_odd_number_of_bases_is_refused_where_the_mask_filter_needs_it_even():
    with pytest.raises(ValueError, match="num_bases must be even, got 9"):
        build("original", num_bases=9)


def test_a_network_compiles_to_one_graph():
    network, latent = build("groupcomm").masknet, torch.randn(2, 8, 16)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(latent), network(latent), rtol=1e-4, atol=1e-5)
