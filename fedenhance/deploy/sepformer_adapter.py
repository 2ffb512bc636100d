"""A separator in the shape of SpeechBrain's ``SepformerSeparation``.

That interface multiplies the encoder's latent by a mask for each source and decodes the
product, one source at a time. Ours scales the mixture, separates it and makes the
estimates sum to it; three parts carry that through the product: a latent of ones and
the mixture, masks whose first channel is the estimate, and a decoder that takes it.
"""

import torch
from torch import nn

from fedenhance.networks.scaling import separate


class MixtureEncoder(nn.Module):
    """Put a channel of ones before the mixture.

    Example
    -------
    >>> MixtureEncoder()(torch.tensor([[3.0, 4.0]]))
    tensor([[[1., 1.],
             [3., 4.]]])
    """

    def forward(self, mixture):
        """Map ``(batch, time)`` to ``(batch, 2, time)``."""
        return torch.stack([torch.ones_like(mixture), mixture], dim=1)


class EstimateMasks(nn.Module):
    """Separate the mixture; the masks of the ones are the estimates.

    Arguments
    ---------
    separator : torch.nn.Module
        ``(batch, time) -> (batch, source, time)``.
    consistency : callable or None
        ``(estimates, mixture) -> estimates``, of :mod:`fedenhance.objectives`.

    Example
    -------
    >>> halve = lambda mixture: torch.stack([mixture / 2, mixture / 2], dim=1)
    >>> latent = MixtureEncoder()(torch.tensor([[3.0, -3.0]]))
    >>> masks = EstimateMasks(halve)(latent)
    >>> (masks * latent)[:, 0, 0]
    tensor([[ 1.5000, -1.5000],
            [ 1.5000, -1.5000]])
    """

    def __init__(self, separator, consistency=None):
        super().__init__()
        self.separator = separator
        self.consistency = consistency

    def forward(self, latent):
        """Map ``(batch, 2, time)`` to ``(source, batch, 2, time)``."""
        estimates = separate(self.separator, latent[:, 1], self.consistency)
        estimates = estimates.transpose(0, 1)
        return torch.stack([estimates, torch.zeros_like(estimates)], dim=2)


class EstimateDecoder(nn.Module):
    """Take the first channel.

    Example
    -------
    >>> EstimateDecoder()(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]))
    tensor([[1., 2.]])
    """

    def forward(self, latent):
        """Map ``(batch, 2, time)`` to ``(batch, time)``."""
        return latent[:, 0]
