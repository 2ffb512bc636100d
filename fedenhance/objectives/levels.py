"""Ratios of levels in dB: SI-SDR, SNR, and the losses made of them.

``si_sdr`` and ``snr`` are metrics, higher is better; a loss is lower for a better
estimate. No result depends on the level of the audio: every small constant is relative
to the power of the signals at hand. Half-precision inputs are reduced in float32.

References
----------
Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 (SI-SDR).
Wisdom et al., "Unsupervised sound separation using mixture invariant training",
NeurIPS 2020 (thresholded SNR).
"""

import functools
import math

import torch


def of_inner_products(loss):
    """Mark a loss that depends on its signals only through inner products.

    ``mixit`` and ``supervised`` evaluate a marked loss on short vectors instead of
    audio. A loss that is not marked, such as one on spectrograms, is evaluated on
    the audio of every assignment: correct for any loss, but slow.
    """
    loss.of_inner_products = True
    return loss


@of_inner_products
def si_sdr(estimates, targets):
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019).

    A silent estimate scores worse than any other; so does any estimate of a silent
    target, for which SI-SDR is undefined. In float32 values lie within +-138 dB.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates, shape (..., time).
    targets : torch.Tensor
        Targets, of the same shape; either may lack leading dimensions.

    Returns
    -------
    torch.Tensor
        SI-SDR in dB, higher is better, shape (...).

    Example
    -------
    >>> target = torch.tensor([1.0, 0.0])
    >>> si_sdr(torch.tensor([10.0, 1.0]), target)
    tensor(20.)
    """
    estimates, targets = _matching(estimates, targets)
    target_power = energy(targets)
    scale = (estimates * targets).sum(-1) / (
        target_power + torch.finfo(targets.dtype).tiny
    )
    projections = scale.unsqueeze(-1) * targets
    silent = (energy(estimates) == 0).to(targets)
    distortion = energy(estimates - projections) + silent
    return _decibels(energy(projections), distortion)


@of_inner_products
def snr(estimates, targets):
    """Signal-to-noise ratio in dB, higher is better.

    Arguments and returns are those of :func:`si_sdr`.

    Example
    -------
    >>> snr(torch.tensor([0.9, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(20.0000)
    """
    return -thresholded_snr_loss(estimates, targets, snr_max=math.inf)


@of_inner_products
def si_sdr_loss(estimates, targets):
    """Negative ``si_sdr``."""
    return -si_sdr(estimates, targets)


@of_inner_products
def clamped_si_sdr_loss(estimates, targets, si_sdr_max=30.0):
    """Negative ``si_sdr`` within limits, beyond which there is no gradient.

    As in the baseline of the CHiME-7 UDASE task (Leglaive et al., CHiME 2023).

    Arguments
    ---------
    estimates, targets : torch.Tensor
        As of :func:`si_sdr`.
    si_sdr_max : float
        The limit in dB, and with a minus the other one.

    Returns
    -------
    torch.Tensor
        Loss in dB, shape (...).

    Example
    -------
    >>> target = torch.tensor([1.0, 0.0])
    >>> clamped_si_sdr_loss(target, target)
    tensor(-30.)
    """
    return si_sdr_loss(estimates, targets).clamp(-si_sdr_max, si_sdr_max)


@of_inner_products
def snr_loss(estimates, targets):
    """Negative ``snr``."""
    return -snr(estimates, targets)


@of_inner_products
def thresholded_snr_loss(estimates, targets, snr_max=30.0):
    """Negative SNR with a soft maximum (Wisdom et al., NeurIPS 2020, equation 2).

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates, shape (..., time).
    targets : torch.Tensor
        Targets, of the same shape; either may lack leading dimensions. A silent one
        gives a large but finite loss without a gradient; ``mixit`` and ``supervised``
        do better, for they know the mixture.
    snr_max : float
        The SNR in dB beyond which a better estimate gains little.

    Returns
    -------
    torch.Tensor
        Loss in dB, at least ``-snr_max``, shape (...).

    Example
    -------
    >>> target = torch.tensor([1.0, 0.0])
    >>> thresholded_snr_loss(target, target, snr_max=30.0)
    tensor(-30.)
    """
    estimates, targets = _matching(estimates, targets)
    power = energy(targets)
    error = energy(estimates - targets)
    return _decibels(error + 10 ** (-snr_max / 10) * power, power)


def depends_on_inner_products(loss):
    """Whether a loss, or what a partial of it calls, is marked so."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return getattr(loss, "of_inner_products", False)


def at_least_float32(*signals):
    """Bring signals to the widest of their types, float32 or wider."""
    dtype = functools.reduce(
        torch.promote_types, (s.dtype for s in signals), torch.float32
    )
    return [signal.to(dtype) for signal in signals]


def energy(signals):
    """Sum of squares over time, shape (...)."""
    return signals.square().sum(-1)


def floor(power):
    """What keeps a ratio finite: far below a power, and above zero."""
    limits = torch.finfo(power.dtype)
    return limits.eps**2 * power + limits.tiny


def _decibels(numerator, denominator):
    """10 log10 of a power ratio; finite for any powers, and independent of level."""
    added = floor(numerator + denominator)
    return 10 * torch.log10((numerator + added) / (denominator + added))


def _matching(estimates, targets):
    """Check that one shape ends in the other; reduce half precision in float32."""
    common = min(estimates.dim(), targets.dim())
    if common == 0 or estimates.shape[-common:] != targets.shape[-common:]:
        raise ValueError(
            f"estimates of shape {tuple(estimates.shape)} and targets of shape "
            f"{tuple(targets.shape)} do not match"
        )
    return at_least_float32(estimates, targets)
