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


def clean_share(speech, noise, clean_above, slope=0.46):
    """What share of a mixture should stay in its speech, for it is nearly clean.

    A network has faults, whose level follows the speech's; noise that is softer than
    them is better left where it is. By the network's own estimates the mixture has a
    signal-to-noise ratio; the share is the logistic function of it.

    Arguments
    ---------
    speech, noise : torch.Tensor
        Mean powers of the estimated speech, and of what it leaves of the mixture in its
        pauses, (...); see :func:`pauses`.
    clean_above : float
        Ratio in dB at which half of the mixture stays.
    slope : float
        Of the logistic function, for each dB.

    Returns
    -------
    torch.Tensor
        In (0, 1), (...).

    Example
    -------
    >>> clean_share(torch.tensor([1.0, 1.0]), torch.tensor([0.01, 0.0001]), 20.0)
    tensor([0.5000, 0.9999])
    """
    ratio = 10 * torch.log10((speech + 1e-12) / (noise + 1e-12))
    return torch.sigmoid(slope * (ratio - clean_above))


def pauses(powers, mean):
    """How much frames are pauses of the speech: 1/2 at 20 dB below its mean power.

    What a network takes from a mixture while somebody speaks may be noise, or a fault
    of its own; in pauses it is noise.

    Arguments
    ---------
    powers : torch.Tensor
        Of the estimated speech in each frame, (..., frame).
    mean : torch.Tensor
        (..., 1) or a number.

    Returns
    -------
    torch.Tensor
        In (0, 1], (..., frame).

    Example
    -------
    >>> pauses(torch.tensor([0.0, 0.01, 1.0]), 1.0)
    tensor([1.0000e+00, 5.0000e-01, 9.9990e-05])
    """
    return 1 / (1 + (powers / (0.01 * mean + 1e-12)).square())


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
