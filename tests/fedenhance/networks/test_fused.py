"""The operations of fused compute what PyTorch's compute, and so do their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fedenhance.networks import fused


def gradients(function, *inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    output = function(*inputs)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return output, torch.autograd.grad((output * weights).sum(), inputs)


def assert_same_function(actual, expected, *inputs):
    assert fused.enabled(inputs[0])
    assert_close(
        gradients(actual, *inputs), gradients(expected, *inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.5, 1.0])
def test_prelu_with_one_slope_is_pytorchs(slope):
    x, slope = torch.randn(2, 5, 3), torch.tensor([slope])
    assert_same_function(fused.prelu, F.prelu, x, slope)


def test_prelu_with_many_slopes_is_pytorchs():
    def expected(x, slope):
        return F.prelu(x.transpose(1, 2), slope).transpose(1, 2)

    assert_same_function(fused.prelu, expected, torch.randn(2, 5, 3), torch.randn(3))


@pytest.mark.parametrize("num_slopes", [0, 1, 4])
@pytest.mark.parametrize("num_groups", [1, 3])
def test_group_norm_is_pytorchs_group_by_group(num_groups, num_slopes):
    if num_groups > 1 and num_slopes > 1:
        pytest.skip("groups share one slope")

    def actual(x, weight, bias, *slope):
        return fused.group_norm(x, weight, bias, *slope, num_groups=num_groups)

    def expected(x, weight, bias, *slope):
        groups = x.unflatten(2, (num_groups, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        y = F.group_norm(groups, 1, weight, bias, eps=1e-8)
        y = F.prelu(y, *slope) if slope else y
        return y.unflatten(0, (-1, num_groups)).permute(0, 3, 1, 2).flatten(2)

    x = 3 + torch.randn(2, 10, num_groups * 4)
    slope = [torch.rand(num_slopes)] if num_slopes else []
    assert_same_function(actual, expected, x, torch.randn(4), torch.randn(4), *slope)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("num_groups", [1, 3])
def test_depthwise_conv_is_pytorchs(num_groups, stride, batch_size):
    def actual(x, weight, bias):
        return fused.depthwise_conv(x, weight, bias, stride, 2, num_groups)

    def expected(x, weight, bias):
        weight, bias = weight.repeat(num_groups, 1, 1), bias.repeat(num_groups)
        y = F.conv1d(x.transpose(1, 2), weight, bias, stride, padding=2, groups=6)
        return y.transpose(1, 2)

    x = torch.randn(batch_size, 8, 6)
    filters = torch.randn(6 // num_groups, 1, 5), torch.randn(6 // num_groups)
    assert_same_function(actual, expected, x, *filters)


def test_upsample_add_is_nearest_interpolation_and_a_sum():
    def expected(coarse, fine):
        repeated = F.interpolate(coarse.transpose(1, 2), scale_factor=2.0)
        return repeated.transpose(1, 2) + fine

    assert_same_function(
        fused.upsample_add, expected, torch.randn(2, 3, 4), torch.randn(2, 6, 4)
    )


def test_a_silent_input_has_finite_gradients():
    def function(x, slope):
        return fused.group_norm(x, torch.ones(4), torch.zeros(4), slope)

    output, grads = gradients(function, torch.zeros(1, 8, 4), torch.tensor([0.25]))
    assert all(tensor.isfinite().all() for tensor in (output, *grads))


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("member", ["norm", "norm and slopes", "prelu", "conv"])
def test_what_runs_on_gpus_is_the_same_function(monkeypatch, member, num_groups, few):
    channels = 4 // num_groups
    x, slope = torch.randn(2, 6, 4), torch.rand(1 if num_groups > 1 else channels)
    weight, bias = torch.randn(channels), torch.randn(channels)
    calls = {
        "norm": lambda x, w, b: fused.group_norm(x, w, b, None, num_groups),
        "norm and slopes": lambda x, w, b: fused.group_norm(x, w, b, slope, num_groups),
        "prelu": lambda x, w, b: fused.prelu(x, w.repeat(num_groups)) + b.sum(),
        "conv": lambda x, w, b: fused.depthwise_conv(
            x, w.view(-1, 1, 1).expand(-1, 1, 3), b, 2, 1, num_groups
        ),
    }
    on_cpus = gradients(calls[member], x, weight, bias)
    monkeypatch.setattr(fused, "enabled", lambda x, device="cpu": False)
    monkeypatch.setattr(fused, "_few_on_gpu", lambda x: few)
    assert_close(
        gradients(calls[member], x, weight, bias), on_cpus, rtol=1e-4, atol=1e-4
    )


def test_the_norm_of_few_groups_is_pytorchs():
    def expected(x, weight, bias):
        return F.group_norm(x, 1, weight, bias, eps=1e-8)

    def actual(x, weight, bias):
        return fused._NormOfFew.apply(x, weight, bias, 1e-8)

    inputs = 3 + torch.randn(2, 4, 10), torch.randn(4), torch.randn(4)
    results = gradients(actual, *inputs), gradients(expected, *inputs)
    assert_close(*results, rtol=1e-4, atol=1e-4)
    assert not fused._few_on_gpu(inputs[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_take_pytorchs_operations(dtype):
    x = torch.randn(2, 6, 4, dtype=dtype)
    one = torch.ones(4, dtype=dtype)
    slope = torch.full((1,), 0.25, dtype=dtype)
    assert not fused.enabled(x)
    expected = fused.group_norm(x.float(), one.float(), one.float(), slope.float())
    actual = fused.group_norm(x, one, one, slope)
    assert actual.dtype == dtype
    assert_close(actual.float(), expected, rtol=0.05, atol=0.05)
