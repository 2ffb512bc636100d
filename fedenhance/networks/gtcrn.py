"""GTCRN: a causal mask network of a few ten thousand parameters for speech enhancement.

Rong, Sun, Zhang, Hu, Zhu and Lu, "GTCRN: a speech enhancement model requiring
ultra-low computational resources", ICASSP 2024. Between
:class:`fedenhance.networks.spectrum.SpectralEncoder` and ``SpectralDecoder``, the high
frequencies are merged to bands on the ERB scale; convolutions along frequency, grouped
convolutions along time with attention, and grouped recurrent networks along frequency
and time find a complex mask for each source but the last, which is what they leave of
the mixture. ``hparams/models/gtcrn.yaml`` has the sizes of the paper.

Tensors are ``(batch, frame, band, channel)``. What frames leave for the next is a
state: a list of tensors that :meth:`MaskNet.initial_state` begins and
:meth:`MaskNet.step` takes and returns, so that a stream and a whole signal are computed
alike.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks.blocks import PReLU, check_positive
from fedenhance.networks.recurrent import GRU
from fedenhance.networks.spectrum import Bands


class BandConv(nn.Module):
    """Convolution along the bands, batch normalisation and an activation.

    Arguments
    ---------
    in_channels, out_channels : int
        Channels.
    num_groups : int
        Groups of channels.
    transposed : bool
        Whether it doubles the bands, all but one, instead of halving them.
    activation : torch.nn.Module, optional
        PReLU by default.

    Example
    -------
    >>> BandConv(4, 8)(torch.randn(2, 5, 9, 4)).shape
    torch.Size([2, 5, 5, 8])
    >>> BandConv(8, 4, transposed=True)(torch.randn(2, 5, 5, 8)).shape
    torch.Size([2, 5, 9, 4])
    """

    def __init__(
        self, in_channels, out_channels, num_groups=1, transposed=False, activation=None
    ):
        super().__init__()
        conv = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv = conv(
            in_channels, out_channels, (1, 5), (1, 2), (0, 2), groups=num_groups
        )
        self.norm = Norm(out_channels)
        self.activation = activation or PReLU()

    def forward(self, x):
        """Map ``(batch, frame, band, channel)`` to other bands and channels."""
        return self.activation(self.norm(channels_last(self.conv, x)))


class Norm(nn.BatchNorm2d):
    """Batch normalisation of ``(batch, frame, band, channel)``."""

    def forward(self, x):
        """Map ``(batch, frame, band, channel)`` to the same shape."""
        return channels_last(super().forward, x)


def channels_last(layer, x):
    """Apply a layer of images, whose channels come first, to ``(..., channel)``."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GroupedTemporalBlock(nn.Module):
    """Grouped temporal convolution: half of the channels is convolved, then shuffled.

    Arguments
    ---------
    channels : int
        Channels of input and output, even.
    hidden_channels : int
        Channels of the depthwise convolution.
    dilation : int
        Frames from one of its three taps in time to the next.

    Example
    -------
    >>> block = GroupedTemporalBlock(8, hidden_channels=8, dilation=2)
    >>> y, *_ = block(torch.randn(2, 5, 9, 8), *block.initial_state(2, num_bands=9))
    >>> y.shape
    torch.Size([2, 5, 9, 8])
    """

    def __init__(self, channels, hidden_channels, dilation):
        super().__init__()
        check_positive(channels=channels, hidden_channels=hidden_channels)
        check_positive(dilation=dilation)
        half = channels // 2
        self.context = 2 * dilation
        self.expand = nn.Conv2d(half, hidden_channels, (1, 3), padding=(0, 1))
        self.expand_norm = Norm(hidden_channels)
        self.expand_act = PReLU()
        self.depthwise = nn.Conv2d(
            hidden_channels,
            hidden_channels,
            (3, 3),
            padding=(0, 1),
            dilation=(dilation, 1),
            groups=hidden_channels,
        )
        self.depthwise_norm = Norm(hidden_channels)
        self.depthwise_act = PReLU()
        self.reduce = nn.Linear(hidden_channels, half)
        self.reduce_norm = Norm(half)
        self.attention = TemporalAttention(half)

    def initial_state(self, batch_size, num_bands):
        """Return the frames before the signal and the attention's state."""
        channels = self.depthwise.in_channels
        past = self.depthwise.weight.new_zeros(
            batch_size, self.context, num_bands, channels
        )
        return [past, self.attention.initial_state(batch_size)]

    def forward(self, x, past, state):
        """Map ``(batch, frame, band, channel)`` and a state to the same shape.

        Returns
        -------
        y, past, state : torch.Tensor
        """
        x, rest = x.chunk(2, dim=-1)
        x = self.expand_act(self.expand_norm(channels_last(self.expand, x)))
        x = torch.cat([past, x], dim=1)
        past = x[:, -self.context :]
        x = channels_last(self.depthwise, x)
        x = self.depthwise_act(self.depthwise_norm(x))
        x, state = self.attention(self.reduce_norm(self.reduce(x)), state)
        return torch.stack([x, rest], dim=-1).flatten(-2), past, state


class TemporalAttention(nn.Module):
    """Weigh channels by a recurrent network on their power in each frame.

    Arguments
    ---------
    channels : int
        Channels.

    Example
    -------
    >>> attention = TemporalAttention(4)
    >>> y, state = attention(torch.randn(2, 5, 9, 4), attention.initial_state(2))
    >>> y.shape
    torch.Size([2, 5, 9, 4])
    """

    def __init__(self, channels):
        super().__init__()
        self.gru = GRU(channels, 2 * channels)
        self.linear = nn.Linear(2 * channels, channels)

    def initial_state(self, batch_size):
        """Return the recurrent network's state, ``(1, batch, 2 * channel)``."""
        return self.gru.initial_state(batch_size)

    def forward(self, x, state):
        """Map ``(batch, frame, band, channel)`` and a state to the same shape."""
        power = x.square().mean(2).transpose(0, 1).contiguous()
        weights, state = self.gru(power, state)
        weights = self.linear(weights).sigmoid().transpose(0, 1)
        return x * weights.unsqueeze(2), state


class DualPath(nn.Module):
    """Grouped recurrent networks along the bands, both ways, and along the frames.

    Arguments
    ---------
    channels : int
        Channels of input and output, even.
    num_bands : int
        Bands.

    Example
    -------
    >>> block = DualPath(8, num_bands=9)
    >>> y, state = block(torch.randn(2, 5, 9, 8), *block.initial_state(2))
    >>> y.shape
    torch.Size([2, 5, 9, 8])
    """

    def __init__(self, channels, num_bands):
        super().__init__()
        self.num_bands = num_bands
        self.intra = GRU(channels, channels // 2, num_groups=2, bidirectional=True)
        self.intra_linear = nn.Linear(channels, channels)
        self.intra_norm = nn.LayerNorm((num_bands, channels), eps=1e-8)
        self.inter = GRU(channels, channels, num_groups=2)
        self.inter_linear = nn.Linear(channels, channels)
        self.inter_norm = nn.LayerNorm((num_bands, channels), eps=1e-8)

    def initial_state(self, batch_size):
        """Return the state along the frames, ``(1, batch * band, channel)``."""
        return [self.inter.initial_state(batch_size * self.num_bands)]

    def forward(self, x, state):
        """Map ``(batch, frame, band, channel)`` and a state to the same shape."""
        batch_size, num_frames = x.shape[:2]
        along_bands = x.permute(2, 0, 1, 3).flatten(1, 2).contiguous()
        start = self.intra.initial_state(batch_size * num_frames)
        y, _ = self.intra(along_bands, start)
        y = self.intra_linear(y).unflatten(1, (batch_size, num_frames))
        x = x + self.intra_norm(y.permute(1, 2, 0, 3))
        along_frames = x.transpose(0, 1).flatten(1, 2).contiguous()
        y, state = self.inter(along_frames, state)
        y = self.inter_linear(y).unflatten(1, (batch_size, self.num_bands))
        return x + self.inter_norm(y.transpose(0, 1)), state


class MaskNet(nn.Module):
    """Find what belongs to each source in a spectrum.

    All sources but the last have a complex mask; the last is what they leave.

    Arguments
    ---------
    num_sources : int
        Sources, at least 2.
    fft_length : int
        Samples in a frame.
    sample_rate : int
        In Hz.
    num_low_bins, num_bands : int
        Bins that stay as they are, and ERB bands above them; their sum is one more
        than a multiple of 4.
    channels : int
        Channels between blocks, even.
    hidden_channels : int
        Channels of the depthwise convolutions.
    dilations : list of int
        Of the convolutions along time before the recurrent networks; after them they
        come again in reverse.
    num_blocks : int
        Dual-path blocks.

    Example
    -------
    >>> masknet = MaskNet(
    ...     2, fft_length=16, sample_rate=16000, num_low_bins=5, num_bands=4,
    ...     channels=4, hidden_channels=4, dilations=[1, 2], num_blocks=1,
    ... )
    >>> latent = torch.randn(2, 18, 5)
    >>> torch.allclose(masknet(latent).sum(0), latent, atol=1e-6)
    True
    """

    def __init__(
        self,
        num_sources,
        fft_length,
        sample_rate,
        num_low_bins,
        num_bands,
        channels,
        hidden_channels,
        dilations,
        num_blocks,
    ):
        super().__init__()
        check_positive(num_blocks=num_blocks, channels=channels)
        check_positive(num_low_bins=num_low_bins, num_bands=num_bands)
        if not isinstance(num_sources, int) or num_sources < 2:
            raise ValueError(f"num_sources must be 2 or more, got {num_sources!r}.")
        if channels % 4:
            raise ValueError(f"channels must be divisible by 4, got {channels}.")
        total = num_low_bins + num_bands
        if total % 4 != 1:
            raise ValueError(
                "num_low_bins + num_bands must be one more than a multiple of 4, so "
                f"that they halve twice, got {num_low_bins} + {num_bands}."
            )
        self.num_sources = num_sources
        self.num_bands = total // 4 + 1  # in the blocks
        self.bands = Bands(fft_length, num_low_bins, num_bands, sample_rate)
        self.analysis = nn.ModuleList(
            [BandConv(9, channels), BandConv(channels, channels, num_groups=2)]
        )

        def temporal(dilation):
            return GroupedTemporalBlock(channels, hidden_channels, dilation)

        self.before = nn.ModuleList(map(temporal, dilations))
        self.dual_path = nn.ModuleList(
            DualPath(channels, self.num_bands) for _ in range(num_blocks)
        )
        self.after = nn.ModuleList(map(temporal, reversed(dilations)))
        self.synthesis = nn.ModuleList(
            [
                BandConv(channels, channels, num_groups=2, transposed=True),
                BandConv(
                    channels,
                    2 * (num_sources - 1),
                    transposed=True,
                    activation=nn.Tanh(),
                ),
            ]
        )

        self._start_equal()

    @torch.no_grad()
    def _start_equal(self):
        """Let every source start as about its share of the mixture."""
        norm = self.synthesis[-1].norm
        norm.weight.fill_(0.1)
        norm.bias[::2] = math.atanh(1 / self.num_sources)  # real parts

    def initial_state(self, batch_size):
        """Return what stands for the frames before a signal, a list of tensors."""
        states = [
            state
            for block in [*self.before, *self.after]
            for state in block.initial_state(batch_size, self.num_bands)
        ]
        for block in self.dual_path:
            states += block.initial_state(batch_size)
        return states

    def forward(self, latent):
        """Map ``(batch, channel, frame)`` to ``(source, batch, channel, frame)``."""
        sources, _ = self.step(latent, self.initial_state(len(latent)))
        return sources

    def step(self, latent, states):
        """Map the next frames of a latent to those of the sources.

        Arguments
        ---------
        latent : torch.Tensor
            Spectra, ``(batch, channel, frame)``.
        states : list of torch.Tensor
            What the frames before have left.

        Returns
        -------
        sources : torch.Tensor
            ``(source, batch, channel, frame)``.
        states : list of torch.Tensor
        """
        states = iter(states)
        spectrum = latent.transpose(1, 2).unflatten(2, (-1, 2)).transpose(2, 3)
        x, temporal, recurrent = self.features(spectrum), [], []
        skips = []
        for layer in self.analysis:
            x = layer(x)
            skips.append(x)
        for block in self.before:
            x, *state = block(x, next(states), next(states))
            temporal += state
            skips.append(x)
        after = [(next(states), next(states)) for _ in self.after]
        for block in self.dual_path:
            x, state = block(x, next(states))
            recurrent.append(state)
        for block, state in zip(self.after, after, strict=True):
            x, *state = block(x + skips.pop(), *state)
            temporal += state
        for layer in self.synthesis:
            x = layer(x + skips.pop())
        masks = self.bands.spread(x.transpose(2, 3))
        return apply_masks(masks, spectrum), temporal + recurrent

    def features(self, spectrum):
        """Map ``(batch, frame, part, bin)`` to ``(batch, frame, band, channel)``.

        The channels are magnitude, real and imaginary part, each with the bands below
        and above it.
        """
        magnitude = (spectrum.square().sum(2, keepdim=True) + 1e-12).sqrt()
        x = self.bands.merge(torch.cat([magnitude, spectrum], dim=2))
        return (
            F.pad(x, (1, 1))
            .unfold(-1, x.shape[-1], 1)
            .permute(0, 1, 4, 2, 3)
            .flatten(3)
        )


def apply_masks(masks, spectrum):
    """Multiply a spectrum by complex masks; the last source is the rest.

    Arguments
    ---------
    masks : torch.Tensor
        ``(batch, frame, (source - 1) * 2, bin)``.
    spectrum : torch.Tensor
        ``(batch, frame, 2, bin)``.

    Returns
    -------
    torch.Tensor
        ``(source, batch, bin * 2, frame)``.
    """
    mask_real, mask_imag = masks.unflatten(2, (-1, 2)).unbind(3)
    real, imag = spectrum.unsqueeze(2).unbind(3)
    found = torch.stack(
        [real * mask_real - imag * mask_imag, imag * mask_real + real * mask_imag], -1
    )  # (batch, frame, source - 1, bin, 2)
    rest = spectrum.transpose(2, 3).unsqueeze(2) - found.sum(2, keepdim=True)
    sources = torch.cat([found, rest], dim=2)
    return sources.flatten(3).permute(2, 0, 3, 1)
