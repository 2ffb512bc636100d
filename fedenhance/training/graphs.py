"""Training steps of a network as CUDA graphs: two launches instead of thousands.

A small network keeps a GPU less busy than the processor that launches its kernels one
by one. PyTorch can record a forward and a backward pass and replay them (CUDA graphs in
its notes on CUDA semantics); here that is done by itself for batches that come again.
"""

import contextlib
import gc
import warnings
from collections import Counter

import torch
from speechbrain.utils.logger import get_logger
from torch import nn

logger = get_logger(__name__)


class Graphed:
    """Calls a network; replays its passes where it trains on a GPU.

    Replayed are batches of one shape: the one that had come most often when
    :meth:`record` was last called. Others are computed as always, as are evaluation and
    everything on a CPU. Each call must be followed by its backward pass before the
    next: activations are overwritten. While weights, buffers or who of the network
    trains differ from what was recorded, nothing is replayed; changes in place, as by
    optimizers and ``load_state_dict``, do not matter. The activations of a recording
    stay in memory.

    Arguments
    ---------
    network : torch.nn.Module
        Takes one tensor. What it computes must depend on nothing but the tensor, its
        weights and buffers and the GPU's random numbers, without asking the GPU for a
        value, and it has no hooks. Where recording fails, the network is called
        instead, and a warning says so.
    after : int
        Calls of a shape until it is worth recording.

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
        self.calls = Counter()
        self.recorded, self.state, self.replay = None, None, None

    def __call__(self, x):
        """Call the network."""
        trains = self.network.training and torch.is_grad_enabled()
        if not (on_gpu(x) and trains) or x.requires_grad:
            return self.network(x)
        kind = tuple(x.shape), x.dtype, x.device, autocast_dtype()
        self.calls[kind] += 1
        if kind != self.recorded or state_of(self.network) != self.state:
            return self.network(x)
        own_gradients(self.network)
        return self.replay(x)

    def record(self):
        """Record the batches that come most often, if that is not yet done.

        To be called before an epoch of training: it switches the network to training,
        and while a thread of a loader pins memory, recording can fail, and take the
        loader with it.
        """
        if not self.calls:
            return
        self.network.train()
        [(kind, count)] = self.calls.most_common(1)
        state = state_of(self.network)
        if count < self.after or (kind, state) == (self.recorded, self.state):
            return
        self.recorded, self.replay = kind, None
        gc.collect()  # PyTorch's recordings hold themselves
        self.replay = self._record(*kind)
        self.state = state_of(self.network)

    def _record(self, shape, dtype, device, autocast):
        """Record the passes; return what replays them, or else the network."""
        # Gradients arrive on another stream than recording ran on, which is no harm.
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream")
        buffers = {n: b.clone() for n, b in self.network.named_buffers()}
        computing = torch.autocast(
            device.type, autocast, enabled=autocast is not None, cache_enabled=False
        )
        try:
            with unnoticed(device), computing:
                sample = torch.randn(shape, dtype=dtype, device=device)
                # Of what is handed over, PyTorch replaces the forward.
                call = nn.Sequential(self.network)
                rehearse(call, sample)
                return torch.cuda.make_graphed_callables(call, (sample,))
        except (RuntimeError, AssertionError) as error:
            logger.warning(
                "The network cannot be recorded as a CUDA graph and is called instead "
                "(cuda_graphs: False says so beforehand): %s",
                error,
            )
            return self.network
        finally:
            # Recording begins with training steps, which count as none.
            with torch.no_grad():
                for name, buffer in self.network.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])


@contextlib.contextmanager
def unnoticed(device):
    """Put back random numbers, and the stream that work is queued on."""
    stream = torch.cuda.current_stream(device)
    with torch.random.fork_rng([device]), torch.cuda.stream(stream):
        yield


def rehearse(call, sample):
    """Run a training step that must not ask the GPU for a value.

    Raises
    ------
    RuntimeError
        When it does. PyTorch would notice while recording, and not recover.
    """
    weights = [weight for weight in call.parameters() if weight.requires_grad]
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        try:
            torch.cuda.set_sync_debug_mode("error")
            torch.autograd.grad(call(sample).sum(), weights, allow_unused=True)
        finally:
            torch.cuda.set_sync_debug_mode(before)


def on_gpu(x):
    """Tell whether a tensor is on a GPU."""
    return x.is_cuda


def state_of(network):
    """Return what a recording is bound to: places in memory, and who trains."""
    tensors = [*network.parameters(), *network.buffers()]
    places = [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]
    return places, [module.training for module in network.modules()]


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
