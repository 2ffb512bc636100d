"""The short-time Fourier transform as a separator's encoder and decoder, and bands.

Frames are two hops long and a hop apart, under the square root of a Hann window in
both directions, so that analysis and synthesis together change nothing. A frame's
complex spectrum is ``fft_length + 2`` channels: real and imaginary part of each bin in
turn, the lowest frequency first.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks.blocks import check_positive


class Spectrum(nn.Module):
    """What the two directions share: the window and the hop.

    Arguments
    ---------
    fft_length : int
        Samples in a frame, even; the hop is half of it.

    Raises
    ------
    ValueError
        If ``fft_length`` is odd.
    """

    def __init__(self, fft_length):
        super().__init__()
        check_positive(fft_length=fft_length)
        if fft_length % 2:
            raise ValueError(f"fft_length must be even, got {fft_length}.")
        self.fft_length = fft_length
        self.hop = fft_length // 2
        self.matrix = None
        window = torch.hann_window(fft_length, dtype=torch.float64).sqrt().float()
        self.register_buffer("window", window, persistent=False)


class SpectralEncoder(Spectrum):
    """Waveforms to spectra.

    The first frame begins a hop before the signal, and zeros follow it, so that two
    frames cover every sample. No frame waits for samples after its own.

    Arguments
    ---------
    fft_length : int
        Samples in a frame, even; the hop is half of it.

    Example
    -------
    >>> SpectralEncoder(fft_length=8)(torch.randn(2, 9)).shape
    torch.Size([2, 10, 4])
    """

    def __init__(self, fft_length):
        super().__init__(fft_length)
        self.frame_length, self.context = fft_length, self.hop
        # A sample is complete with the second frame that it lies in.
        self.delay, self.latency = self.hop, fft_length
        self.stride = self.hop

    def padded_length(self, length):
        """Return the number of samples that ``length`` samples are padded to."""
        return length + -length % self.hop + self.hop

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``."""
        missing = self.padded_length(mixture.shape[-1]) - mixture.shape[-1]
        return self.transform(F.pad(mixture, (self.context, missing)))

    def transform(self, samples):
        """Map samples ``(batch, (frame + 1) * hop)`` to ``(batch, channel, frame)``."""
        # Half precision has no Fourier transform of all lengths.
        with torch.autocast(samples.device.type, enabled=False):
            frames = samples.float().unfold(-1, self.fft_length, self.hop)
            frames = frames * self.window
            if self.matrix is not None:
                return F.linear(frames, self.matrix).transpose(1, 2)
            spectra = torch.fft.rfft(frames)
        return torch.view_as_real(spectra).flatten(-2).transpose(1, 2)

    def use_matrix(self):
        """Compute by a matrix from now on, for runtimes without Fourier transforms."""
        spectra = torch.fft.rfft(torch.eye(self.fft_length, dtype=torch.float64))
        self.matrix = torch.view_as_real(spectra).flatten(-2).T.float().contiguous()


class SpectralDecoder(Spectrum):
    """Spectra to waveforms.

    Arguments
    ---------
    fft_length : int
        Samples in a frame, even; the hop is half of it.

    Example
    -------
    >>> encoder, decoder = SpectralEncoder(8), SpectralDecoder(8)
    >>> mixture = torch.randn(2, 9)
    >>> waveforms = decoder(encoder(mixture).unsqueeze(0))
    >>> torch.allclose(waveforms[:, 0, :9], mixture, atol=1e-6)
    True
    """

    def forward(self, latents):
        """Map ``(source, batch, channel, frame)`` to ``(batch, source, time)``."""
        return self.overlap_add(self.synthesize(latents))

    def synthesize(self, latents):
        """Map ``(source, batch, channel, frame)`` to frames of waveforms.

        Returns
        -------
        torch.Tensor
            ``(batch, source, frame, fft_length)``.
        """
        with torch.autocast(latents.device.type, enabled=False):
            parts = latents.float().permute(1, 0, 3, 2)
            if self.matrix is not None:
                return F.linear(parts, self.matrix) * self.window
            parts = parts.unflatten(-1, (-1, 2)).contiguous()
            spectra = torch.view_as_complex(parts)
            return torch.fft.irfft(spectra, n=self.fft_length) * self.window

    def use_matrix(self):
        """Compute by a matrix from now on, for runtimes without Fourier transforms."""
        parts = torch.eye(self.fft_length + 2, dtype=torch.float64)
        spectra = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
        frames = torch.fft.irfft(spectra, n=self.fft_length)
        self.matrix = frames.T.float().contiguous()

    def initial_state(self, latent):
        """Return half a silent frame, before a signal."""
        return latent.new_zeros(len(latent), 1, self.hop)

    def join(self, frames, past):
        """Sum up the next frames of a signal, if any, as far as they are complete.

        Arguments
        ---------
        frames : torch.Tensor or None
            As :meth:`synthesize` makes them.
        past : torch.Tensor
            The second half of the frame before them.

        Returns
        -------
        waveforms : torch.Tensor
            ``(batch, source, frame * hop)``.
        past : torch.Tensor
        """
        if frames is None:
            return past[..., :0], past
        past = past.expand(-1, frames.shape[1], -1)
        before = F.pad(past, (self.hop, 0)).unsqueeze(2)
        waveforms = self.overlap_add(torch.cat([before, frames], dim=2))
        return waveforms, frames[:, :, -1, self.hop :]

    def finish(self, past):
        """Return no waveforms: the last frame has brought out the last sample."""
        return past[..., :0]

    def overlap_add(self, frames):
        """Sum up frames a hop apart, ``(batch, source, frame, fft_length)``.

        Returns
        -------
        torch.Tensor
            Waveforms, ``(batch, source, (frame - 1) * hop)``, which begin a hop into
            the first frame.
        """
        before, after = frames.unflatten(-1, (2, self.hop)).unbind(-2)
        return (after[..., :-1, :] + before[..., 1:, :]).flatten(-2)


def erb_bands(fft_length, num_low_bins, num_bands, sample_rate):
    """Triangular bands, equally wide on the ERB scale, over the high frequencies.

    Centres are whole bins, from the first bin above the low ones to the last. At each
    bin the bands sum to one. The scale is that of Glasberg and Moore, "Derivation of
    auditory filter shapes from notched-noise data", Hearing Research 1990.

    Arguments
    ---------
    fft_length : int
        Samples in a frame.
    num_low_bins : int
        Bins that belong to no band.
    num_bands : int
        Bands.
    sample_rate : int
        In Hz.

    Returns
    -------
    torch.Tensor
        ``(band, fft_length // 2 + 1 - num_low_bins)``.

    Raises
    ------
    ValueError
        If two bands would have the same centre.

    Example
    -------
    >>> erb_bands(fft_length=16, num_low_bins=4, num_bands=3, sample_rate=16000)
    tensor([[1.0000, 0.5000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.5000, 1.0000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.5000, 1.0000]])
    """
    hertz = sample_rate / fft_length
    edges = torch.tensor([num_low_bins, fft_length / 2], dtype=torch.float64) * hertz
    low, high = torch.log10(1 + 0.00437 * edges).tolist()
    scale = torch.linspace(low, high, num_bands, dtype=torch.float64)
    centres = ((10**scale - 1) / 0.00437 / hertz).round()
    widths = centres.diff()
    if not (widths > 0).all():
        raise ValueError(
            f"num_bands is {num_bands}: above bin {num_low_bins} of {fft_length} "
            "samples some would fall on the same bin; take fewer, or more low bins"
        )
    bins = torch.arange(num_low_bins, fft_length // 2 + 1, dtype=torch.float64)
    from_centre = bins - centres.unsqueeze(1)
    rising = 1 + from_centre[1:] / widths.unsqueeze(1)
    falling = 1 - from_centre[:-1] / widths.unsqueeze(1)
    rising = F.pad(rising, (0, 0, 1, 0), value=1.0)
    falling = F.pad(falling, (0, 0, 0, 1), value=1.0)
    return torch.minimum(rising, falling).clamp(0, 1).float()


class Bands(nn.Module):
    """Merge the high frequencies of a spectrum to ERB bands, and spread them again.

    Arguments are those of :func:`erb_bands`.

    Example
    -------
    >>> bands = Bands(fft_length=16, num_low_bins=4, num_bands=3, sample_rate=16000)
    >>> bands.spread(bands.merge(torch.randn(2, 9))).shape
    torch.Size([2, 9])
    """

    def __init__(self, fft_length, num_low_bins, num_bands, sample_rate):
        super().__init__()
        self.num_low_bins = num_low_bins
        filters = erb_bands(fft_length, num_low_bins, num_bands, sample_rate)
        self.register_buffer("filters", filters, persistent=False)

    def merge(self, x):
        """Map ``(..., bin)`` to ``(..., band)``."""
        low, high = x[..., : self.num_low_bins], x[..., self.num_low_bins :]
        return torch.cat([low, F.linear(high, self.filters.to(x))], dim=-1)

    def spread(self, x):
        """Map ``(..., band)`` to ``(..., bin)``."""
        low, high = x[..., : self.num_low_bins], x[..., self.num_low_bins :]
        return torch.cat([low, F.linear(high, self.filters.T.to(x))], dim=-1)
