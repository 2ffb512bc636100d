"""Estimates sum to their mixture, whatever the shares."""

import pytest
import torch

from fedenhance.objectives.consistency import Learned, by_power, uniform


@pytest.mark.parametrize("consistency", [uniform, by_power, Learned(3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_estimates_sum_to_the_mixture(consistency, dtype):
    estimates = torch.rand(4, 3, 1000).mul(2).sub(1).to(dtype)
    mixture = torch.rand(4, 1000).mul(2).sub(1)
    consistent = consistency(estimates, mixture)
    assert consistent.dtype == torch.float32
    torch.testing.assert_close(consistent.sum(1), mixture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("consistency", [uniform, by_power, Learned(3)])
def test_consistent_estimates_stay_as_they_are(consistency):
    estimates = torch.randn(4, 3, 100)
    consistent = consistency(estimates, estimates.sum(1))
    torch.testing.assert_close(consistent, estimates, atol=1e-6, rtol=0)


def test_uniform_is_the_nearest_consistent_estimate():
    estimates, mixture = torch.randn(2, 3, 50), torch.randn(2, 50)
    nearest = (uniform(estimates, mixture) - estimates).square().sum()
    for other in (by_power(estimates, mixture), estimates + 0):
        moved = other.clone()
        moved[:, 0] += mixture - moved.sum(1)
        assert (moved - estimates).square().sum() > nearest


def test_shares_by_power_by_hand():
    # Powers 4 and 1 on a difference of 5: the sources get 4 and 1 of it.
    estimates = torch.tensor([[[2.0, -2.0], [1.0, -1.0]]])
    mixture = estimates.sum(1) + 5
    expected = estimates + torch.tensor([[[4.0], [1.0]]])
    torch.testing.assert_close(by_power(estimates, mixture), expected)


def test_silent_sources_stay_silent_by_power():
    estimates = torch.randn(2, 3, 50)
    estimates[:, 1] = 0
    assert (by_power(estimates, torch.randn(2, 50))[:, 1] == 0).all()


def test_silence_is_shared_equally_and_has_finite_gradients():
    estimates = torch.zeros(1, 2, 3, requires_grad=True)
    consistent = by_power(estimates, torch.ones(1, 3))
    consistent.sum().backward()
    assert (consistent == 0.5).all()
    assert torch.isfinite(estimates.grad).all()


def test_learned_shares_start_equal_and_learn():
    consistency = Learned(2)
    estimates, mixture = torch.zeros(1, 2, 8), torch.ones(1, 8)
    torch.testing.assert_close(
        consistency(estimates, mixture), uniform(estimates, mixture)
    )
    optimizer = torch.optim.SGD(consistency.parameters(), lr=10.0)
    for _ in range(50):
        optimizer.zero_grad()
        (consistency(estimates, mixture)[:, 0] - 1).square().mean().backward()
        optimizer.step()
    assert consistency(estimates, mixture)[0, 0, 0] > 0.95


@pytest.mark.parametrize("consistency", [uniform, by_power, Learned(3)])
def test_gradients(consistency):
    estimates = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    mixture = torch.randn(2, 5, dtype=torch.float64)
    if isinstance(consistency, Learned):
        consistency = Learned(3).double()
    assert torch.autograd.gradcheck(lambda e: consistency(e, mixture), estimates)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="mixture of shape"):
        uniform(torch.zeros(2, 3, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="set num_sources"):
        Learned(2)(torch.zeros(2, 3, 5), torch.zeros(2, 5))
