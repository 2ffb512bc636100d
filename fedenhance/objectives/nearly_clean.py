"""How much of a nearly clean mixture is better left in its speech."""

import torch
import torch.nn.functional as F

FRAME = 0.02
"""Seconds of a frame in which somebody speaks, or pauses."""


def share_of(speech, mixture, sample_rate, clean_above):
    """What share of each mixture should stay in its speech, see :func:`clean_share`.

    Arguments
    ---------
    speech, mixture : torch.Tensor
        The estimated speech and what it was estimated from, (batch, time).
    sample_rate : int
        In Hz.
    clean_above : float
        In dB.

    Returns
    -------
    torch.Tensor
        Shape (batch, 1, 1).

    Example
    -------
    >>> mixture = torch.ones(2, 320)
    >>> speech = torch.tensor([[0.5], [0.999]]) * mixture
    >>> share_of(speech, mixture, 16000, clean_above=24.0).flatten().round(decimals=3)
    tensor([0., 1.])
    """
    frame = round(FRAME * sample_rate)
    parts = torch.stack([speech, mixture - speech])
    parts = F.pad(parts, (0, -parts.shape[-1] % frame))
    speech, rest = parts.square().unflatten(-1, (-1, frame)).mean(-1)
    mean = speech.mean(-1, keepdim=True)
    weights = pauses(speech, mean)
    noise = (weights * rest).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return clean_share(mean, noise, clean_above).unsqueeze(-1)


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
