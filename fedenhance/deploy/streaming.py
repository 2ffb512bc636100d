"""Separation of a signal while it arrives, by a causal network."""

import torch

from fedenhance.networks.blocks import CausalUConvBlock
from fedenhance.networks.separator import add_rest


class StreamingSeparator:
    """Run a causal separator on a signal that arrives bit by bit.

    The estimates are those of the separator on the whole signal. The state is bounded:
    the samples and frames that a kernel reaches back to, however long the signal.

    Arguments
    ---------
    separator : fedenhance.networks.separator.Separator
        Such as that of ``hparams/models/sudormrf_causal.yaml``, of its small sibling,
        or of ``gtcrn.yaml``.
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
    >>> from fedenhance.networks.sudormrf import CausalEncoder, Decoder, MaskNet
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
        if not is_causal(separator):
            raise ValueError(
                "Only a causal separator can run on a stream: with a SpectralEncoder "
                "and the mask network of models/gtcrn.yaml, or a CausalEncoder, "
                "CausalUConvBlocks and no normalisation as in "
                "models/sudormrf_causal.yaml."
            )
        self.separator = separator
        self.batch_size = batch_size
        self.reset()

    @property
    def latency(self):
        """Samples from one arriving until its estimate leaves, at most."""
        return self.separator.encoder.latency

    @property
    def delay(self):
        """Samples by which :meth:`advance` is behind what it is given."""
        return self.separator.encoder.delay

    def reset(self):
        """Forget the signal so far."""
        encoder, decoder = self.separator.encoder, self.separator.decoder
        start = next(self.separator.parameters()).new_zeros(self.batch_size, 0)
        self.samples = start.new_zeros(self.batch_size, encoder.context)
        self.frames = decoder.initial_state(start)
        self.level = []
        if self.separator.level is not None:
            self.level = [self.separator.level.initial_state(start)]
        self.rest = []
        if self.separator.rest:
            self.rest = [start.new_zeros(self.batch_size, self.delay)]
        self.masknet = stream_of(self.separator.masknet, self.batch_size)
        self.num_received = self.num_returned = 0
        # The first frame begins before the signal.
        self.num_to_skip = self.delay

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
        waveforms = self.advance(samples)
        skipped = min(self.num_to_skip, waveforms.shape[-1])
        self.num_to_skip -= skipped
        self.num_returned += waveforms.shape[-1] - skipped
        return waveforms[..., skipped:]

    @torch.no_grad()
    def flush(self):
        """End the signal: return the estimates left, and start anew."""
        encoder, decoder = self.separator.encoder, self.separator.decoder
        length, returned = self.num_received, self.num_returned
        missing = encoder.padded_length(length) - length
        rest = self.push(self.samples.new_zeros(self.batch_size, missing))
        last = self._with_rest(decoder.finish(self.frames), self.samples[:, :0])
        estimates = torch.cat([rest, last], dim=-1)[..., : length - returned]
        self.reset()
        return estimates

    def state(self):
        """List the tensors that the samples so far have left."""
        own = [self.samples, self.frames]
        return own + self.level + self.rest + self.masknet.state()

    def load_state(self, state):
        """Go on where a stream was that had been given whole frames alone."""
        self.samples, self.frames, *state = state
        self.level, state = state[: len(self.level)], state[len(self.level) :]
        self.rest, state = state[: len(self.rest)], state[len(self.rest) :]
        self.masknet.load_state(state)

    def advance(self, samples):
        """Take samples; return as many estimates as there are whole frames of them.

        Arguments
        ---------
        samples : torch.Tensor
            ``(batch, time)``.

        Returns
        -------
        torch.Tensor
            ``(batch, source, time)``, ``delay`` samples behind: those before the
            signal come first.
        """
        encoder, decoder = self.separator.encoder, self.separator.decoder
        held = torch.cat([self.samples, samples], dim=1)
        num_frames = (held.shape[1] - encoder.frame_length) // encoder.hop + 1
        self.samples = held[:, max(0, num_frames) * encoder.hop :]
        if num_frames < 1:
            frames = None
        else:
            frames = decoder.synthesize(self._transform(encoder.transform(held)))
        waveforms, self.frames = decoder.join(frames, self.frames)
        return self._with_rest(waveforms, samples)

    def _transform(self, latent):
        separator = self.separator
        if not self.level:
            masks = self.masknet.push(latent)
            return masks * latent if separator.masking else masks
        rms, self.level[0] = separator.level(latent, self.level[0])
        masks = self.masknet.push(latent / rms)
        return masks * (latent if separator.masking else rms)

    def _with_rest(self, waveforms, samples):
        if not self.rest:
            return waveforms
        mixture = torch.cat([*self.rest, samples], dim=1)
        length = waveforms.shape[-1]
        self.rest = [mixture[:, length:]]
        return add_rest(waveforms, mixture[:, :length])


def is_causal(separator):
    """Tell whether a separator can run on a stream."""
    masknet = separator.masknet
    steps = hasattr(masknet, "step") or (
        all(isinstance(block, CausalUConvBlock) for block in masknet.blocks)
        and isinstance(masknet.norm, torch.nn.Identity)
    )
    return hasattr(separator.encoder, "delay") and steps


def stream_of(masknet, batch_size):
    """Return what runs a mask network on a latent that arrives bit by bit."""
    if hasattr(masknet, "step"):
        return _Steps(masknet, batch_size)
    return _Blocks(masknet, batch_size)


class _Steps:
    """A mask network that computes a few frames from the state of those before."""

    def __init__(self, masknet, batch_size):
        self.masknet = masknet
        self.states = masknet.initial_state(batch_size)

    def push(self, latent):
        masks, self.states = self.masknet.step(latent, self.states)
        return masks

    def state(self):
        return self.states

    def load_state(self, state):
        self.states = state


class _Blocks:
    """A mask network of causal U-ConvBlocks."""

    def __init__(self, masknet, batch_size):
        self.masknet = masknet
        self.blocks = [_BlockStream(block, batch_size) for block in masknet.blocks]

    def push(self, latent):
        x = self.masknet.bottleneck(latent.transpose(1, 2))
        for block in self.blocks:
            x = block.push(x)
        return self.masknet.masks(x)

    def state(self):
        # Where only whole frames of the coarsest level came, no coarse one is left.
        return [past for block in self.blocks for past in block.past]

    def load_state(self, state):
        state = iter(state)
        for block in self.blocks:
            block.past = [next(state) for _ in block.past]
            block.num_frames = [0] * len(block.past)


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
