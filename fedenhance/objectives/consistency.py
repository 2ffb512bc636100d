"""Mixture consistency: estimates that sum to their mixture.

The difference between the mixture and the sum of the estimates is shared out among
the estimates, the projection of Wisdom et al., "Differentiable consistency constraints
for improved deep speech enhancement", ICASSP 2019, section 4.2.

Each of these maps estimates (batch, source, time) and a mixture (batch, time) to
estimates (batch, source, time) that sum to the mixture.
"""

import torch
from torch import nn

from fedenhance.objectives.levels import at_least_float32


def uniform(estimates, mixture):
    """Give every source the same share of the difference.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, shape (batch, source, time).
    mixture : torch.Tensor
        Their mixture, shape (batch, time).

    Returns
    -------
    torch.Tensor
        Sources that sum to the mixture, shape (batch, source, time).

    Example
    -------
    >>> uniform(torch.zeros(1, 2, 3), torch.ones(1, 3))
    tensor([[[0.5000, 0.5000, 0.5000],
             [0.5000, 0.5000, 0.5000]]])
    """
    estimates = _checked(estimates, mixture)
    return _share_out(estimates, mixture, 1 / estimates.shape[1])


def by_power(estimates, mixture):
    """Share the difference in proportion to the power of the sources.

    Silent sources stay silent, unless all of them are: then each has the same share.

    Arguments and returns are those of :func:`uniform`.

    Example
    -------
    >>> by_power(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[3.0]]))
    tensor([[[3.],
             [0.]]])
    """
    estimates = _checked(estimates, mixture)
    power = estimates.square().mean(-1, keepdim=True)
    total = power.sum(1, keepdim=True)
    equal = torch.full_like(power, 1 / estimates.shape[1])
    shares = power / torch.where(total == 0, torch.ones_like(total), total)
    return _share_out(estimates, mixture, torch.where(total == 0, equal, shares))


def keep_some(estimates, mixture, dry):
    """Leave a share of the mixture in the speech: noise falls so far and no farther.

    The attenuation limit of DeepFilterNet (Schroeter et al., "DeepFilterNet2: towards
    real-time speech enhancement on embedded devices for full-band audio", IWAENC 2022).
    Estimates that sum to the mixture still do.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, speech first, shape (batch, source, time).
    mixture : torch.Tensor
        Their mixture, shape (batch, time).
    dry : float or torch.Tensor
        The share, in [0, 1]; 10 ** (-DB / 20) limits the attenuation to DB. Shares of
        their own for the mixtures have the shape (batch, 1, 1).

    Returns
    -------
    torch.Tensor
        Shape (batch, source, time).

    Example
    -------
    >>> keep_some(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[4.0]]), dry=0.5)
    tensor([[[2.5000],
             [1.5000]]])
    """
    estimates = _checked(estimates, mixture)
    speech = torch.lerp(estimates[:, :1], mixture.unsqueeze(1), dry)
    return torch.cat([speech, (1 - dry) * estimates[:, 1:]], dim=1)


class Learned(nn.Module):
    """Learn the share of each source.

    Arguments
    ---------
    num_sources : int
        Number of sources; the shares are equal at first.

    Example
    -------
    >>> consistency = Learned(num_sources=2)
    >>> consistency(torch.zeros(1, 2, 3), torch.ones(1, 3)).sum(1)
    tensor([[1., 1., 1.]], grad_fn=<SumBackward1>)
    """

    def __init__(self, num_sources):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_sources))

    def forward(self, estimates, mixture):
        """Make estimates (batch, source, time) sum to a mixture (batch, time)."""
        estimates = _checked(estimates, mixture)
        if estimates.shape[1] != len(self.logits):
            raise ValueError(
                f"learned consistency has shares for {len(self.logits)} sources, but "
                f"{estimates.shape[1]} are estimated: set num_sources accordingly"
            )
        return _share_out(estimates, mixture, self.logits.softmax(0).unsqueeze(-1))


def _share_out(estimates, mixture, shares):
    difference = mixture.unsqueeze(1) - estimates.sum(1, keepdim=True)
    return estimates + shares * difference


def _checked(estimates, mixture):
    """Check the shapes; half precision would not sum to the mixture."""
    if estimates.dim() != 3 or mixture.shape != estimates[:, 0].shape:
        raise ValueError(
            "mixture consistency needs estimates of shape (batch, source, time) and a "
            f"mixture of shape (batch, time), got {tuple(estimates.shape)} and "
            f"{tuple(mixture.shape)}"
        )
    return at_least_float32(estimates, mixture)[0]
