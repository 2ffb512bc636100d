"""The level of a mixture, taken away before a separator and given back after it."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class RunningLevel(nn.Module):
    """The level that a latent has had so far, for networks that run on a stream.

    Power is averaged over the channels of a frame, and over the frames until then with
    weights that decay exponentially into the past; those of the first frames are not
    taken for silence.

    Arguments
    ---------
    num_frames : int
        Time constant of the average in frames.
    floor : float
        Added to the power, so that silence stays silent.

    Example
    -------
    >>> level = RunningLevel(num_frames=4)
    >>> latent = torch.tensor([[[2.0, 2.0, 0.0]]])
    >>> rms, state = level(latent, level.initial_state(latent))
    >>> rms.round(decimals=3)
    tensor([[[2.0000, 2.0000, 1.5070]]])
    """

    def __init__(self, num_frames, floor=1e-10):
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames must be 1 or more, got {num_frames}.")
        self.decay = 1 - 1 / num_frames
        self.floor = floor
        # What is older weighs less than float32 resolves.
        self.num_steps = math.ceil(math.log2(num_frames * 20))

    def initial_state(self, latent):
        """Return the sums before a signal, ``(2, batch)``."""
        return latent.new_zeros(2, len(latent), dtype=torch.float32)

    def forward(self, latent, state):
        """Map ``(batch, channel, frame)`` to root mean squares ``(batch, 1, frame)``.

        Arguments
        ---------
        latent : torch.Tensor
        state : torch.Tensor
            What the frames before have left.

        Returns
        -------
        rms, state : torch.Tensor
        """
        power = latent.float().square().mean(1)
        sums = torch.stack([power, torch.ones_like(power)])  # (2, batch, frame)
        num_frames = power.shape[-1]
        # Each step doubles the number of frames that are summed up.
        for step in range(self.num_steps):
            if isinstance(num_frames, int) and 2**step >= num_frames:
                break
            earlier = F.pad(sums, (2**step, 0))[..., :num_frames]
            sums = sums + self.decay**2**step * earlier
        exponents = torch.arange(1, num_frames + 1, device=latent.device)
        sums = sums + self.decay**exponents * state.unsqueeze(-1)
        mean = sums[0] / sums[1]
        return (mean + self.floor).sqrt().unsqueeze(1), sums[..., -1]


def levels_itself(separator):
    """Tell whether a separator, or the one it wraps, follows the level by itself."""
    network = getattr(separator, "network", separator)
    return isinstance(network, nn.Module) and any(
        isinstance(module, RunningLevel) for module in network.modules()
    )


def separate(separator, mixture, consistency=None, eps=1e-8):
    """Apply a separator to mixtures of any level.

    The network sees a mixture of zero mean and unit variance; its estimates are scaled
    back, and made to sum to the mixture. A network with a :class:`RunningLevel` sees
    the mixture as it is: mean and variance of the whole are not known on a stream.

    Arguments
    ---------
    separator : torch.nn.Module
        ``(batch, time) -> (batch, source, time)``.
    mixture : torch.Tensor
        ``(batch, time)``.
    consistency : callable or None
        ``(estimates, mixture) -> estimates``, of :mod:`fedenhance.objectives`.
    eps : float
        Added to the standard deviation, so that silence stays silent.

    Returns
    -------
    torch.Tensor
        ``(batch, source, time)``, in the mixture's scale.

    Raises
    ------
    ValueError
        If the mixture is not ``(batch, time)``.

    Example
    -------
    >>> double = lambda mixture: torch.stack([mixture, mixture], dim=1)
    >>> separate(double, torch.tensor([[3.0, -3.0]]), eps=0)
    tensor([[[ 3., -3.],
             [ 3., -3.]]])
    """
    if mixture.dim() != 2:
        raise ValueError(f"mixture must be (batch, time), not {tuple(mixture.shape)}")
    if levels_itself(separator):
        estimates = separator(mixture)
        return consistency(estimates, mixture) if consistency else estimates
    mixture = mixture - mixture.mean(-1, keepdim=True)
    # A single sample deviates from nothing: 0, not NaN.
    correction = min(1, mixture.shape[-1] - 1)
    scale = mixture.std(-1, keepdim=True, correction=correction) + eps
    estimates = separator(mixture / scale) * scale.unsqueeze(1)
    return consistency(estimates, mixture) if consistency else estimates
