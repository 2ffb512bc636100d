"""Separation of a signal while it arrives, with the causal Sudo rm -rf."""

import torch

from fedenhance.networks.blocks import CausalUConvBlock
from fedenhance.networks.sudormrf import CausalEncoder


class StreamingSeparator:
    """Run a causal separator on a signal that arrives bit by bit.

    The estimates are those of the separator on the whole signal. The state is bounded:
    the samples and frames that a kernel reaches back to, however long the signal.

    Arguments
    ---------
    separator : fedenhance.networks.separator.Separator
        With a ``CausalEncoder``, and ``CausalUConvBlock`` in its mask network
        (``hparams/models/sudormrf_causal.yaml``).
    batch_size : int
        Signals that arrive together.

    Raises
    ------
    ValueError
        If the separator is not causal.

    Example
    -------
    >>> from functools import partial
    >>> from fedenhance.networks.separator import Separator
    >>> from fedenhance.networks.sudormrf import Decoder, MaskNet
    >>> block = partial(CausalUConvBlock, channels=4, hidden_channels=8, depth=3)
    >>> separator = Separator(
    ...     CausalEncoder(num_bases=8, kernel_size=21, depth=3),
    ...     MaskNet(2, 8, channels=4, num_blocks=1, block=block, normalize=False),
    ...     Decoder(num_sources=2, num_bases=8, kernel_size=21),
    ...     masking=False,
    ... )
    >>> stream = StreamingSeparator(separator)
    >>> mixture = torch.randn(1, 100)
    >>> estimates = [stream.push(samples) for samples in mixture.split(32, dim=1)]
    >>> [part.shape[-1] for part in estimates]
    [30, 30, 30, 0]
    >>> stream.flush().shape
    torch.Size([1, 2, 10])
    """

    def __init__(self, separator, batch_size=1):
        masknet = separator.masknet
        if not (
            isinstance(separator.encoder, CausalEncoder)
            and all(isinstance(b, CausalUConvBlock) for b in masknet.blocks)
            and isinstance(masknet.norm, torch.nn.Identity)
        ):
            raise ValueError(
                "Only a separator with a CausalEncoder, CausalUConvBlocks and no "
                "normalisation can run on a stream, such as that of "
                "models/sudormrf_causal.yaml."
            )
        self.separator = separator
        self.batch_size = batch_size
        self.reset()

    @property
    def latency(self):
        """Samples from one arriving until its estimate leaves, at most."""
        return self.separator.encoder.hop + 1

    def reset(self):
        """Forget the signal so far."""
        encoder, decoder = self.separator.encoder, self.separator.decoder
        weight = encoder.conv.weight
        frame = (self.batch_size, 2, decoder.num_sources, decoder.conv.kernel_size[0])
        self.samples = weight.new_zeros(self.batch_size, encoder.kernel_size - 1)
        self.frames = weight.new_zeros(frame)
        self.blocks = [
            _BlockStream(block, self.batch_size)
            for block in self.separator.masknet.blocks
        ]
        self.num_received = self.num_returned = 0
        # The first frame begins a hop before the signal.
        self.num_to_skip = encoder.hop

    @torch.no_grad()
    def push(self, samples):
        """Take samples and return the estimates that are complete.

        Arguments
        ---------
        samples : torch.Tensor
            The next samples, any number of them, ``(batch, time)``.

        Returns
        -------
        torch.Tensor
            The next estimates, ``(batch, source, time)``, at most ``latency`` samples
            behind.
        """
        if samples.dim() != 2 or samples.shape[0] != self.batch_size:
            raise ValueError(
                f"Samples must be ({self.batch_size}, time), got "
                f"{tuple(samples.shape)}."
            )
        self.num_received += samples.shape[1]
        return self._advance(samples)

    @torch.no_grad()
    def flush(self):
        """End the signal: return the estimates left, and start anew."""
        encoder = self.separator.encoder
        length, returned = self.num_received, self.num_returned
        padded = encoder.padded_length(length)
        missing = self.samples.new_zeros(self.batch_size, padded - length)
        rest = self._advance(missing)
        # No frame follows the last one.
        last = self.separator.decoder.overlap_add(self.frames)[..., encoder.hop :]
        estimates = torch.cat([rest, last], dim=-1)[..., : length - returned]
        self.reset()
        return estimates

    def _advance(self, samples):
        encoder, decoder = self.separator.encoder, self.separator.decoder
        self.samples = torch.cat([self.samples, samples], dim=1)
        num_frames = (self.samples.shape[1] - encoder.kernel_size) // encoder.hop + 1
        if num_frames < 1:
            return samples.new_zeros(self.batch_size, decoder.num_sources, 0)
        latent = encoder.convolve(self.samples)
        self.samples = self.samples[:, num_frames * encoder.hop :]
        latents = self._transform(latent.transpose(1, 2))
        # A block of output needs the frames before and after its own.
        frames = torch.cat([self.frames, decoder.synthesize(latents)], dim=1)
        self.frames = frames[:, -2:]
        waveforms = decoder.overlap_add(frames)[..., encoder.hop : -encoder.hop]
        waveforms = waveforms[..., self.num_to_skip :]
        self.num_to_skip = 0
        self.num_returned += waveforms.shape[-1]
        return waveforms

    def _transform(self, x):
        masknet = self.separator.masknet
        x = masknet.bottleneck(x)
        for block in self.blocks:
            x = block.push(x)
        return masknet.masks(x)


class _BlockStream:
    """A causal block with the frames its convolutions reach back to."""

    def __init__(self, block, batch_size):
        self.block = block
        weight = block.expand.weight
        channels = block.expand.out_features
        self.past = [
            weight.new_zeros(batch_size, conv.context, channels)
            for conv in block.downsample
        ]
        self.coarse = [weight.new_zeros(batch_size, 1, channels)] * len(self.past)
        self.num_frames = [0] * len(self.past)

    def push(self, x):
        """Map new frames ``(batch, frame, channel)`` to the block's output for them."""
        hidden = self.block.expand_act(self.block.expand(x))
        levels = []
        for level, act in enumerate(self.block.downsample_act):
            hidden = act(self._convolve(level, hidden))
            levels.append(hidden)
        for level in reversed(range(len(levels) - 1)):
            levels[level] = self._upsample_add(level, levels[level + 1], levels[level])
        for level, frames in enumerate(levels):
            self.num_frames[level] += frames.shape[1]
        return self.block.add(x, levels[0])

    def _convolve(self, level, x):
        conv = self.block.downsample[level]
        stride = conv.conv.stride[0]
        num_before = self.num_frames[level - 1] if level > 0 else 0
        x = torch.cat([self.past[level], x], dim=1)
        self.past[level] = x[:, -conv.context :]
        x = x[:, -num_before % stride :]
        return conv.convolve(x) if x.shape[1] > conv.context else x[:, :0]

    def _upsample_add(self, level, coarse, fine):
        """Add the coarse frame that began last to each fine frame."""
        odd = self.num_frames[level] % 2
        coarse = torch.cat([self.coarse[level], coarse], dim=1)
        self.coarse[level] = coarse[:, -1:]
        repeated = coarse.repeat_interleave(2, dim=1)[:, 2 - odd :]
        return fine + repeated[:, : fine.shape[1]]
