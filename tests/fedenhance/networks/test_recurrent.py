"""Grouped GRUs are those of PyTorch, gradients and all."""

import pytest
import torch
from torch import nn

from fedenhance.networks.recurrent import GRU

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def references(gru, inputs, outputs):
    """PyTorch's GRU of each group, and how its weights are called in ours."""
    two, num_groups = gru.weight_ih.shape[:2]
    found = []
    for group in range(num_groups):
        reference = nn.GRU(inputs, outputs, bidirectional=two == 2)
        for direction, suffix in enumerate(("_l0", "_l0_reverse")[:two]):
            for name in NAMES:
                weight = getattr(gru, name)[direction, group].flatten(0, 1)
                getattr(reference, name + suffix).data.copy_(weight)
        found.append(reference)
    return found


def by_direction(x, num_groups, two):
    """Sort channels by direction, then group."""
    return x.unflatten(-1, (num_groups, two, -1)).transpose(-2, -3).flatten(-3)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_groups", [1, 3])
def test_output_and_gradients_are_pytorchs(num_groups, bidirectional):
    two = 1 + bidirectional
    gru = GRU(4 * num_groups, 5 * num_groups, num_groups, bidirectional)
    x = torch.randn(7, 3, 4 * num_groups, requires_grad=True)
    start = torch.randn(two, 3, 5 * num_groups, requires_grad=True)
    y, state = gru(x, start)
    weights = torch.randn_like(y)
    ((y * weights).sum() + state.square().sum()).backward()
    found = {name: getattr(gru, name).grad for name in NAMES}
    found |= {"x": x.grad, "state": start.grad}
    x.grad = start.grad = None

    parts = zip(
        references(gru, 4, 5),
        x.chunk(num_groups, -1),
        start.chunk(num_groups, -1),
        strict=True,
    )
    models, outputs = [], []
    for reference, *inputs in parts:
        models.append(reference)
        outputs.append(reference(*map(torch.Tensor.contiguous, inputs)))
    expected = by_direction(torch.cat([o[0] for o in outputs], -1), num_groups, two)
    last = torch.cat([o[1] for o in outputs], -1)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)
    ((expected * weights).sum() + last.square().sum()).backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found["x"], x.grad, **close)
    torch.testing.assert_close(found["state"], start.grad, **close)
    for name in NAMES:
        for direction, suffix in enumerate(("_l0", "_l0_reverse")[:two]):
            for group, model in enumerate(models):
                actual = found[name][direction, group].flatten(0, 1)
                expected = getattr(model, name + suffix).grad
                torch.testing.assert_close(actual, expected, **close)


def test_without_gradients_the_output_is_the_same():
    gru, x = GRU(4, 6, num_groups=2, bidirectional=True), torch.randn(5, 3, 4)
    with_gradients, _ = gru(x, gru.initial_state(3))
    with torch.no_grad():
        without, _ = gru(x, gru.initial_state(3))
    torch.testing.assert_close(with_gradients, without)


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="hidden_size must be divisible by num_groups"):
        GRU(4, 5, num_groups=2)
