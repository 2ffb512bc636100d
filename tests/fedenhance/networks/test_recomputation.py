"""What is computed again gives the same gradients, and is not kept."""

import weakref
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fedenhance.networks import fused, recomputation
from fedenhance.networks.blocks import GroupCommBlock, Norm, UConvBlock
from fedenhance.networks.sudormrf import Decoder, Encoder, MaskNet
from tests.fedenhance.networks.test_fused import assert_same_function


def kept(call, module):
    """Counts the numbers that a call keeps for the gradients, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = tensor  # alive, so that no address recurs
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(t.untyped_storage().nbytes() // 4 for t in storages.values())


@pytest.mark.parametrize("num_slopes", [0, 1, 6])
@pytest.mark.parametrize("num_groups", [1, 2])
def test_a_norm_computes_its_output_again(num_groups, num_slopes):
    if num_groups > 1 and num_slopes > 1:
        pytest.skip("groups share one slope")
    x = 3 + torch.randn(2, 10, num_groups * 6)
    slope = torch.rand(num_slopes) if num_slopes else None
    weights = torch.rand(6), torch.randn(6), slope
    y, again = fused.recomputable_group_norm(x, *weights, num_groups)
    assert_close(y, fused.group_norm(x, *weights, num_groups), rtol=0, atol=0)
    assert_close(again(), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_slopes", [0, 1])
def test_what_follows_a_norm_has_the_same_gradients(num_slopes):
    norm, linear = Norm(6, num_slopes), nn.Linear(12, 5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    tensors = [*norm.parameters(), *linear.parameters()]

    def then(x, *_):
        y, output = norm.then(linear, x, num_groups=2)
        return torch.cat([y, output], dim=2)

    def plain(x, *_):
        y = norm(x, num_groups=2)
        return torch.cat([y, linear(y)], dim=2)

    x = torch.randn(2, 10, 12, requires_grad=True)
    for ours, expected in zip(then(x), plain(x), strict=True):
        assert_close(ours, expected, rtol=0, atol=0)
    weights = torch.linspace(-1, 1, 2 * 10 * 17).view(2, 10, 17)
    grads, expected = (
        torch.autograd.grad((function(x) * weights).sum(), [x, *tensors])
        for function in (then, plain)
    )
    assert_close(grads, expected, rtol=1e-5, atol=1e-5)


def test_an_operation_does_not_hold_its_input():
    x = torch.randn(2, 3, requires_grad=True)
    y = x * 2
    output = recomputation.forgetting(torch.square, y, lambda: x.detach() * 2)
    there = weakref.ref(y)
    del y
    assert there() is None
    assert_close(torch.autograd.grad(output.sum(), x)[0], 8 * x.detach())


def test_views_and_other_layouts_of_the_input_are_found_again():
    def function(x):
        y = (2 * x).transpose(0, 1)

        def operation(y):
            return y[1:].square().sum() + y.flatten()[:2].exp().sum()

        return recomputation.forgetting(
            operation, y, lambda: (2 * x.detach()).transpose(0, 1).contiguous()
        )

    def expected(x):
        y = 2 * x.t()
        return y[1:].square().sum() + y.flatten()[:2].exp().sum()

    assert_same_function(function, expected, torch.randn(3, 2))


@pytest.mark.parametrize("num_sources", [1, 3])
@pytest.mark.parametrize("same_shape", [True, False])
def test_masks_have_the_gradients_of_a_product(num_sources, same_shape):
    weight = torch.randn(4, 5)

    def operation(latents):
        return latents.transpose(2, 3) @ weight

    def expected(masks, latent):
        return operation(masks * latent)

    masks = torch.randn(2, 6, num_sources, 4).permute(2, 0, 3, 1)
    latent = torch.randn(2, 4 if same_shape else 1, 6)
    actual = partial(recomputation.masked_then, operation)
    assert_same_function(actual, expected, masks, latent)


def test_a_block_keeps_its_input_and_what_is_dear_to_compute():
    batch_size, frames, channels, hidden, depth = 2, 32, 8, 16, 3
    block = UConvBlock(channels, hidden, depth)
    x = torch.randn(batch_size, frames, channels, requires_grad=True)
    # The input; its expansion; the convolutions, at three resolutions; their sum.
    numbers = channels + hidden * (1 + (1 + 1 / 2 + 1 / 4) + 1)
    statistics = 2 * (depth + 2) * batch_size
    weights = 2 * hidden * (depth + 2)  # as they are repeated for the groups
    most = batch_size * frames * numbers + statistics + weights
    assert kept(lambda: block(x), block) <= most


def test_the_network_keeps_neither_latents_nor_copies_of_views():
    block = partial(GroupCommBlock, 8, hidden_channels=16, depth=2, num_groups=2)
    encoder = Encoder(num_bases=12, kernel_size=21, depth=2)
    masknet = MaskNet(3, num_bases=12, channels=8, num_blocks=1, block=block)
    decoder = Decoder(num_sources=3, num_bases=12, kernel_size=21)
    latent = encoder(torch.randn(2, 800)).detach()
    masks = masknet(latent).detach().requires_grad_()
    # They are masks times latent: no third tensor.
    assert kept(lambda: recomputation.masked_then(decoder, masks, latent), decoder) == (
        masks.numel() + latent.numel()
    )
    output = recomputation.masked_then(decoder, masknet(latent), latent)
    seen, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [above for above, _ in node.next_functions]
    assert "CopySlices" not in {type(node).__name__ for node in seen}


@pytest.mark.parametrize("num_frames", [1, 4, 100])
def test_a_framewise_function_does_not_depend_on_how_many_frames_at_a_time(num_frames):
    def function(x, weight, bias):
        return torch.tanh(F.linear(x, weight, bias))

    def actual(x, weight, bias):
        return recomputation.framewise(function, x, weight, bias, num_frames=num_frames)

    inputs = torch.randn(2, 5, 3), torch.randn(4, 3), torch.randn(4)
    assert_same_function(actual, function, *inputs)
