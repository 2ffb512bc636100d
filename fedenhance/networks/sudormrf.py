"""The Sudo rm -rf family of separation networks.

Four members share their blocks, each as an encoder, a mask network and a decoder for
:class:`fedenhance.networks.separator.Separator`:

==========  ====================  ====================================================
original    OriginalMaskNet       Tzinis et al., "Sudo rm -rf: Efficient networks for
                                  universal audio source separation", MLSP 2020
improved    ImprovedMaskNet       Tzinis et al., "Compute and memory efficient
                                  universal sound source separation", J. Signal
                                  Processing Systems 2022
groupcomm   GroupCommMaskNet      the same, with group communication (Luo et al.,
                                  "Ultra-lightweight speech separation via group
                                  communication", ICASSP 2021)
causal      CausalMaskNet         the improved member for streaming
==========  ====================  ====================================================

Their sizes are named alike: ``num_bases`` filters in the encoder, ``channels`` between
blocks, ``hidden_channels`` in a block, ``depth`` resolutions in a block, each half the
one before.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks import fused


def _check_positive(**sizes):
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be an integer of 1 or more, got {value!r}.")


def _check_odd(**sizes):
    _check_positive(**sizes)
    for key, value in sizes.items():
        if value % 2 == 0 or value == 1:
            raise ValueError(
                f"{key} must be odd and at least 3, so that half of it is a whole "
                f"hop, got {value}."
            )


class Encoder(nn.Module):
    """Filterbank with a hop of half its kernel, padded to the network's stride.

    Arguments
    ---------
    num_bases : int
        Filters, the channels of the latent.
    kernel_size : int
        Samples in a filter, odd; the hop is ``kernel_size // 2``.
    depth : int
        Resolutions in the mask network's blocks, which need a number of frames that
        halves ``depth - 1`` times.
    bias : bool
        Whether the filters have a bias.
    activation : Callable, optional
        Applied to the latent.
    minimal_padding : bool
        If True, pad to a multiple of ``lcm(hop, 2 ** depth)`` samples where that gives
        frames enough, as the original and the FedEnhance network do; else to a
        multiple of ``hop * 2 ** depth``. The choice is part of the function: padding
        enters the statistics of the normalisation.

    Example
    -------
    >>> Encoder(num_bases=8, kernel_size=21, depth=3)(torch.randn(2, 99)).shape
    torch.Size([2, 8, 12])
    """

    def __init__(
        self,
        num_bases,
        kernel_size,
        depth,
        bias=False,
        activation=None,
        minimal_padding=True,
    ):
        super().__init__()
        _check_positive(num_bases=num_bases, depth=depth)
        _check_odd(kernel_size=kernel_size)
        self.hop = kernel_size // 2
        self.depth = depth
        self.minimal_padding = minimal_padding
        self.conv = nn.Conv1d(1, num_bases, kernel_size, stride=self.hop, bias=bias)
        if not bias:
            nn.init.xavier_uniform_(self.conv.weight)
        self.activation = activation

    def padded_length(self, length):
        """Return the number of samples that ``length`` samples are padded to."""
        stride = self.hop * 2**self.depth
        if self.minimal_padding:
            smaller = math.lcm(self.hop, 2**self.depth)
            frames = -(-length // smaller) * smaller // self.hop
            if frames % 2 ** (self.depth - 1) == 0:
                stride = smaller
        return -(-length // stride) * stride

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``."""
        missing = self.padded_length(mixture.shape[-1]) - mixture.shape[-1]
        padded = F.pad(mixture, (self.hop, self.hop + missing))
        frames = padded.unfold(-1, self.conv.kernel_size[0], self.hop)
        latent = F.linear(frames, self.conv.weight.squeeze(1), self.conv.bias)
        if self.activation is not None:
            latent = self.activation(latent)
        return latent.transpose(1, 2)


class CausalEncoder(Encoder):
    """Filterbank of the causal member: a frame ends where its hop begins.

    Arguments
    ---------
    num_bases : int
        Filters, the channels of the latent.
    kernel_size : int
        Samples in a filter, odd; the hop is ``kernel_size // 2``. As in the authors'
        code, the weights are for ``2 * kernel_size - 1`` samples; those after the
        first ``kernel_size`` would see the future and are not used.
    depth : int
        Resolutions in the mask network's blocks.

    Example
    -------
    >>> CausalEncoder(num_bases=8, kernel_size=21, depth=3)(torch.randn(2, 99)).shape
    torch.Size([2, 8, 16])
    """

    def __init__(self, num_bases, kernel_size, depth):
        super().__init__(num_bases, kernel_size, depth, minimal_padding=False)
        self.kernel_size = kernel_size
        self.conv = nn.Conv1d(
            1, num_bases, 2 * kernel_size - 1, stride=self.hop, bias=False
        )
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``."""
        missing = self.padded_length(mixture.shape[-1]) - mixture.shape[-1]
        return self.convolve(F.pad(mixture, (self.kernel_size - 1, missing)))

    def convolve(self, x):
        """Convolve samples of which the first ``kernel_size - 1`` are the past's."""
        frames = x.unfold(-1, self.kernel_size, self.hop)
        weight = self.conv.weight[:, 0, : self.kernel_size]
        return F.linear(frames, weight).transpose(1, 2)


class Decoder(nn.Module):
    """Overlap-add synthesis, the encoder's counterpart.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of each source's latent.
    kernel_size : int
        Samples in a filter, odd; the hop is ``kernel_size // 2``.
    grouped : bool
        If True, each source has filters of its own and a bias (original member); else
        every source is made of all latents.

    Example
    -------
    >>> decoder = Decoder(num_sources=3, num_bases=8, kernel_size=21)
    >>> decoder(torch.randn(3, 2, 8, 12)).shape
    torch.Size([2, 3, 120])
    """

    def __init__(self, num_sources, num_bases, kernel_size, grouped=False):
        super().__init__()
        _check_positive(num_sources=num_sources, num_bases=num_bases)
        _check_odd(kernel_size=kernel_size)
        self.num_sources = num_sources
        self.grouped = grouped
        self.conv = nn.ConvTranspose1d(
            num_sources * num_bases,
            num_sources,
            kernel_size,
            stride=kernel_size // 2,
            groups=num_sources if grouped else 1,
            bias=grouped,
        )
        if not grouped:
            nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, latents):
        """Map ``(source, batch, channel, frame)`` to ``(batch, source, time)``."""
        waveforms = self.overlap_add(self.synthesize(latents))
        if self.conv.bias is not None:
            waveforms = waveforms + self.conv.bias[:, None]
        return waveforms

    def synthesize(self, latents):
        """Map ``(source, batch, channel, frame)`` to frames of waveforms.

        Arguments
        ---------
        latents : torch.Tensor
            ``(source, batch, channel, frame)``.

        Returns
        -------
        torch.Tensor
            ``(batch, frame, source, kernel_size)``.
        """
        latents = latents.permute(1, 3, 0, 2)
        if self.grouped:
            weight = self.conv.weight.view(*latents.shape[-2:], -1)
            return torch.einsum("btsn,snk->btsk", latents, weight)
        frames = latents.flatten(2) @ self.conv.weight.flatten(1)
        return frames.unflatten(2, (self.num_sources, -1))

    def overlap_add(self, frames):
        """Sum up frames a hop apart.

        Arguments
        ---------
        frames : torch.Tensor
            ``(batch, frame, source, kernel_size)``.

        Returns
        -------
        torch.Tensor
            Waveforms, ``(batch, source, frame * hop)``, which begin a hop into the
            first frame.
        """
        hop = self.conv.stride[0]
        # A frame is two hops and one sample long.
        before, within, after = frames.split([hop, hop, 1], dim=-1)
        blocks = within + F.pad(before[:, 1:], (0, 0, 0, 0, 0, 1))
        after = F.pad(after[:, :-1], (0, hop - 1, 0, 0, 1, 0))
        return (blocks + after).transpose(1, 2).flatten(2)


class Norm(nn.Module):
    """Global layer normalisation, with PReLU after it where it has slopes.

    Arguments
    ---------
    channels : int
        Channels that share mean and variance.
    num_slopes : int
        Slopes of PReLU: 0 for no PReLU, 1, or one for each channel.

    Example
    -------
    >>> Norm(4, num_slopes=1)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 16, 4])
    """

    def __init__(self, channels, num_slopes=0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        slopes = torch.full((num_slopes,), 0.25) if num_slopes else None
        self.register_parameter(
            "slope", None if slopes is None else nn.Parameter(slopes)
        )

    def forward(self, x, num_groups=1):
        """Map ``(batch, frame, num_groups * channels)`` to the same shape."""
        return fused.group_norm(x, self.weight, self.bias, self.slope, num_groups)


class PReLU(nn.PReLU):
    """PReLU along the last axis, ``(..., channel)``."""

    def forward(self, x):
        """Map ``(..., channel)`` to the same shape."""
        return fused.prelu(x, self.weight)


class UConvBlock(nn.Module):
    """Analyse at successively halved resolutions, then sum them up again.

    Arguments
    ---------
    channels : int
        Channels of input and output.
    hidden_channels : int
        Channels of the depthwise convolutions.
    depth : int
        Resolutions.
    num_groups : int
        Groups of channels which share the weights; the input has ``num_groups *
        channels`` channels.
    num_slopes : int
        Slopes of each PReLU: 1 or ``hidden_channels``.

    Example
    -------
    >>> UConvBlock(channels=4, hidden_channels=8, depth=3)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 16, 4])
    """

    def __init__(self, channels, hidden_channels, depth, num_groups=1, num_slopes=1):
        super().__init__()
        self.num_groups = num_groups
        self.expand = nn.Linear(channels, hidden_channels)
        self.expand_norm = Norm(hidden_channels, num_slopes)
        self.downsample = nn.ModuleList(
            nn.Conv1d(
                hidden_channels,
                hidden_channels,
                5,
                stride=1 if level == 0 else 2,
                padding=2,
                groups=hidden_channels,
            )
            for level in range(depth)
        )
        self.downsample_norm = nn.ModuleList(
            Norm(hidden_channels) for _ in range(depth)
        )
        self.merge_norm = Norm(hidden_channels, num_slopes)
        self.reduce = nn.Linear(hidden_channels, channels)

    def _per_group(self, linear, x):
        return linear(x.unflatten(2, (self.num_groups, -1))).flatten(2)

    def transform(self, x):
        """Return what :meth:`forward` adds to its input."""
        hidden = self._per_group(self.expand, x)
        hidden = self.expand_norm(hidden, self.num_groups)
        levels = []
        for conv, norm in zip(self.downsample, self.downsample_norm, strict=True):
            hidden = fused.depthwise_conv(
                hidden,
                conv.weight,
                conv.bias,
                conv.stride[0],
                conv.padding[0],
                self.num_groups,
            )
            hidden = norm(hidden, self.num_groups)
            levels.append(hidden)
        merged = levels.pop()
        while levels:
            merged = fused.upsample_add(merged, levels.pop())
        merged = self.merge_norm(merged, self.num_groups)
        return self._per_group(self.reduce, merged)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        return self.transform(x).add_(x)


class NormalizedUConvBlock(UConvBlock):
    """U-ConvBlock of the original member: normalised, PReLUs with many slopes.

    Arguments
    ---------
    channels : int
        Channels of input and output.
    hidden_channels : int
        Channels of the depthwise convolutions.
    depth : int
        Resolutions.

    Example
    -------
    >>> NormalizedUConvBlock(4, 8, depth=3)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 16, 4])
    """

    def __init__(self, channels, hidden_channels, depth):
        super().__init__(channels, hidden_channels, depth, num_slopes=hidden_channels)
        self.reduce_norm = Norm(channels)
        self.output_norm = Norm(channels, num_slopes=channels)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        return self.output_norm(x + self.reduce_norm(self.transform(x)))


class CausalUConvBlock(nn.Module):
    """U-ConvBlock without future: causal convolutions and no normalisation.

    Arguments
    ---------
    channels : int
        Channels of input and output.
    hidden_channels : int
        Channels of the depthwise convolutions.
    depth : int
        Resolutions.

    Example
    -------
    >>> CausalUConvBlock(4, 8, depth=3)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 16, 4])
    """

    def __init__(self, channels, hidden_channels, depth):
        super().__init__()
        self.skip_gain = nn.Parameter(torch.zeros(()))
        self.expand = nn.Linear(channels, hidden_channels)
        self.expand_act = PReLU()
        self.downsample = nn.ModuleList(
            CausalDepthwiseConv(
                hidden_channels, kernel_size=21, stride=1 if level == 0 else 2
            )
            for level in range(depth)
        )
        self.downsample_act = nn.ModuleList(PReLU() for _ in range(depth))
        self.reduce = nn.Linear(hidden_channels, channels)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        hidden = self.expand_act(self.expand(x))
        levels = []
        for conv, act in zip(self.downsample, self.downsample_act, strict=True):
            hidden = act(conv(hidden))
            levels.append(hidden)
        merged = levels.pop()
        while levels:
            merged = fused.upsample_add(merged, levels.pop())
        return self.add(x, merged)

    def add(self, x, merged):
        """Add the merged resolutions ``(batch, frame, channel)`` to the input."""
        return x + self.skip_gain * self.reduce(merged)


class CausalDepthwiseConv(nn.Module):
    """Depthwise convolution of the present and past frames.

    Arguments
    ---------
    channels : int
        Channels.
    kernel_size : int
        Taps, odd. As in the authors' code, the taps after the middle one would see
        the future and are not used; they are kept so that weights can be exchanged.
    stride : int
        Hop of the output's frames.

    Example
    -------
    >>> CausalDepthwiseConv(4, kernel_size=21, stride=2)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 8, 4])
    """

    def __init__(self, channels, kernel_size, stride):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel_size, stride, groups=channels)
        self.context = kernel_size // 2

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to ``(batch, frame / stride, channel)``."""
        return self.convolve(F.pad(x, (0, 0, self.context, 0)))

    def convolve(self, x):
        """Convolve frames of which the first ``context`` are the past's."""
        weight = self.conv.weight[..., : self.context + 1]
        return fused.depthwise_conv(x, weight, self.conv.bias, self.conv.stride[0])


class TransformAverageConcatenate(nn.Module):
    """Let groups of channels share what they hold (group communication).

    Each group is transformed, the groups' average is transformed, and both give the
    update of each group, frame by frame.

    Arguments
    ---------
    channels : int
        Channels of one group.
    hidden_channels : int
        Channels of the transforms.
    num_groups : int
        Groups.

    Example
    -------
    >>> tac = TransformAverageConcatenate(4, hidden_channels=12, num_groups=3)
    >>> tac(torch.randn(2, 16, 12)).shape
    torch.Size([2, 16, 12])
    """

    def __init__(self, channels, hidden_channels, num_groups):
        super().__init__()
        self.num_groups = num_groups
        self.transform = nn.Linear(channels, hidden_channels)
        self.transform_act = PReLU()
        self.average = nn.Linear(hidden_channels, hidden_channels)
        self.average_act = PReLU()
        self.concatenate = nn.Linear(2 * hidden_channels, channels)
        self.concatenate_act = PReLU()
        self.norm = Norm(channels)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        layers = [self.transform, self.transform_act, self.average, self.average_act]
        layers += [self.concatenate, self.concatenate_act]
        weights = [weight for layer in layers for weight in layer.parameters()]
        groups = x.unflatten(2, (self.num_groups, -1))
        update = fused.framewise(communicate, groups, *weights)
        return x + self.norm(update.flatten(2), self.num_groups)


def communicate(
    x,
    transform,
    transform_bias,
    transform_slope,
    average,
    average_bias,
    average_slope,
    concatenate,
    concatenate_bias,
    concatenate_slope,
):
    """Return the update of each group (Luo et al., ICASSP 2021, eqs. 3 to 5).

    Arguments
    ---------
    x : torch.Tensor
        Groups of channels, ``(frame, group, channel)``.
    transform, average, concatenate : torch.Tensor
        Weights of the three linear layers.
    transform_bias, average_bias, concatenate_bias : torch.Tensor
        Their biases.
    transform_slope, average_slope, concatenate_slope : torch.Tensor
        Slopes of the PReLU after each.

    Returns
    -------
    torch.Tensor
        As ``x``.
    """
    own = fused.prelu(F.linear(x, transform, transform_bias), transform_slope)
    shared = F.linear(own.mean(1), average, average_bias)
    shared = fused.prelu(shared, average_slope)
    for_own, for_shared = concatenate.chunk(2, dim=1)
    shared = F.linear(shared, for_shared, concatenate_bias)
    update = F.linear(own, for_own).add_(shared.unsqueeze(1))
    return fused.prelu(update, concatenate_slope)


class GroupCommBlock(nn.Module):
    """Group communication, then one U-ConvBlock for all groups of channels.

    Arguments
    ---------
    channels : int
        Channels of input and output, over all groups.
    hidden_channels : int
        Channels of the depthwise convolutions, over all groups.
    depth : int
        Resolutions.
    num_groups : int
        Groups.

    Example
    -------
    >>> block = GroupCommBlock(16, hidden_channels=32, depth=3, num_groups=4)
    >>> block(torch.randn(2, 8, 16)).shape
    torch.Size([2, 8, 16])
    """

    def __init__(self, channels, hidden_channels, depth, num_groups):
        super().__init__()
        _check_positive(num_groups=num_groups)
        for key, value in [
            ("channels", channels),
            ("hidden_channels", hidden_channels),
        ]:
            if value % num_groups:
                raise ValueError(
                    f"{key} must be divisible by num_groups, got {value} and "
                    f"{num_groups}."
                )
        group_channels = channels // num_groups
        self.tac = TransformAverageConcatenate(
            group_channels, 3 * group_channels, num_groups
        )
        self.block = UConvBlock(
            group_channels, hidden_channels // num_groups, depth, num_groups
        )

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        return self.block(self.tac(x))


class MaskNet(nn.Module):
    """Bottleneck, blocks and masks; the members' mask networks build on it.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    blocks : Iterable of torch.nn.Module
        Each maps ``(batch, frame, channels)`` to the same shape.
    normalize : bool
        Whether to normalise the latent.
    activation : torch.nn.Module, optional
        Of the masks; ReLU by default.
    """

    def __init__(
        self, num_sources, num_bases, channels, blocks, normalize=True, activation=None
    ):
        super().__init__()
        self.num_sources = num_sources
        self.norm = Norm(num_bases) if normalize else nn.Identity()
        self.bottleneck = nn.Linear(num_bases, channels)
        self.blocks = nn.Sequential(*blocks)
        self.mask_act = PReLU()
        self.mask_linear = nn.Linear(channels, num_sources * num_bases)
        self.activation = activation or nn.ReLU(inplace=True)

    def forward(self, latent):
        """Map ``(batch, channel, frame)`` to ``(source, batch, channel, frame)``."""
        # Channels are the last axis in memory from here to the decoder.
        x = latent.transpose(1, 2).contiguous()
        return self.masks(self.blocks(self.bottleneck(self.norm(x))))

    def masks(self, x):
        """Map ``(batch, frame, channels)`` to ``(source, batch, channel, frame)``."""
        masks = self.activation(self.mask_linear(self.mask_act(x)))
        return masks.unflatten(2, (self.num_sources, -1)).permute(2, 0, 3, 1)


class OriginalMaskNet(nn.Module):
    """Mask network of the original member.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent, even.
    channels : int
        Channels between blocks.
    hidden_channels : int
        Channels in a block.
    num_blocks : int
        Blocks.
    depth : int
        Resolutions in a block.

    Example
    -------
    >>> masknet = OriginalMaskNet(
    ...     num_sources=3, num_bases=24, channels=16, hidden_channels=32,
    ...     num_blocks=2, depth=3,
    ... )
    >>> bool(masknet(torch.randn(2, 24, 8)).sum(0).allclose(torch.ones(())))
    True
    """

    def __init__(
        self, num_sources, num_bases, channels, hidden_channels, num_blocks, depth
    ):
        super().__init__()
        _check_positive(num_sources=num_sources, num_bases=num_bases, depth=depth)
        _check_positive(
            channels=channels, hidden_channels=hidden_channels, num_blocks=num_blocks
        )
        if num_bases % 2:
            raise ValueError(f"num_bases must be even, got {num_bases}.")
        self.norm = Norm(num_bases)
        self.bottleneck = nn.Linear(num_bases, channels)
        self.blocks = nn.Sequential(
            *(
                NormalizedUConvBlock(channels, hidden_channels, depth)
                for _ in range(num_blocks)
            )
        )
        self.reshape = (
            nn.Identity() if channels == num_bases else nn.Linear(channels, num_bases)
        )
        self.mask_conv = nn.Conv2d(
            1, num_sources, (num_bases + 1, 1), padding=(num_bases // 2, 0)
        )
        # In the authors' network and never used; here to exchange weights.
        self.unused_norm = Norm(num_bases).requires_grad_(False)

    def forward(self, latent):
        """Map ``(batch, channel, frame)`` to ``(source, batch, channel, frame)``."""
        x = latent.transpose(1, 2).contiguous()
        x = self.reshape(self.blocks(self.bottleneck(self.norm(x))))
        scores = self.convolve_bases(x)
        masks = scores.sigmoid() if scores.shape[2] == 1 else scores.softmax(2)
        return masks.permute(2, 0, 3, 1)

    def convolve_bases(self, x):
        """Convolve along the bases with a filter for each source.

        The filter is longer than there are bases, so the product with its Toeplitz
        matrix costs no more than the convolution.

        Arguments
        ---------
        x : torch.Tensor
            ``(batch, frame, base)``.

        Returns
        -------
        torch.Tensor
            ``(batch, frame, source, base)``.
        """
        num_bases = x.shape[-1]
        filters = F.pad(
            self.mask_conv.weight.flatten(1), (num_bases // 2 - 1, num_bases // 2 - 1)
        )
        toeplitz = filters.unfold(1, num_bases, 1).flip(1)
        scores = F.linear(x, toeplitz.flatten(0, 1))
        return scores.unflatten(2, (-1, num_bases)) + self.mask_conv.bias[:, None]


class ImprovedMaskNet(MaskNet):
    """Mask network of the improved member (Sudo rm -rf++).

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    hidden_channels : int
        Channels in a block.
    num_blocks : int
        Blocks.
    depth : int
        Resolutions in a block.

    Example
    -------
    >>> masknet = ImprovedMaskNet(
    ...     num_sources=3, num_bases=24, channels=16, hidden_channels=32,
    ...     num_blocks=2, depth=3,
    ... )
    >>> masknet(torch.randn(2, 24, 8)).shape
    torch.Size([3, 2, 24, 8])
    """

    def __init__(
        self, num_sources, num_bases, channels, hidden_channels, num_blocks, depth
    ):
        _check_positive(num_sources=num_sources, num_bases=num_bases, depth=depth)
        _check_positive(
            channels=channels, hidden_channels=hidden_channels, num_blocks=num_blocks
        )
        blocks = [
            UConvBlock(channels, hidden_channels, depth) for _ in range(num_blocks)
        ]
        super().__init__(num_sources, num_bases, channels, blocks)


class GroupCommMaskNet(MaskNet):
    """Mask network of the group communication member (FedEnhance's network).

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    hidden_channels : int
        Channels in a block.
    num_blocks : int
        Blocks.
    depth : int
        Resolutions in a block.
    num_groups : int
        Groups of channels, which share the weights of a block.

    Example
    -------
    >>> masknet = GroupCommMaskNet(
    ...     num_sources=3, num_bases=24, channels=16, hidden_channels=32,
    ...     num_blocks=2, depth=3, num_groups=4,
    ... )
    >>> masknet(torch.randn(2, 24, 8)).shape
    torch.Size([3, 2, 24, 8])
    """

    def __init__(
        self,
        num_sources,
        num_bases,
        channels,
        hidden_channels,
        num_blocks,
        depth,
        num_groups,
    ):
        _check_positive(num_sources=num_sources, num_bases=num_bases, depth=depth)
        _check_positive(
            channels=channels, hidden_channels=hidden_channels, num_blocks=num_blocks
        )
        blocks = [
            GroupCommBlock(channels, hidden_channels, depth, num_groups)
            for _ in range(num_blocks)
        ]
        super().__init__(num_sources, num_bases, channels, blocks)


class CausalMaskNet(MaskNet):
    """Network of the causal member, which gives latents and not masks.

    Its separator has ``masking: False`` and a :class:`CausalEncoder`.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    hidden_channels : int
        Channels in a block.
    num_blocks : int
        Blocks.
    depth : int
        Resolutions in a block.

    Example
    -------
    >>> masknet = CausalMaskNet(
    ...     num_sources=3, num_bases=24, channels=16, hidden_channels=32,
    ...     num_blocks=2, depth=3,
    ... )
    >>> masknet(torch.randn(2, 24, 8)).shape
    torch.Size([3, 2, 24, 8])
    """

    def __init__(
        self, num_sources, num_bases, channels, hidden_channels, num_blocks, depth
    ):
        _check_positive(num_sources=num_sources, num_bases=num_bases, depth=depth)
        _check_positive(
            channels=channels, hidden_channels=hidden_channels, num_blocks=num_blocks
        )
        blocks = [
            CausalUConvBlock(channels, hidden_channels, depth)
            for _ in range(num_blocks)
        ]
        super().__init__(
            num_sources,
            num_bases,
            channels,
            blocks,
            normalize=False,
            activation=PReLU(),
        )
