"""Training steps of a network as CUDA graphs: two launches instead of thousands.

A small network keeps a GPU less busy than the processor that launches its kernels one
by one. PyTorch can record a forward and a backward pass and replay them (CUDA graphs in
its notes on CUDA semantics); here that is done by itself for batches that come again.
"""

import warnings
from collections import Counter

import torch
from speechbrain.utils.logger import get_logger
from torch import nn

logger = get_logger(__name__)


class Graphed:
    """Calls a network; replays its passes where it trains on a GPU.

    What is recorded are batches of one shape, the first that has come ``after`` times;
    others are computed as always, as are evaluation and everything on a CPU. Each call
    must be followed by its backward pass before the next: activations are overwritten.
    Where weights are exchanged or frozen, recording starts anew; changes in place, as
    by optimizers and ``load_state_dict``, do not matter.

    Arguments
    ---------
    network : torch.nn.Module
        Takes one tensor. What it computes must depend on nothing but the tensor, its
        weights and random numbers, without asking the GPU for a value; where recording
        fails, the network is called as always, and a warning says so.
    after : int
        Calls of a shape until it is recorded.

    Example
    -------
    >>> network = nn.Linear(2, 1)
    >>> graphed = Graphed(network)
    >>> x = torch.ones(3, 2)
    >>> bool((graphed(x) == network(x)).all())
    True
    """

    def __init__(self, network, after=3):
        self.network = network
        self.after = after
        self._forget(None)

    def _forget(self, weights):
        self.weights, self.calls = weights, Counter()
        self.recorded, self.replay = None, None

    def __call__(self, x):
        """Call the network."""
        trains = self.network.training and torch.is_grad_enabled()
        if not (on_gpu(x) and trains) or x.requires_grad:
            return self.network(x)
        weights = [(w.data_ptr(), w.requires_grad) for w in self.network.parameters()]
        if weights != self.weights:
            self._forget(weights)
        kind = tuple(x.shape), x.dtype, autocast_dtype()
        if self.recorded is None:
            self.calls[kind] += 1
            if self.calls[kind] >= self.after:
                self.recorded, self.replay = kind, self._record(x)
        if kind != self.recorded:
            return self.network(x)
        own_gradients(self.network)
        return self.replay(x)

    def _record(self, x):
        """Record the passes; return what replays them, or else the network."""
        # Gradients arrive on another stream than recording ran on, which is no harm.
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream")
        buffers = {n: b.clone() for n, b in self.network.named_buffers()}
        dtype = autocast_dtype()
        try:
            with torch.autocast(
                "cuda", dtype, enabled=dtype is not None, cache_enabled=False
            ):
                return torch.cuda.make_graphed_callables(
                    _Call(self.network), (x.clone(),)
                )
        except RuntimeError as error:
            logger.warning(
                "The network cannot be recorded as a CUDA graph and is called as "
                "always (cuda_graphs: False says so beforehand): %s",
                error,
            )
            return self.network
        finally:
            # Recording begins with training steps on the batch, which count as none.
            with torch.no_grad():
                for name, buffer in self.network.named_buffers():
                    buffer.copy_(buffers[name])


class _Call(nn.Module):
    """Stands for a network whose ``forward`` PyTorch would replace."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


def on_gpu(x):
    """Tell where a tensor is."""
    return x.is_cuda


def autocast_dtype():
    """Return what autocast computes in on a GPU; ``None`` where it is off."""
    enabled = torch.is_autocast_enabled("cuda")
    return torch.get_autocast_dtype("cuda") if enabled else None


def own_gradients(network):
    """Give gradients of earlier calls memory of their own.

    Replaying writes gradients to the same place each time, and autograd takes that
    place for the weight's gradient: where they add up over batches, the next replay
    would overwrite the sum.
    """
    for weight in network.parameters():
        if weight.grad is not None:
            weight.grad = weight.grad.clone()
