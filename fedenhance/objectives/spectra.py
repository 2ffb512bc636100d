"""Losses on spectra whose magnitudes are compressed, as loudness is.

A signal-to-noise ratio is decided by what is loud. Where magnitudes are raised to a
power of about 0.3, soft consonants and high frequencies count as well.

References
----------
Ephrat et al., "Looking to listen at the cocktail party", ACM Transactions on Graphics
2018 (power-law compression of spectra).
Braun and Tashev, "A consolidated view of loss functions for supervised deep
learning-based speech enhancement", TSP 2021 (magnitudes together with complex values).
"""

import torch

from fedenhance.objectives.levels import at_least_float32, thresholded_snr_loss


def compressed_spectrum_loss(
    estimates, targets, fft_length=512, exponent=0.3, snr_max=30.0
):
    """Negative SNR of compressed spectra, of magnitudes and of complex values alike.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimates, shape (..., time).
    targets : torch.Tensor
        Targets, of the same shape.
    fft_length : int
        Samples in a Hann window; the hop is half of it.
    exponent : float
        Of the magnitudes.
    snr_max : float
        In dB, see ``fedenhance.objectives.levels.thresholded_snr_loss``.

    Returns
    -------
    torch.Tensor
        Mean of the two losses in dB, at least ``-snr_max``, shape (...).

    Example
    -------
    >>> target = torch.sin(torch.arange(1024.0)).unsqueeze(0)
    >>> compressed_spectrum_loss(target, target)
    tensor([-30.])
    """
    estimates, targets = torch.broadcast_tensors(*at_least_float32(estimates, targets))
    power = targets.square().mean(-1).reshape(-1, 1)
    (magnitudes, spectra), (true_magnitudes, true_spectra) = (
        _compressed(signals, fft_length, exponent, power)
        for signals in (estimates, targets)
    )
    loss = thresholded_snr_loss(magnitudes, true_magnitudes, snr_max)
    loss = loss + thresholded_snr_loss(spectra, true_spectra, snr_max)
    return loss.div(2).reshape(targets.shape[:-1])


def _compressed(signals, fft_length, exponent, power):
    """Magnitudes and complex values of the compressed spectra, (signal, value) each."""
    spectra = torch.stft(
        signals.reshape(-1, signals.shape[-1]),
        fft_length,
        hop_length=fft_length // 2,
        window=torch.hann_window(fft_length, device=signals.device),
        return_complex=True,
    )
    spectra = torch.view_as_real(spectra).flatten(1, -2)
    # Bins 60 dB below the mean of the target are as good as silent.
    floor = 1e-6 * power * fft_length / 4 + torch.finfo(power.dtype).tiny
    magnitudes = (spectra.square().sum(-1) + floor).pow(exponent / 2)
    compressed = spectra * magnitudes.pow(1 - 1 / exponent).unsqueeze(-1)
    return magnitudes, compressed.flatten(1)


def snr_and_spectrum_loss(estimates, targets, weight=0.5, **settings):
    """Negative SNR of waveforms and of compressed spectra.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        Shape (..., time).
    weight : float
        Of the spectra; the rest is the waveforms'.
    **settings
        As for :func:`compressed_spectrum_loss`.

    Returns
    -------
    torch.Tensor
        Weighted mean in dB, shape (...).
    """
    waveforms = thresholded_snr_loss(estimates, targets)
    spectra = compressed_spectrum_loss(estimates, targets, **settings)
    return (1 - weight) * waveforms + weight * spectra
