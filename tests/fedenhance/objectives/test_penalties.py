"""Penalties do not depend on level, and add up."""

import functools

import pytest
import torch

from fedenhance.objectives.mixit import mixit
from fedenhance.objectives.penalties import covariance, regularized, sparsity
from tests.fedenhance.objectives.test_mixit import random_case


def test_sparsity_grows_with_the_number_of_active_sources():
    estimates = torch.zeros(4, 4, 100)
    for active in range(4):
        estimates[active, : active + 1] = torch.randn(100)
    penalties = sparsity(estimates)
    assert penalties[0] == pytest.approx(0, abs=1e-6)
    assert penalties[3] == pytest.approx(1, abs=1e-6)
    assert (penalties.diff() > 0.1).all()


def test_covariance_is_zero_for_uncorrelated_sources():
    first = torch.tensor([1.0, -1.0, 1.0, -1.0])
    second = torch.tensor([1.0, 1.0, -1.0, -1.0])
    estimates = torch.stack([torch.stack([first, second]), torch.stack([first, first])])
    torch.testing.assert_close(covariance(estimates), torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("penalty", [sparsity, covariance])
def test_penalties_ignore_level_and_accept_silence(penalty):
    estimates = torch.randn(2, 3, 100)
    torch.testing.assert_close(penalty(1e-4 * estimates), penalty(estimates))
    silent = torch.zeros(2, 3, 100, requires_grad=True)
    penalty(silent).sum().backward()
    assert torch.isfinite(silent.grad).all()


def test_penalties_add_up():
    estimates, sums, _ = random_case()
    penalties = [functools.partial(sparsity, weight=2.0), covariance]
    torch.testing.assert_close(
        regularized(estimates, sums, mixit, penalties),
        mixit(estimates, sums) + 2 * sparsity(estimates) + covariance(estimates),
    )


@pytest.mark.parametrize("penalty", [sparsity, covariance])
def test_gradients_of_penalties(penalty):
    estimates = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, estimates)
