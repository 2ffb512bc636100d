"""Gated recurrent units in groups, whose gradients cost little time on a CPU."""

import torch
import torch.nn.functional as F
from torch import nn

from fedenhance.networks import fused
from fedenhance.networks.blocks import check_positive

#: Signals up to which steps take longer to begin than to compute.
SMALL_BATCH = 16


class GRU(nn.Module):
    """Gated recurrent units (Cho et al., EMNLP 2014) in groups that share nothing.

    A layer of ``torch.nn.GRU`` for each group, computed as one.

    Arguments
    ---------
    input_size : int
        Channels of the input, over all groups.
    hidden_size : int
        Channels of a direction's output, over all groups.
    num_groups : int
        Groups of channels.
    bidirectional : bool
        Whether a second layer runs backwards; its output follows the first's.

    Example
    -------
    >>> gru = GRU(6, hidden_size=4, num_groups=2)
    >>> y, state = gru(torch.randn(7, 3, 6), gru.initial_state(3))
    >>> y.shape, state.shape
    (torch.Size([7, 3, 4]), torch.Size([1, 3, 4]))
    """

    def __init__(self, input_size, hidden_size, num_groups=1, bidirectional=False):
        super().__init__()
        check_positive(input_size=input_size, hidden_size=hidden_size)
        check_positive(num_groups=num_groups)
        for key, size in {"input_size": input_size, "hidden_size": hidden_size}.items():
            if size % num_groups:
                raise ValueError(
                    f"{key} must be divisible by num_groups, got {size} and "
                    f"{num_groups}."
                )
        self.num_directions = 1 + bidirectional
        self.hidden_size = hidden_size
        self.onnx = None
        inputs, outputs = input_size // num_groups, hidden_size // num_groups
        # The gates are those of torch.nn.GRU: reset, update, new.
        gates = (self.num_directions, num_groups, 3, outputs)
        bound = outputs**-0.5

        def uniform(*shape):
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.weight_ih, self.weight_hh = (
            uniform(*gates, inputs),
            uniform(*gates, outputs),
        )
        self.bias_ih, self.bias_hh = uniform(*gates), uniform(*gates)

    def initial_state(self, batch_size):
        """Return zeros, ``(direction, batch, hidden_size)``."""
        size = (self.num_directions, batch_size, self.hidden_size)
        return self.weight_hh.new_zeros(size)

    def forward(self, x, state):
        """Map ``(time, batch, input)`` and a state to the output and a new state.

        Arguments
        ---------
        x : torch.Tensor
            ``(time, batch, input_size)``.
        state : torch.Tensor
            As :meth:`initial_state` makes it.

        Returns
        -------
        y : torch.Tensor
            ``(time, batch, direction * hidden_size)``.
        state : torch.Tensor
        """
        if self.onnx and torch.compiler.is_exporting():
            return run_onnx(x, state, *self.onnx)
        weights = self.directions()
        if fused.enabled(x) and torch.is_grad_enabled():
            outputs = [_Direction.apply(x, state[0], *weights[0])]
            if self.num_directions == 2:
                outputs.append(_Direction.apply(x.flip(0), state[1], *weights[1]))
            last = torch.stack([y[-1] for y in outputs])
            outputs[1:] = [y.flip(0) for y in outputs[1:]]
            return torch.cat(outputs, dim=-1), last
        return run(x, state, weights)

    def directions(self):
        """List weights and biases of each direction as ``torch.nn.GRU`` has them."""
        weights = (
            ungrouped(self.weight_ih),
            ungrouped(self.weight_hh),
            self.bias_ih.transpose(1, 2).flatten(1),
            self.bias_hh.transpose(1, 2).flatten(1),
        )
        return list(zip(*weights, strict=True))

    @torch.no_grad()
    def use_onnx(self):
        """Be ONNX's GRU in what is exported from now on, for any number of steps."""
        weights = [
            torch.stack([torch.cat([w.chunk(3)[i] for i in (1, 0, 2)]) for w in each])
            for each in zip(*self.directions(), strict=True)
        ]
        self.onnx = (*weights[:2], torch.cat(weights[2:], dim=1))


def run_onnx(x, state, weight_ih, weight_hh, bias):
    """Stand for ONNX's operator GRU, whose gates are update, reset, new.

    Arguments
    ---------
    x : torch.Tensor
        ``(time, batch, input)``.
    state : torch.Tensor
        ``(direction, batch, hidden)``.
    weight_ih, weight_hh, bias : torch.Tensor
        Of all directions.

    Returns
    -------
    y, state : torch.Tensor
    """
    num_directions, _, size = weight_hh.shape
    options = {"hidden_size": size, "linear_before_reset": 1}
    options["direction"] = ("forward", "bidirectional")[num_directions - 1]
    y, state = torch.onnx.ops.symbolic_multi_out(
        "GRU",
        [x, weight_ih, weight_hh, bias, None, state],
        options,
        dtypes=(x.dtype, x.dtype),
        shapes=((x.shape[0], num_directions, x.shape[1], size), state.shape),
    )
    return y.transpose(1, 2).flatten(2), state


def ungrouped(weight):
    """Weights of groups as those of one layer, zero from a group to another.

    Arguments
    ---------
    weight : torch.Tensor
        ``(direction, group, gate, output, input)``.

    Returns
    -------
    torch.Tensor
        ``(direction, gate * group * output, group * input)``.
    """
    num_groups = weight.shape[1]
    if num_groups == 1:
        return weight[:, 0].flatten(1, 2)
    same = torch.eye(num_groups, device=weight.device, dtype=weight.dtype)
    blocks = weight.unsqueeze(-2) * same.view(num_groups, 1, 1, num_groups, 1)
    return blocks.transpose(1, 2).flatten(1, 3).flatten(2)


def run(x, state, weights):
    """Run PyTorch's GRU of one layer.

    Arguments
    ---------
    x : torch.Tensor
        ``(time, batch, input)``.
    state : torch.Tensor
        ``(direction, batch, hidden)``.
    weights : list of tuple of torch.Tensor
        For each direction as in ``torch.nn.GRU``: weights and biases.

    Returns
    -------
    y, state : torch.Tensor
    """
    if fused.enabled(x) and len(weights) == 2 and x.shape[1] <= SMALL_BATCH:
        return _run_both_ways(x, state, weights)
    if x.is_cuda:
        weights = _contiguous(weights)
    flat = [weight for each in weights for weight in each]
    # cuDNN keeps what gradients need in training only.
    training = torch.is_grad_enabled()
    return torch.gru(x, state, flat, True, 1, 0.0, training, len(weights) == 2, False)


def _run_both_ways(x, state, weights):
    """Run two directions in the same steps: as two groups of one direction."""
    size = weights[0][1].shape[1]
    w_hh = torch.stack([each[1].view(3, size, size) for each in weights])
    w_hh = ungrouped(w_hh.unsqueeze(0))[0].T.contiguous()
    b_hh = torch.stack([each[3].view(3, size) for each in weights], 1).flatten()
    of_input = [
        F.linear(signal, each[0], each[2]).unflatten(2, (3, size))
        for signal, each in zip((x, x.flip(0)), weights, strict=True)
    ]
    of_input = torch.stack(of_input, dim=3).flatten(2)
    of_gates, of_new = of_input[..., : 4 * size], of_input[..., 4 * size :]
    hidden, outputs = state.transpose(0, 1).flatten(1), []
    for gates, new in zip(of_gates.unbind(0), of_new.unbind(0), strict=True):
        by_gates, by_new = torch.addmm(b_hh, hidden, w_hh).tensor_split((4 * size,), 1)
        reset, update = gates.add(by_gates).sigmoid_().chunk(2, dim=1)
        new = torch.addcmul(new, reset, by_new).tanh_()
        hidden = torch.lerp(new, hidden, update)
        outputs.append(hidden)
    y = torch.stack(outputs)
    y = torch.cat([y[..., :size], y[..., size:].flip(0)], dim=-1)
    return y, hidden.unflatten(1, (2, size)).transpose(0, 1)


def _contiguous(weights):
    """Views of one piece of memory, in the order in which cuDNN wants them."""
    order = [w for each in weights for w in each[:2]]
    order += [b for each in weights for b in each[2:]]
    pieces = torch.cat([w.flatten() for w in order]).split([w.numel() for w in order])
    views = [piece.view_as(w) for piece, w in zip(pieces, order, strict=True)]
    middle = 2 * len(weights)
    return [
        (*views[i : i + 2], *views[middle + i : middle + i + 2])
        for i in range(0, middle, 2)
    ]


class _Direction(torch.autograd.Function):
    # PyTorch keeps a dozen tensors for each step and takes as many to go back. All of
    # the derivatives but one product depend on nothing that comes later, so that they
    # are found for all steps at once.

    @staticmethod
    def forward(ctx, x, state, *weights):
        y, _ = run(x, state.unsqueeze(0), [weights])
        ctx.save_for_backward(x, state, y, *weights)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, state, y, w_ih, w_hh, b_ih, b_hh = ctx.saved_tensors
        before = torch.cat([state.unsqueeze(0), y[:-1]])  # (time, batch, hidden)
        reset, update, new = F.linear(x, w_ih, b_ih).chunk(3, dim=-1)
        of_reset, of_update, of_new = F.linear(before, w_hh, b_hh).chunk(3, dim=-1)
        reset = (reset + of_reset).sigmoid_()
        update = (update + of_update).sigmoid_()
        new = torch.addcmul(new, reset, of_new).tanh_()
        # Derivatives of the output by what the gates are functions of.
        by_new = (1 - update) * (1 - new.square())
        by_of_new = by_new * reset
        by_reset = by_of_new * of_new * (1 - reset)
        by_update = (before - new) * update * (1 - update)
        factors = torch.stack([by_reset, by_update, by_of_new, update], dim=2)
        total = _accumulate(factors, grad, w_hh)
        by_hidden = factors[:, :, :3].flatten(2)
        by_new *= total[1:]
        by_input = torch.cat([by_hidden[..., : -y.shape[-1]], by_new], dim=-1)
        rows, by_rows = by_input.flatten(0, 1), by_hidden.flatten(0, 1)
        return (
            by_input @ w_ih,
            total[0],
            rows.T @ x.flatten(0, 1),
            by_rows.T @ before.flatten(0, 1),
            rows.sum(0),
            by_rows.sum(0),
        )


def _accumulate(factors, grad, w_hh):
    """Gradients of the state before each step and after the last, in time.

    Multiplies ``factors`` ``(time, batch, 4, hidden)`` by the gradients, in place.

    Returns
    -------
    torch.Tensor
        ``(time + 1, batch, hidden)``.
    """
    back = torch.cat([w_hh, torch.eye(w_hh.shape[1])])
    total = torch.cat([torch.zeros_like(grad[:1]), grad])
    rows, gradients = factors.flatten(2).unbind(0), total.unbind(0)
    factors = factors.unbind(0)
    for step in reversed(range(len(factors))):
        factors[step].mul_(gradients[step + 1].unsqueeze(1))
        gradients[step].addmm_(rows[step], back)
    return total
