"""Networks whose training steps are replayed."""

import copy
import logging

import pytest
import torch
from torch import nn

from fedenhance.training import graphs
from fedenhance.training.graphs import Graphed

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network(device="cpu"):
    torch.manual_seed(0)
    layers = nn.Conv1d(1, 3, 5, padding=2), nn.BatchNorm1d(3), nn.PReLU()
    return nn.Sequential(nn.Unflatten(1, (1, -1)), *layers).to(device)


REPLAYED = []
"""Sizes of the batches that were replayed."""


def replayed(call, samples):
    """Stand for ``torch.cuda.make_graphed_callables``: the same memory each time."""
    weights = list(call.parameters())
    for _ in range(3):
        output = call(*samples)
    places = [torch.zeros_like(weight) for weight in weights]

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, *weights):
            REPLAYED.append(len(x))
            assert x.shape == samples[0].shape
            samples[0].copy_(x)
            with torch.no_grad():
                output.copy_(call(samples[0]))
            return output.detach()

        @staticmethod
        def backward(ctx, grad):
            with torch.enable_grad():
                again = call(samples[0])
            found = torch.autograd.grad(again, weights, grad)
            for place, new in zip(places, found, strict=True):
                place.copy_(new)
            return None, *(place.detach() for place in places)

    output = output.detach()
    return lambda x: Replay.apply(x, *weights)


@pytest.fixture
def pretended(monkeypatch):
    """Record on a CPU as PyTorch would on a GPU."""
    REPLAYED.clear()
    monkeypatch.setattr(graphs, "on_gpu", lambda x: True)
    monkeypatch.setattr(graphs, "unnoticed", lambda device: torch.random.fork_rng([]))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", replayed)


def step(call, batches):
    """Add up the gradients of some batches; return the last output."""
    for x in batches:
        output = call(x)
        output.square().mean().backward()
    return output.detach().clone()


def gradients(module):
    return torch.cat([weight.grad.flatten() for weight in module.parameters()])


def check(device, sizes):
    plain = network(device)
    module = copy.deepcopy(plain)
    graphed = Graphed(module)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        graphed.record()
        for _ in range(3):
            batches = [torch.randn(size, 40, generator=generator) for size in sizes]
            batches = [x.to(device) for x in batches]
            expected, output = step(plain, batches), step(graphed, batches)
            torch.testing.assert_close(output, expected)
            torch.testing.assert_close(gradients(module), gradients(plain))
            for each in (plain, module):
                each.zero_grad(set_to_none=True)
    assert graphed.recorded[0] == (sizes[0], 40)
    assert graphed.replay not in (None, module)
    return [sizes[0]] * 2 * 3 * sizes.count(sizes[0])


SIZES = [[4], [4, 4, 4], [4, 2, 4], [2]]


@pytest.mark.parametrize("sizes", SIZES)
def test_outputs_and_gradients_are_those_of_the_network(pretended, sizes):
    expected = check("cpu", sizes)
    assert expected == REPLAYED


@on_a_gpu
@pytest.mark.parametrize("sizes", SIZES)
def test_outputs_and_gradients_on_a_gpu(sizes):
    check("cuda", sizes)


@on_a_gpu
def test_a_network_that_asks_the_gpu_for_a_value_is_called_as_always():
    class Asks(nn.Linear):
        def forward(self, x):
            return super().forward(x) * float(x.mean())

    graphed = Graphed(Asks(40, 2).to("cuda"))
    for _ in range(5):
        output = step(graphed, [torch.ones(3, 40, device="cuda")])
        graphed.record()
    assert graphed.replay is graphed.network
    assert output.isfinite().all()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(1, device="cuda")  # an error, if the generator were still recorded
    assert torch.cuda.get_sync_debug_mode() == 0


def test_the_shape_that_comes_most_often_is_recorded(pretended):
    graphed, recorded = Graphed(network(), after=2), []
    for sizes in ([3], [3, 2, 3], [2, 2, 2]):
        for size in sizes:
            step(graphed, [torch.randn(size, 40)])
        graphed.record()
        recorded.append(graphed.recorded and graphed.recorded[0][0])
    assert recorded == [None, 3, 2]


def test_frozen_weights_are_recorded_anew(pretended):
    module = network()
    graphed = Graphed(module, after=1)
    step(graphed, [torch.randn(2, 40)])
    graphed.record()
    first = graphed.replay
    module[1].requires_grad_(False)
    module.zero_grad(set_to_none=True)
    step(graphed, [torch.randn(2, 40)])
    assert module[1].weight.grad is None
    assert REPLAYED == []
    graphed.record()
    assert graphed.replay is not first
    graphed.record()
    kept = graphed.replay
    graphed.record()
    assert graphed.replay is kept


def test_exchanged_buffers_and_parts_in_evaluation_are_not_replayed(pretended):
    module = network()
    graphed = Graphed(module, after=1)
    step(graphed, [torch.randn(2, 40)])
    graphed.record()
    module[2].eval()
    step(graphed, [torch.randn(2, 40)])
    module.train()
    module[2].running_mean = torch.ones(3)
    step(graphed, [torch.randn(2, 40)])
    assert REPLAYED == []
    graphed.record()
    step(graphed, [torch.randn(2, 40)])
    assert REPLAYED == [2]


def test_evaluation_is_not_recorded(pretended):
    module = network().eval()
    graphed = Graphed(module, after=1)
    graphed(torch.randn(2, 40))
    with torch.no_grad():
        module.train()
        graphed(torch.randn(2, 40))
    graphed.record()
    assert graphed.recorded is None


def test_recording_leaves_statistics_and_random_numbers_alone(pretended):
    module = network()
    module.append(nn.Dropout(0.5))
    graphed = Graphed(module, after=1)
    step(graphed, [torch.randn(2, 40)])
    module[2].running_var.fill_(7)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    graphed.record()
    assert torch.rand(1) == expected
    assert (module[2].running_var == 7).all()


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_what_cannot_be_recorded_is_called_as_always(
    pretended, monkeypatch, caplog, error
):
    def fail(call, samples):
        call(*samples)
        raise error("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    module = network()
    plain = copy.deepcopy(module)
    graphed = Graphed(module, after=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            x = torch.randn(2, 40)
            torch.testing.assert_close(step(graphed, [x]), step(plain, [x]))
            graphed.record()
    assert caplog.text.count("cuda_graphs: False") == 1
    assert "not permitted" in caplog.text


def test_on_a_cpu_nothing_is_recorded():
    graphed = Graphed(network(), after=1)
    step(graphed, [torch.randn(2, 40)])
    graphed.record()
    assert graphed.recorded is None
