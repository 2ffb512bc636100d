"""Live, a model gives what it gives on the whole signal."""

import io
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedenhance.commands.export import main as export
from fedenhance.commands.live import main
from fedenhance.deploy import live
from fedenhance.deploy.blocks import Blocks, OnnxBlocks, Traced
from fedenhance.deploy.live import Timed, filter_raw, run_microphone, to_raw
from fedenhance.deploy.streaming import StreamingSeparator
from fedenhance.deploy.trained import load_trained
from tests.fedenhance.deploy.test_packaging import save_run

HPARAMS = """
sample_rate: 8000
modules:
  separator: !new:fedenhance.networks.separator.Separator
    encoder: !new:fedenhance.networks.spectrum.SpectralEncoder
      fft_length: 32
    masknet: !new:fedenhance.networks.gtcrn.MaskNet
      num_sources: 2
      fft_length: 32
      sample_rate: 8000
      num_low_bins: 9
      num_bands: 4
      channels: 4
      hidden_channels: 4
      dilations: [1, 2]
      num_blocks: 1
    decoder: !new:fedenhance.networks.spectrum.SpectralDecoder
      fft_length: 32
    masking: False
    level: !new:fedenhance.networks.scaling.RunningLevel
      num_frames: 50
consistency: !name:fedenhance.objectives.consistency.by_power
"""
LENGTH = 1111


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("live") / "run", HPARAMS)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The model block by block; onnxruntime's."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    path = tmp_path_factory.mktemp("exported") / "live.onnx"
    with warnings.catch_warnings(action="ignore"):  # of PyTorch, about its own code
        export([str(run), "--out", str(path), "--block", "16"])
    return path


def noise(length=LENGTH):
    generator = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(1, length, generator=generator) + 0.02


def filtered(blocks, kind, data):
    sink = io.BytesIO()
    filter_raw(Timed(blocks), io.BytesIO(data), sink, kind)
    return sink.getvalue()


def assert_whole(run, blocks):
    mixture = noise()
    raw = filtered(blocks, "f32", mixture.numpy().tobytes())
    expected = load_trained(run)(mixture)[0, 0]
    actual = torch.from_numpy(np.frombuffer(raw, "<f4").copy())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_pytorch_gives_what_the_whole_signal_gives(run):
    assert_whole(run, Blocks(load_trained(run)))


def test_what_is_traced_gives_what_the_stream_gives(run):
    trained = load_trained(run)
    blocks, plain = Blocks(trained), Blocks(trained)
    assert isinstance(blocks.stream, Traced)
    plain.stream = StreamingSeparator(trained.separator)
    for part in noise(10 * blocks.block).view(10, -1).numpy():
        np.testing.assert_allclose(blocks.push(part), plain.push(part), atol=1e-6)


@pytest.mark.parametrize("fault", ["refuses", "is silent", "lies"])
def test_what_cannot_be_traced_runs_as_it_is(run, monkeypatch, fault):
    def trace(step, example, **options):
        if fault == "refuses":
            raise RuntimeError("no tracing here")
        if fault == "is silent":
            raise RuntimeError
        return lambda samples, state: (torch.zeros(1, 2, 128), state)

    monkeypatch.setattr(torch.jit, "trace", trace)
    monkeypatch.setattr(torch.jit, "freeze", lambda traced: traced)
    blocks = Blocks(load_trained(run))
    assert isinstance(blocks.stream, StreamingSeparator)
    assert_whole(run, blocks)


def test_onnx_gives_what_the_whole_signal_gives(run, exported):
    assert_whole(run, OnnxBlocks(exported))


def test_a_file_says_what_it_takes(exported):
    blocks = OnnxBlocks(exported)
    assert (blocks.sample_rate, blocks.block, blocks.delay) == (8000, 128, 16)
    about = blocks.session.get_modelmeta().custom_metadata_map
    assert about["latency"] == "18 ms"
    assert about["licence"].startswith("Apache-2.0")
    assert about["sources"] == "speech, noise1"


@pytest.mark.parametrize("length", [0, 1, 128, 129, 500])
def test_as_much_comes_out_as_went_in(run, length):
    data = np.zeros(length, "<i2").tobytes()
    assert filtered(Blocks(load_trained(run)), "s16", data) == data


def test_samples_that_are_too_loud_are_clipped():
    raw = to_raw(np.array([2.0, -2.0, 0.5 / 32768], np.float32), *live.RAW["s16"])
    assert np.frombuffer(raw, "<i2").tolist() == [32767, -32768, 0]


def test_a_click_comes_out_after_the_stated_latency(run):
    blocks = Blocks(load_trained(run))
    received, heard = [], []
    for number in range(10):
        block = np.zeros(blocks.block, np.float32)
        block[0] = number == 5
        received.append(block)
        heard.append(blocks.push(block))
    received, heard = map(np.concatenate, (received, heard))
    first = np.abs(heard).argmax() - received.argmax()
    assert first == blocks.delay
    timed = Timed(blocks, clock=iter([0.0, 0.008]).__next__)
    timed.push(received[: blocks.block])
    assert "latency 18 ms" in timed.latency()
    assert timed.summary().endswith("real-time factor 0.50")


def test_the_command_filters_a_pipe(run, monkeypatch, capsys):
    sink = io.BytesIO()
    samples = (noise().numpy() * 32768).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(samples)))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sink))
    main([str(run), "--raw", "s16"])
    assert len(sink.getvalue()) == len(samples)
    said = capsys.readouterr().err
    assert "latency 18 ms" in said
    assert "real-time factor" in said


def test_a_microphone_is_enhanced_block_by_block(run, monkeypatch):
    heard = []

    class Stream:
        latency = (0.01, 0.02)

        def __init__(self, samplerate, blocksize, channels, callback, **options):
            assert (samplerate, blocksize, channels) == (8000, 128, 1)
            self.callback = callback

        def __enter__(self):
            wanted = np.full((128, 1), 9.0, np.float32)
            self.callback(np.ones((128, 1), np.float32), wanted, 128, None, None)
            heard.append(wanted)

        def __exit__(self, *error):
            return None

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(Stream=Stream))
    monkeypatch.setattr(live.time, "sleep", interrupt)
    run_microphone(Timed(Blocks(load_trained(run))))
    assert heard[0].shape == (128, 1)
    assert np.abs(heard[0]).max() < 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "!new:fedenhance.networks.scaling.RunningLevel\n      num_frames: 50",
            "scaled by their whole level",
        ),
        ("", "pip install sounddevice"),
    ],
)
def test_what_cannot_run_live_is_said(tmp_path, monkeypatch, change, words):
    hparams = HPARAMS.replace(change, "null") if change else HPARAMS
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises((ImportError, ValueError), match=words):
        main([str(save_run(tmp_path / "run", hparams))])


def test_a_network_that_sees_the_future_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Only a causal separator"):
        main([str(save_run(tmp_path / "run")), "--raw", "f32"])


def test_blocks_that_do_not_fit_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="a multiple of 16 samples"):
        export([str(run), "--out", str(tmp_path / "a.onnx"), "--block", "15.1"])
