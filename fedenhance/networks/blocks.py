"""Blocks of the Sudo rm -rf family: what its members' mask networks are made of.

Tensors are ``(batch, frame, channel)``. A block keeps the shape; ``hidden_channels``
are those of its depthwise convolutions at ``depth`` resolutions, each half the one
before.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks import fused, recomputation


def check_positive(**sizes):
    """Refuse a size that is no integer of 1 or more, by its name."""
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be an integer of 1 or more, got {value!r}.")


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
        self.register_parameter("slope", None)
        if num_slopes:
            self.slope = nn.Parameter(torch.full((num_slopes,), 0.25))

    def forward(self, x, num_groups=1):
        """Map ``(batch, frame, num_groups * channels)`` to the same shape."""
        return fused.group_norm(x, self.weight, self.bias, self.slope, num_groups)

    def then(self, operation, x, num_groups=1):
        """Apply an operation to what is normalised, which it does not keep.

        Returns
        -------
        y : torch.Tensor
            As of :meth:`forward`; not to be changed in place.
        output : torch.Tensor
            Of the operation.
        """
        if not (fused.enabled(x) and torch.is_grad_enabled()):
            y = self(x, num_groups)
            return y, operation(y)
        weights = self.weight, self.bias, self.slope
        y, again = fused.recomputable_group_norm(x, *weights, num_groups)
        return y, recomputation.forgetting(operation, y, again)


class PReLU(nn.PReLU):
    """PReLU along the last axis, ``(..., channel)``."""

    def forward(self, x):
        """Map ``(..., channel)`` to the same shape."""
        return fused.prelu(x, self.weight)


def merge(levels):
    """Sum up resolutions ``(batch, frame, channel)``, the finest first."""
    merged = levels.pop()
    while levels:
        merged = fused.upsample_add(merged, levels.pop())
    return merged


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
        check_positive(channels=channels, hidden_channels=hidden_channels, depth=depth)
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
        groups, levels = self.num_groups, []
        hidden, norm = self._per_group(self.expand, x), self.expand_norm
        for conv, following in zip(self.downsample, self.downsample_norm, strict=True):
            level, hidden = norm.then(partial(self._convolve, conv), hidden, groups)
            levels.append(level)
            norm = following
        merged = merge([*levels[1:], norm(hidden, groups)])
        _, reduced = self.merge_norm.then(
            partial(self._per_group, self.reduce), merged, groups
        )
        return reduced

    def _convolve(self, conv, x):
        geometry = conv.stride[0], conv.padding[0], self.num_groups
        return fused.depthwise_conv(x, conv.weight, conv.bias, *geometry)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        return x + self.transform(x)


class NormalizedUConvBlock(UConvBlock):
    """U-ConvBlock of the original member: normalised, PReLUs with many slopes.

    Its sizes are named as those of :class:`UConvBlock`.

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

    Its sizes are named as those of :class:`UConvBlock`.

    Example
    -------
    >>> CausalUConvBlock(4, 8, depth=3)(torch.randn(2, 16, 4)).shape
    torch.Size([2, 16, 4])
    """

    def __init__(self, channels, hidden_channels, depth):
        super().__init__()
        check_positive(channels=channels, hidden_channels=hidden_channels, depth=depth)
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
        return self.add(x, merge(levels))

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
        update = recomputation.framewise(communicate, groups, *weights)
        return x + self.norm(update.flatten(2), self.num_groups)


def communicate(x, *weights):
    """Return the update of each group (Luo et al., ICASSP 2021, eqs. 3 to 5).

    Arguments
    ---------
    x : torch.Tensor
        Groups of channels, ``(frame, group, channel)``.
    *weights : torch.Tensor
        Weight, bias and PReLU's slope of the three layers: transform, average,
        concatenate.

    Returns
    -------
    torch.Tensor
        As ``x``.
    """

    def layer(x, weight, bias, slope):
        return fused.prelu(F.linear(x, weight, bias), slope)

    own = layer(x, *weights[:3])
    shared = layer(own.mean(1), *weights[3:6])
    weight, bias, slope = weights[6:]
    for_own, for_shared = weight.chunk(2, dim=1)
    shared = F.linear(shared, for_shared, bias)
    update = F.linear(own, for_own) + shared.unsqueeze(1)
    return fused.prelu(update, slope)


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
        sizes = {"channels": channels, "hidden_channels": hidden_channels}
        check_positive(**sizes, depth=depth, num_groups=num_groups)
        for key, value in sizes.items():
            if value % num_groups:
                raise ValueError(
                    f"{key} must be divisible by num_groups, got {value} and "
                    f"{num_groups}."
                )
        channels //= num_groups
        hidden_channels //= num_groups
        self.tac = TransformAverageConcatenate(channels, 3 * channels, num_groups)
        self.block = UConvBlock(channels, hidden_channels, depth, num_groups)

    def forward(self, x):
        """Map ``(batch, frame, channel)`` to the same shape."""
        return self.block(self.tac(x))
