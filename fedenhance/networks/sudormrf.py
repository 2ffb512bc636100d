"""The Sudo rm -rf family of separation networks.

An encoder, a mask network and a decoder make up the
:class:`fedenhance.networks.separator.Separator` of each member of the family. The
block of :mod:`fedenhance.networks.blocks` in its mask network is what tells a member
from the others (``hparams/models/sudormrf_*.yaml``):

==========  ====================  ====================================================
original    NormalizedUConvBlock  Tzinis et al., "Sudo rm -rf: Efficient networks for
                                  universal audio source separation", MLSP 2020; with
                                  an :class:`OriginalMaskNet`
improved    UConvBlock            Tzinis et al., "Compute and memory efficient
                                  universal sound source separation", J. Signal
                                  Processing Systems 2022
groupcomm   GroupCommBlock        the same, with group communication (Luo et al.,
                                  "Ultra-lightweight speech separation via group
                                  communication", ICASSP 2021)
causal      CausalUConvBlock      the improved member for streaming
==========  ====================  ====================================================

Their sizes are named alike: ``num_bases`` filters in the encoder, ``channels`` between
blocks, ``hidden_channels`` in a block, ``depth`` resolutions in a block, each half the
one before.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks.blocks import Norm, PReLU, check_positive


def _check(kernel_size, **sizes):
    check_positive(kernel_size=kernel_size, **sizes)
    if kernel_size % 2 == 0 or kernel_size == 1:
        raise ValueError(
            "kernel_size must be odd and at least 3, so that half of it is a whole "
            f"hop, got {kernel_size}."
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
        _check(kernel_size, num_bases=num_bases, depth=depth)
        self.hop = kernel_size // 2
        self.depth = depth
        self.minimal_padding = minimal_padding
        self.conv = nn.Conv1d(1, num_bases, kernel_size, stride=self.hop, bias=bias)
        if not bias:
            nn.init.xavier_uniform_(self.conv.weight)
        self.activation = activation or nn.Identity()

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
        return self.activation(latent).transpose(1, 2)


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
        self.frame_length = kernel_size
        self.context = kernel_size - 1
        # A frame is complete with its first sample, and synthesised over two hops.
        self.delay, self.latency = self.hop, self.hop + 1
        self.stride = self.hop * 2 ** (depth - 1)
        self.conv = nn.Conv1d(
            1, num_bases, 2 * kernel_size - 1, stride=self.hop, bias=False
        )
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, mixture):
        """Map waveforms ``(batch, time)`` to a latent ``(batch, channel, frame)``."""
        missing = self.padded_length(mixture.shape[-1]) - mixture.shape[-1]
        return self.transform(F.pad(mixture, (self.context, missing)))

    def transform(self, x):
        """Transform samples of which the first ``context`` are the past's."""
        frames = x.unfold(-1, self.frame_length, self.hop)
        weight = self.conv.weight[:, 0, : self.frame_length]
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
        _check(kernel_size, num_sources=num_sources, num_bases=num_bases)
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

    def initial_state(self, latent):
        """Return silent frames, before a signal."""
        kernel_size = self.conv.kernel_size[0]
        return latent.new_zeros(len(latent), 2, self.num_sources, kernel_size)

    def join(self, frames, past):
        """Sum up the next frames of a signal, if any, as far as they are complete.

        Arguments
        ---------
        frames : torch.Tensor or None
            As :meth:`synthesize` makes them.
        past : torch.Tensor
            The two frames before them.

        Returns
        -------
        waveforms : torch.Tensor
            ``(batch, source, frame * hop)``.
        past : torch.Tensor
        """
        frames = past if frames is None else torch.cat([past, frames], dim=1)
        # A block of output needs the frames before and after its own.
        hop = self.conv.stride[0]
        return self.overlap_add(frames)[..., hop:-hop], frames[:, -2:]

    def finish(self, past):
        """Return the waveforms of the last hop, which no frame follows."""
        return self.overlap_add(past)[..., self.conv.stride[0] :]

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


class MaskNet(nn.Module):
    """Bottleneck, blocks and masks.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent.
    channels : int
        Channels between blocks.
    num_blocks : int
        Blocks.
    block : Callable
        Makes a block, which maps ``(batch, frame, channels)`` to the same shape: a
        class of :mod:`fedenhance.networks.blocks` with sizes (``!name:`` in YAML).
    normalize : bool
        Whether to normalise the latent.
    activation : torch.nn.Module, optional
        Of the masks; ReLU by default.

    Example
    -------
    >>> from functools import partial
    >>> from fedenhance.networks.blocks import UConvBlock
    >>> block = partial(UConvBlock, channels=16, hidden_channels=32, depth=3)
    >>> masknet = MaskNet(3, num_bases=24, channels=16, num_blocks=2, block=block)
    >>> masknet(torch.randn(2, 24, 8)).shape
    torch.Size([3, 2, 24, 8])
    """

    def __init__(
        self,
        num_sources,
        num_bases,
        channels,
        num_blocks,
        block,
        normalize=True,
        activation=None,
    ):
        super().__init__()
        check_positive(num_sources=num_sources, num_bases=num_bases)
        check_positive(channels=channels, num_blocks=num_blocks)
        # The blocks draw their weights first.
        blocks = [block() for _ in range(num_blocks)]
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
        # Rows of a matrix: of more axes PyTorch returns a view, which ReLU would change
        # in place at the cost of three copies in the backward pass.
        rows = self.mask_linear(self.mask_act(x).flatten(0, 1))
        masks = self.activation(rows).view(*x.shape[:2], self.num_sources, -1)
        return masks.permute(2, 0, 3, 1)


class OriginalMaskNet(nn.Module):
    """Mask network of the original member: a filter along the bases for each source.

    Arguments
    ---------
    num_sources : int
        Sources.
    num_bases : int
        Channels of the latent, even.
    channels : int
        Channels between blocks.
    num_blocks : int
        Blocks.
    block : Callable
        Makes a block, as for :class:`MaskNet`.

    Example
    -------
    >>> from functools import partial
    >>> from fedenhance.networks.blocks import NormalizedUConvBlock
    >>> block = partial(NormalizedUConvBlock, 16, hidden_channels=32, depth=3)
    >>> masknet = OriginalMaskNet(3, 24, channels=16, num_blocks=2, block=block)
    >>> bool(masknet(torch.randn(2, 24, 8)).sum(0).allclose(torch.ones(())))
    True
    """

    def __init__(self, num_sources, num_bases, channels, num_blocks, block):
        super().__init__()
        check_positive(num_sources=num_sources, num_bases=num_bases)
        check_positive(channels=channels, num_blocks=num_blocks)
        if num_bases % 2:
            raise ValueError(f"num_bases must be even, got {num_bases}.")
        self.norm = Norm(num_bases)
        self.bottleneck = nn.Linear(num_bases, channels)
        self.blocks = nn.Sequential(*(block() for _ in range(num_blocks)))
        same = channels == num_bases
        self.reshape = nn.Identity() if same else nn.Linear(channels, num_bases)
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
        margin = num_bases // 2 - 1
        filters = F.pad(self.mask_conv.weight.flatten(1), (margin, margin))
        toeplitz = filters.unfold(1, num_bases, 1).flip(1)
        scores = F.linear(x, toeplitz.flatten(0, 1))
        return scores.unflatten(2, (-1, num_bases)) + self.mask_conv.bias[:, None]
