"""The Sudo rm -rf family of separation networks.

Four members share their blocks, each as an encoder, a mask network and a decoder for
:class:`local_modules.separator.Separator`:

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

EPS = 1e-8


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
        self.conv = nn.Conv1d(
            1, num_bases, kernel_size, stride=self.hop, padding=self.hop, bias=bias
        )
        if not bias:
            nn.init.xavier_uniform_(self.conv.weight)
        self.activation = activation

    def padded_length(self, length):
        """Return the number of samples that ``length`` samples are padded to."""
        stride = self.hop * 2**self.depth
        if self.minimal_padding:
            smaller = math.lcm(self.hop, 2**self.depth)
            frames = math.ceil(length / smaller) * smaller // self.hop
            if frames % 2 ** (self.depth - 1) == 0:
                stride = smaller
        return math.ceil(length / stride) * stride

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``."""
        length = mixture.shape[-1]
        padded = F.pad(mixture, (0, self.padded_length(length) - length))
        latent = self.conv(padded.unsqueeze(1))
        return latent if self.activation is None else self.activation(latent)


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
        hop = kernel_size // 2
        self.conv = nn.ConvTranspose1d(
            num_sources * num_bases,
            num_sources,
            kernel_size,
            stride=hop,
            padding=hop,
            output_padding=hop - 1,
            groups=num_sources if grouped else 1,
            bias=grouped,
        )
        if not grouped:
            nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, latents):
        """Map ``(source, batch, channel, frame)`` to ``(batch, source, time)``."""
        return self.conv(latents.transpose(0, 1).flatten(1, 2))


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

    Example
    -------
    >>> UConvBlock(channels=4, hidden_channels=8, depth=3)(torch.randn(2, 4, 16)).shape
    torch.Size([2, 4, 16])
    """

    def __init__(self, channels, hidden_channels, depth):
        super().__init__()
        self.expand = nn.Conv1d(channels, hidden_channels, 1)
        self.expand_norm = nn.GroupNorm(1, hidden_channels, eps=EPS)
        self.expand_act = nn.PReLU()
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
            nn.GroupNorm(1, hidden_channels, eps=EPS) for _ in range(depth)
        )
        self.merge_norm = nn.GroupNorm(1, hidden_channels, eps=EPS)
        self.merge_act = nn.PReLU()
        self.reduce = nn.Conv1d(hidden_channels, channels, 1)

    def forward(self, x):
        """Map ``(batch, channel, frame)`` to the same shape."""
        hidden = self.expand_act(self.expand_norm(self.expand(x)))
        levels = []
        for conv, norm in zip(self.downsample, self.downsample_norm, strict=True):
            hidden = norm(conv(hidden))
            levels.append(hidden)
        merged = levels.pop()
        while levels:
            merged = levels.pop() + F.interpolate(merged, scale_factor=2)
        return x + self.reduce(self.merge_act(self.merge_norm(merged)))


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

    Example
    -------
    >>> tac = TransformAverageConcatenate(channels=4, hidden_channels=12)
    >>> tac(torch.randn(2, 3, 4, 16)).shape
    torch.Size([2, 3, 4, 16])
    """

    def __init__(self, channels, hidden_channels):
        super().__init__()
        self.transform = nn.Linear(channels, hidden_channels)
        self.transform_act = nn.PReLU()
        self.average = nn.Linear(hidden_channels, hidden_channels)
        self.average_act = nn.PReLU()
        self.concatenate = nn.Linear(2 * hidden_channels, channels)
        self.concatenate_act = nn.PReLU()
        self.norm = nn.GroupNorm(1, channels, eps=EPS)

    def forward(self, x):
        """Map ``(batch, group, channel, frame)`` to the same shape."""
        own = self.transform_act(
            self.transform.weight @ x + self.transform.bias[:, None]
        )
        shared = self.average_act(
            self.average.weight @ own.mean(1) + self.average.bias[:, None]
        )
        from_own, from_shared = self.concatenate.weight.chunk(2, dim=1)
        shared = from_shared @ shared + self.concatenate.bias[:, None]
        update = self.concatenate_act(from_own @ own + shared.unsqueeze(1))
        return x + self.norm(update.flatten(0, 1)).view_as(x)


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
    >>> block(torch.randn(2, 16, 8)).shape
    torch.Size([2, 16, 8])
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
        self.num_groups = num_groups
        group_channels = channels // num_groups
        self.tac = TransformAverageConcatenate(group_channels, 3 * group_channels)
        self.block = UConvBlock(group_channels, hidden_channels // num_groups, depth)

    def forward(self, x):
        """Map ``(batch, channel, frame)`` to the same shape."""
        groups = self.tac(x.unflatten(1, (self.num_groups, -1)))
        return self.block(groups.flatten(0, 1)).view_as(x)


class MaskNet(nn.Module):
    """Bottleneck, blocks and masks of the members that came after the original.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    norm : torch.nn.Module
        Normalises the latent.
    blocks : Iterable of torch.nn.Module
        Each maps ``(batch, channels, frame)`` to the same shape.
    activation : torch.nn.Module
        Of the masks.
    """

    def __init__(self, num_sources, num_bases, channels, norm, blocks, activation):
        super().__init__()
        _check_positive(
            num_sources=num_sources, num_bases=num_bases, channels=channels
        )
        self.num_sources = num_sources
        self.norm = norm
        self.bottleneck = nn.Conv1d(num_bases, channels, 1)
        self.blocks = nn.Sequential(*blocks)
        self.mask_act = nn.PReLU()
        self.mask_conv = nn.Conv1d(channels, num_sources * num_bases, 1)
        self.activation = activation

    def forward(self, latent):
        """Map ``(batch, channel, frame)`` to ``(source, batch, channel, frame)``."""
        x = self.blocks(self.bottleneck(self.norm(latent)))
        masks = self.activation(self.mask_conv(self.mask_act(x)))
        return masks.unflatten(1, (self.num_sources, -1)).transpose(0, 1)


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
        _check_positive(
            num_bases=num_bases,
            channels=channels,
            hidden_channels=hidden_channels,
            num_blocks=num_blocks,
            depth=depth,
        )
        super().__init__(
            num_sources,
            num_bases,
            channels,
            norm=nn.GroupNorm(1, num_bases, eps=EPS),
            blocks=[
                GroupCommBlock(channels, hidden_channels, depth, num_groups)
                for _ in range(num_blocks)
            ],
            activation=nn.ReLU(),
        )
