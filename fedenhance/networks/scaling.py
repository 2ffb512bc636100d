"""The level of a mixture, taken away before a separator and given back after it."""


def separate(separator, mixture, consistency=None, eps=1e-8):
    """Apply a separator to mixtures of any level.

    The network sees a mixture of zero mean and unit variance; its estimates are scaled
    back, and made to sum to the mixture.

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
    >>> import torch
    >>> double = lambda mixture: torch.stack([mixture, mixture], dim=1)
    >>> separate(double, torch.tensor([[3.0, -3.0]]), eps=0)
    tensor([[[ 3., -3.],
             [ 3., -3.]]])
    """
    if mixture.dim() != 2:
        raise ValueError(f"mixture must be (batch, time), not {tuple(mixture.shape)}")
    mixture = mixture - mixture.mean(-1, keepdim=True)
    # A single sample deviates from nothing: 0, not NaN.
    correction = min(1, mixture.shape[-1] - 1)
    scale = mixture.std(-1, keepdim=True, correction=correction) + eps
    estimates = separator(mixture / scale) * scale.unsqueeze(1)
    return consistency(estimates, mixture) if consistency else estimates
