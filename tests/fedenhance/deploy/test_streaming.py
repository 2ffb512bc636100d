"""A stream gives what the whole signal gives."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.deploy.streaming import StreamingSeparator
from fedenhance.networks.blocks import Norm
from tests.fedenhance.networks.test_sudormrf import build

MODELS = Path(__file__).parents[3] / "hparams" / "models"
SIZES = {"channels": 6, "hidden_channels": 10, "num_blocks": 2}
HOP = 10


def causal_separator(depth=4):
    separator = build("causal", **SIZES, kernel_size=2 * HOP + 1, depth=depth)
    for block in separator.masknet.blocks:
        torch.nn.init.ones_(block.skip_gain)
    return separator


def run(stream, mixture, sizes):
    parts = [stream.push(samples) for samples in mixture.split(sizes, dim=1)]
    return torch.cat([*parts, stream.flush()], dim=-1)


@pytest.mark.parametrize("size", [1, HOP, 7, 64, 3000])
def test_a_stream_equals_the_whole_signal(size):
    separator, mixture = causal_separator(), torch.randn(2, 499)
    stream = StreamingSeparator(separator, batch_size=2)
    with torch.no_grad():
        expected = separator(mixture)
    actual = run(stream, mixture, size)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_second_signal_does_not_hear_the_first():
    stream, mixture = StreamingSeparator(causal_separator()), torch.randn(1, 500)
    first = run(stream, mixture, 100)
    run(stream, torch.randn(1, 321), 50)
    torch.testing.assert_close(run(stream, mixture, 100), first)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_depth_streams(depth):
    separator, mixture = causal_separator(depth), torch.randn(1, 777)
    with torch.no_grad():
        expected = separator(mixture)
    actual = run(StreamingSeparator(separator), mixture, HOP)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_estimates_are_at_most_the_latency_behind():
    stream, received, returned = StreamingSeparator(causal_separator()), 0, 0
    assert stream.latency == HOP + 1
    for _ in range(100):
        received += 1
        returned += stream.push(torch.randn(1, 1)).shape[-1]
        assert received - returned <= stream.latency


def test_the_state_does_not_grow():
    def size(stream):
        tensors = [stream.samples, stream.frames, *stream.masknet.state()]
        for block in stream.masknet.blocks:
            tensors += block.coarse
        return sum(tensor.numel() for tensor in tensors)

    stream = StreamingSeparator(causal_separator())
    stream.push(torch.randn(1, 640))
    before = size(stream)
    stream.push(torch.randn(1, 6400))
    assert size(stream) == before


def test_the_future_changes_no_frame_before_it():
    separator, mixture = causal_separator(), torch.randn(1, 640)
    changed = mixture.clone()
    changed[:, 400:] = torch.randn(1, 240)
    with torch.no_grad():
        before, after = separator(mixture), separator(changed)
    # The frame at sample 400 is the first to see it, and begins a hop before.
    torch.testing.assert_close(before[..., : 400 - HOP], after[..., : 400 - HOP])
    assert not torch.equal(before[..., 400:], after[..., 400:])


def test_a_separator_that_sees_the_future_is_refused():
    normalized = causal_separator()
    normalized.masknet.norm = Norm(8)
    for separator in (build("improved"), normalized):
        with pytest.raises(ValueError, match="CausalEncoder"):
            StreamingSeparator(separator)


def test_samples_of_another_batch_size_are_refused():
    with pytest.raises(ValueError, match=r"\(1, time\), got \(2, 5\)"):
        StreamingSeparator(causal_separator()).push(torch.randn(2, 5))


@pytest.mark.parametrize("name", ["gtcrn", "sudormrf_causal_small"])
@pytest.mark.parametrize("size", [1000, 256, 4096])
def test_architectures_stream_as_a_whole(name, size):
    separator, mixture = architecture(name), 0.3 + torch.randn(1, 5000)
    with torch.no_grad():
        expected = separator(mixture)
    stream = StreamingSeparator(separator)
    actual = run(stream, mixture, size)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual.sum(1), mixture, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "latency"), [("gtcrn", 512), ("sudormrf_causal_small", 33)]
)
def test_latency_is_reached_and_not_exceeded(name, latency):
    stream, behind = StreamingSeparator(architecture(name)), []
    received = returned = 0
    for size in [1] * 1100 + [256, 255, 1]:
        received += size
        returned += stream.push(torch.randn(1, size)).shape[-1]
        behind.append(received - returned)
    assert stream.latency == latency
    # What is there when the next sample comes is one more behind.
    assert max(behind) == latency - 1


def architecture(name):
    torch.manual_seed(0)
    with open(MODELS / f"{name}.yaml") as file:
        separator = load_hyperpyyaml(file)["separator"].eval()
    for block in getattr(separator.masknet, "blocks", []):
        torch.nn.init.constant_(block.skip_gain, 0.5)
    return separator
