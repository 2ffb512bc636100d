"""A causal network block by block: what runs live, and what is exported for that.

A block of samples and a state give as many samples of each source, later by a constant
``delay``, and the next state. A state is one vector, at first zeros. A sample waits
until its block is complete, so that ``block + delay`` is the latency, to which the time
of computing adds.
"""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch import nn

from fedenhance.deploy.streaming import StreamingSeparator
from fedenhance.networks.scaling import levels_itself
from fedenhance.objectives.nearly_clean import clean_share, pauses

logger = get_logger(__name__)

MEMORY = 30.0
"""Seconds, the time constant of what is known of the noise on a stream."""


def check_live(trained):
    """Refuse a model that would live give something else than on a whole signal.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained

    Raises
    ------
    ValueError
        If the network is not causal, if its input was scaled by the level of the whole
        signal, or if its estimates were made to sum to the whole mixture.
    """
    separator = trained.separator
    StreamingSeparator(separator)
    mixture = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = separator(mixture).sum(1) - mixture
    sums = difference.abs().max() < 1e-4 * mixture.abs().max()
    reason = None
    if not levels_itself(separator):
        reason = "it is given signals that are scaled by their whole level"
    elif trained.consistency is not None and not sums:
        reason = "its sources do not sum to the mixture without looking at all of it"
    if reason:
        raise ValueError(
            f"This network cannot run live: {reason}. Train one with "
            "models/gtcrn.yaml or models/sudormrf_causal_small.yaml."
        )


class Step(nn.Module):
    """One block of a stream, as a function of the block and a state.

    Arguments
    ---------
    separator : fedenhance.networks.separator.Separator
        A causal one.
    block : int
        Samples.

    Raises
    ------
    ValueError
        If a block is not of whole frames at all resolutions.
    """

    def __init__(self, separator, block):
        super().__init__()
        stride = separator.encoder.stride
        if block < 1 or block % stride:
            raise ValueError(
                f"A block must be a multiple of {stride} samples for this network, "
                f"not {block}."
            )
        self.separator = separator
        self.block = block
        stream = StreamingSeparator(separator)
        stream.push(torch.zeros(1, block))
        self.shapes = [part.shape for part in stream.state()]

    @property
    def delay(self):
        """Samples by which the estimates are behind the block."""
        return self.separator.encoder.delay

    def initial_state(self):
        """Return zeros, ``(1, state)``."""
        return torch.zeros(1, sum(shape.numel() for shape in self.shapes))

    def forward(self, samples, state):
        """Map ``(1, block)`` and a state to ``(1, source, block)`` and a state."""
        parts = state[0].split([shape.numel() for shape in self.shapes])
        stream = StreamingSeparator(self.separator)
        pairs = zip(parts, self.shapes, strict=True)
        stream.load_state([part.view(shape) for part, shape in pairs])
        sources = stream.advance(samples)
        state = torch.cat([part.flatten() for part in stream.state()])
        return sources, state.unsqueeze(0)


class Traced:
    """A stream of whole blocks whose operations PyTorch runs without Python's share.

    The states of a small network cost more time to handle in Python than to compute.

    Arguments
    ---------
    separator : fedenhance.networks.separator.Separator
    block : int
        Samples.

    Raises
    ------
    ValueError
        If a block is not of whole frames at all resolutions, or if what was traced
        gives something else than the network does.
    """

    def __init__(self, separator, block):
        step = Step(separator, block).eval()
        self.state = step.initial_state()
        with warnings.catch_warnings(action="ignore"):  # on what is constant here
            traced = torch.jit.trace(
                step, (torch.zeros(1, block), self.state), check_trace=False
            )
            self.step = torch.jit.freeze(traced)
        self._check(step, block)

    def _check(self, step, block):
        generator, state = torch.Generator().manual_seed(0), self.state
        for _ in range(3):  # the first meets silence before, the next do not
            given = torch.randn(1, block, generator=generator), state
            expected, state = step(*given)
            pairs = zip(self.step(*given), (expected, state), strict=True)
            if not all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs):
                raise ValueError("this network cannot be traced")

    def advance(self, samples):
        """Map ``(1, block)`` to ``(1, source, block)``, ``delay`` samples behind."""
        sources, self.state = self.step(samples, self.state)
        return sources


def open_stream(separator, block):
    """Open a stream of blocks: traced, or as it is where that cannot be, and slower."""
    try:
        return Traced(separator, block)
    except (RuntimeError, ValueError) as error:  # of PyTorch; of Traced and Step
        reason = str(error).partition("\n")[0] or type(error).__name__
        logger.warning(
            "This runs slower than it might, for it is not traced: %s", reason
        )
        return StreamingSeparator(separator)


class Kept:
    """The speech of a stream, with the share of the mixture that stays in it.

    Where a share follows from how clean the recording is, it is known from what was
    heard so far. It changes evenly within a block.

    Arguments
    ---------
    dry : float
        The share.
    clean_above : float or None
        If it is a number, the share is that of
        :func:`fedenhance.objectives.nearly_clean.clean_share`.
    sample_rate : int

    Example
    -------
    >>> Kept(0.5, None, 16000)(torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    tensor([0.5000, 2.5000])
    """

    def __init__(self, dry, clean_above, sample_rate):
        self.share, self.clean_above = torch.tensor(dry), clean_above
        self.memory = MEMORY * sample_rate
        self.sums = torch.zeros(4)  # speech, 1, noise in pauses, pauses

    def __call__(self, sources):
        """Map sources that sum to the mixture, ``(source, block)``, to ``(block,)``."""
        parts = torch.stack([sources[0], sources[1:].sum(0)])
        before, length = self.share, parts.shape[-1]
        if self.clean_above is not None:
            speech, rest = parts.square().mean(-1)
            self.sums *= math.exp(-length / self.memory)
            self.sums[:2] += torch.stack([speech, torch.ones(())])
            mean = self.sums[0] / self.sums[1]
            weight = pauses(speech, mean)
            self.sums[2:] += torch.stack([weight * rest, weight])
            noise = self.sums[2] / self.sums[3]
            self.share = clean_share(mean, noise, self.clean_above)
        ramp = torch.arange(1, length + 1) / length
        return parts[0] + torch.lerp(before, self.share, ramp) * parts[1]


class Blocks:
    """A trained model that is given a signal block by block.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained
    seconds : float
        Of a block; rounded to whole frames of the network.

    Attributes
    ----------
    sample_rate, block, delay : int
        In Hz and samples.
    """

    @torch.inference_mode()
    def __init__(self, trained, seconds=0.016):
        check_live(trained)
        encoder = trained.separator.encoder
        self.sample_rate = trained.sample_rate
        frames = max(1, round(seconds * self.sample_rate / encoder.hop))
        self.block, self.delay = frames * encoder.hop, encoder.delay
        self.stream = open_stream(trained.separator, self.block)
        self.keep = Kept(trained.dry, trained.clean_above, self.sample_rate)

    @torch.inference_mode()
    def push(self, samples):
        """Map a block of samples to as many of the speech.

        Arguments
        ---------
        samples : numpy.ndarray
            ``(block,)``, float32 in [-1, 1].

        Returns
        -------
        numpy.ndarray
            ``(block,)``, ``delay`` samples behind.
        """
        mixture = torch.from_numpy(np.ascontiguousarray(samples)).unsqueeze(0)
        return self.keep(self.stream.advance(mixture)[0]).numpy()


class OnnxBlocks:
    """The same of a file that ``fedenhance export --block`` wrote.

    Arguments
    ---------
    path : Path

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the file is no such one.
    """

    def __init__(self, path):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"onnxruntime is needed to run {path}: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # not what it cannot fold
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no {path}")
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of its own, with no common base
            raise ValueError(f"{path} is no ONNX model: {error}") from error
        about = self.session.get_modelmeta().custom_metadata_map
        if "block" not in about:
            raise ValueError(f"{path} takes no blocks: export it again with --block 16")
        self.sample_rate, self.block, self.delay = (
            int(about[key]) for key in ("sample_rate", "block", "delay")
        )
        above = about.get("clean_above")
        self.keep = Kept(0.0, float(above) if above else None, self.sample_rate)
        size = self.session.get_inputs()[1].shape
        self.state = np.zeros(size, np.float32)

    def push(self, samples):
        """Map a block of samples to as many of the speech; see :class:`Blocks`."""
        given = {"samples": samples[None], "state": self.state}
        sources, self.state = self.session.run(None, given)
        return self.keep(torch.from_numpy(sources[0])).numpy()
