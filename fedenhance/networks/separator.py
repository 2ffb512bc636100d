"""A separator made of an encoder, a mask network and a decoder.

The three parts have the interfaces of SpeechBrain's separation networks, so that
those and the networks of :mod:`fedenhance.networks.sudormrf` swap by YAML.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks import recomputation


class Separator(nn.Module):
    """Separate a mixture into sources of the same length.

    Arguments
    ---------
    encoder : torch.nn.Module
        Maps waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``.
        It pads the input as its stride needs; every length from 1 must work.
    masknet : torch.nn.Module
        Maps the latent to one mask per source, ``(source, batch, channel, frame)``.
    decoder : torch.nn.Module
        Maps the latents of all sources, ``(source, batch, channel, frame)``, to
        waveforms ``(batch, source, time)``. Wrap a decoder of one source in
        :class:`PerSource`.
    masking : bool
        Whether the masks multiply the encoder's latent. If False, the mask network
        gives the latents of the sources itself (direct mapping).
    level : fedenhance.networks.scaling.RunningLevel, optional
        If there is one, the mask network sees each frame divided by it.
    rest : bool
        Whether what the sources leave of the mixture is one more source, the last.

    Example
    -------
    >>> import torch
    >>> from functools import partial
    >>> from fedenhance.networks.blocks import UConvBlock
    >>> from fedenhance.networks.sudormrf import Decoder, Encoder, MaskNet
    >>> block = partial(UConvBlock, channels=16, hidden_channels=32, depth=3)
    >>> separator = Separator(
    ...     Encoder(num_bases=24, kernel_size=21, depth=3),
    ...     MaskNet(3, num_bases=24, channels=16, num_blocks=2, block=block),
    ...     Decoder(num_sources=3, num_bases=24, kernel_size=21),
    ... )
    >>> separator(torch.randn(2, 1237)).shape
    torch.Size([2, 3, 1237])
    """

    def __init__(self, encoder, masknet, decoder, masking=True, level=None, rest=False):
        super().__init__()
        self.encoder = encoder
        self.masknet = masknet
        self.decoder = decoder
        self.masking = masking
        self.level = level
        self.rest = rest

    def forward(self, mixture):
        """Return the waveforms of the sources.

        Arguments
        ---------
        mixture : torch.Tensor
            Mixtures, ``(batch, time)``.

        Returns
        -------
        torch.Tensor
            Estimates of the sources, ``(batch, source, time)``.

        Raises
        ------
        ValueError
            If the mixture is not ``(batch, time)`` or has no samples.
        """
        if mixture.dim() != 2 or mixture.shape[-1] == 0:
            raise ValueError(
                "A separator takes mixtures of shape (batch, time) with time >= 1, "
                f"got {tuple(mixture.shape)}."
            )
        latent = self.encoder(mixture)
        rms = None
        if self.level is not None:
            rms, _ = self.level(latent, self.level.initial_state(latent))
        masks = self.masknet(latent if rms is None else latent / rms)
        factor = latent if self.masking else rms
        if factor is None:
            estimates = self.decoder(masks)
        else:
            estimates = recomputation.masked_then(self.decoder, masks, factor)
        estimates = F.pad(estimates, (0, mixture.shape[-1] - estimates.shape[-1]))
        return add_rest(estimates, mixture) if self.rest else estimates


def add_rest(estimates, mixture):
    """Append what the sources leave of a mixture as one more source.

    Arguments
    ---------
    estimates : torch.Tensor
        ``(batch, source, time)``.
    mixture : torch.Tensor
        ``(batch, time)``.

    Returns
    -------
    torch.Tensor
        ``(batch, source + 1, time)``.

    Example
    -------
    >>> add_rest(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0, 3.0]]))
    tensor([[[1., 2.],
             [2., 1.]]])
    """
    rest = mixture - estimates.sum(1)
    return torch.cat([estimates, rest.unsqueeze(1)], dim=1)


class PaddedEncoder(nn.Module):
    """Pad waveforms with zeros so that an encoder's frames cover every sample.

    For encoders that do not pad: SpeechBrain's drop the samples after the last whole
    frame and fail on inputs shorter than their kernel.

    Arguments
    ---------
    encoder : torch.nn.Module
        Maps ``(batch, time)`` to ``(batch, channel, frame)`` without padding.
    kernel_size : int
        Samples in one frame.
    stride : int
        Samples from one frame to the next.
    min_frames : int
        Frames that the mask network needs; SpeechBrain's Conv-TasNet pads by
        reflection and needs more frames than its largest dilation.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.dual_path import Encoder
    >>> encoder = PaddedEncoder(Encoder(16, out_channels=8), kernel_size=16, stride=8)
    >>> encoder(torch.randn(2, 17)).shape
    torch.Size([2, 8, 2])
    """

    def __init__(self, encoder, kernel_size, stride, min_frames=1):
        super().__init__()
        self.encoder = encoder
        self.stride = stride
        self.min_length = kernel_size + (min_frames - 1) * stride

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to ``(batch, channel, frame)``."""
        missing = self.min_length - mixture.shape[-1]
        padding = missing if missing > 0 else missing % self.stride
        return self.encoder(F.pad(mixture, (0, padding)))


class PerSource(nn.Module):
    """Apply the decoder of one source to every source.

    Arguments
    ---------
    decoder : torch.nn.Module
        Maps ``(batch, channel, frame)`` to ``(batch, time)``, such as SpeechBrain's
        dual-path ``Decoder``.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.dual_path import Decoder
    >>> decoder = PerSource(
    ...     Decoder(in_channels=8, out_channels=1, kernel_size=16, stride=8)
    ... )
    >>> decoder(torch.randn(3, 2, 8, 5)).shape
    torch.Size([2, 3, 48])
    """

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, latents):
        """Map ``(source, batch, channel, frame)`` to ``(batch, source, time)``."""
        num_sources, batch_size = latents.shape[:2]
        waveforms = self.decoder(latents.flatten(0, 1))
        return waveforms.reshape(num_sources, batch_size, -1).transpose(0, 1)
