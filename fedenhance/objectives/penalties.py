"""Penalties on estimates, for an objective to have beside it."""

import math

import torch

from fedenhance.objectives.levels import at_least_float32, energy, floor


def regularized(estimates, targets, objective, penalties):
    """An objective plus penalties on the estimates.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, shape (batch, source, time).
    targets : torch.Tensor
        What the objective compares them with, shape (batch, target, time).
    objective : callable
        Maps estimates and targets to losses (batch,), such as ``mixit``.
    penalties : list
        Callables that map estimates to penalties (batch,), such as ``sparsity``.

    Returns
    -------
    torch.Tensor
        The sum, shape (batch,).

    Example
    -------
    >>> from fedenhance.objectives.mixit import mixit
    >>> sources = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])
    >>> regularized(sources, sources, mixit, [sparsity, covariance])
    tensor([-28.5000])
    """
    losses = objective(estimates, targets)
    for penalty in penalties:
        losses = losses + penalty(estimates)
    return losses


def sparsity(estimates, weight=1.0):
    """Penalty on using many sources: the ratio of the L1 to the L2 norm of their RMS.

    Wisdom et al., "Sparse, efficient, and semantic mixture invariant training", WASPAA
    2021, discourage over-separation by such a ratio; here it is mapped to [0, 1] as in
    Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 2004:
    0 for one active source, 1 for equally loud ones.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, shape (batch, source, time).
    weight : float
        Factor of the result.

    Returns
    -------
    torch.Tensor
        Penalty, shape (batch,).

    Example
    -------
    >>> sparsity(torch.tensor([[[2.0], [0.0]], [[3.0], [3.0]]])).round(decimals=4)
    tensor([0., 1.])
    """
    (estimates,) = at_least_float32(estimates)
    power = estimates.square().mean(-1)
    total = power.sum(-1, keepdim=True)
    # The square root has no derivative at zero.
    added = floor(total)
    ratio = (power + added).sqrt().sum(-1) / (total + added).sqrt().squeeze(-1)
    largest = math.sqrt(estimates.shape[1])
    return weight * (ratio - 1) / ((largest - 1) or 1.0)


def covariance(estimates, weight=1.0):
    """Penalty on correlated sources: the energy of their covariances.

    The squared covariances of different sources (Wisdom et al., WASPAA 2021), summed
    and divided by the square of the total power, so that level does not matter: 0 for
    uncorrelated sources, below 1 for others.

    Arguments and returns are those of :func:`sparsity`.

    Example
    -------
    >>> covariance(torch.tensor([[[1.0, -1.0], [1.0, -1.0]]]))
    tensor([0.5000])
    """
    (estimates,) = at_least_float32(estimates)
    estimates = estimates - estimates.mean(-1, keepdim=True)
    # Normalized before the products, whose squares would underflow.
    total = energy(estimates).sum(-1)[:, None, None]
    estimates = estimates * torch.where(total == 0, 1.0, total).rsqrt()
    with torch.autocast(estimates.device.type, enabled=False):
        products = estimates @ estimates.mT
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    return weight * (products.square().sum((-2, -1)) - diagonal.square().sum(-1))
