"""What a process loads to train, and how it goes on."""

import pytest
import torch

from fed.site import load_optimizer


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
