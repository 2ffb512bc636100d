"""What is sent while a federation trains."""

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch

from fedenhance.based_yaml import load_hparams
from fedenhance.data.datasets import dataio_prepare
from fedenhance.reports import live
from tests.conftest import RATE
from tests.test_yaml import ROOT


class Sink:
    """Keeps what it is sent."""

    def __init__(self, folder):
        self.folder = folder
        self.sent = []

    def log_round(self, number, values, sounds, figures, sample_rate):
        shapes = {name: tuple(signal.shape) for name, signal in sounds.items()}
        titles = {
            name: [axis.get_title() for axis in figure.axes]
            for name, figure in figures.items()
        }
        self.sent.append((number, values, shapes, titles, sample_rate))


class Doubling:
    """Stands for a Brain whose separator gives three equal parts."""

    device = "cpu"

    def __init__(self, consistency):
        separator = torch.nn.Identity()
        separator.forward = lambda mixture: mixture.unsqueeze(1).repeat(1, 3, 1) / 3
        self.modules = torch.nn.ModuleDict({"separator": separator})
        self.hparams = types.SimpleNamespace(consistency=consistency)


@pytest.fixture
def watched(hparams, tmp_path):
    """A federation's callback, its Brain and its sink, once a round has begun."""
    dataio_prepare(hparams)
    options = {"folder": tmp_path, "data_folder": hparams["data_folder"]}
    options |= {"sample_rate": RATE, "every": 2, "count": 1}
    made = []

    def make(folder):
        made.append(Sink(folder))
        return made[-1]

    return live.Live([make], **options), Doubling(hparams["consistency"]), made


def test_examples_come_in_the_first_round_and_every_few_rounds(watched):
    callback, brain, made = watched
    for number in (1, 2, 3):
        callback(number, brain, {"round": number, "valid_loss": -1.5, "note": "text"})
    (sink,) = made
    kinds = ["noisy", "enhanced", "clean"]
    shapes = {f"e0-1/{kind}": (RATE // 2,) for kind in kinds}
    titles = {"e0-1/spectrogram": kinds}
    for number, sent in enumerate(sink.sent, start=1):
        values = {"round/round": number, "valid/loss": -1.5}
        examples = (shapes, titles) if number < 3 else ({}, {})
        assert sent == (number, values, *examples, RATE)


def test_nothing_is_opened_unless_asked_for(tmp_path):
    callback = live.Live([], tmp_path, None, RATE)
    callback(1, None, {"round": 1})
    assert callback.opened == []


def test_sinks_are_chosen_on_the_command_line(tmp_path):
    overrides = "live: [!name:fedenhance.reports.live.TensorBoard ]\n"
    overrides += f"output_folder: {tmp_path}"
    hparams = load_hparams(ROOT / "hparams" / "fedenhance.yaml", overrides)
    (callback,) = hparams["federation"].callbacks
    assert callback.sinks == [live.TensorBoard]


def test_tensorboard_gets_numbers_audio_and_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    sink = live.TensorBoard(tmp_path)
    sounds = {"a/noisy": torch.zeros(100)}
    figures = {"a/spectrogram": live.spectrograms({"noisy": torch.randn(600)}, RATE)}
    sink.log_round(7, {"valid/loss": 2.0}, sounds, figures, RATE)
    sink.writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert (tags["audio"], tags["images"]) == (["a/noisy"], ["a/spectrogram"])
    (number,) = events.Scalars("valid/loss")
    assert (number.step, number.value) == (7, 2.0)
    for event in (*events.Audio("a/noisy"), *events.Images("a/spectrogram")):
        assert event.step == 7


def test_wandb_goes_on_with_the_run_of_its_folder(monkeypatch, tmp_path):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

    def init(**options):
        calls.append(options)
        return Run()

    def audio(signal, sample_rate):
        return signal.shape, sample_rate

    module = types.ModuleType("wandb")
    module.init, module.Audio, module.Image = init, audio, str
    module.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    sink = live.WandB("results/a/1", project="mine")
    sounds = {"a/noisy": torch.zeros(100)}
    sink.log_round(7, {"valid/loss": 2.0}, sounds, {"a/spectrogram": 1}, RATE)
    assert calls[0]["id"] == "results-a-1"
    assert (calls[0]["project"], calls[0]["resume"]) == ("mine", "allow")
    sent = {"valid/loss": 2.0, "a/noisy": ((100,), RATE), "a/spectrogram": "1"}
    assert calls[1] == (7, {"epoch": 7, **sent})


def test_a_sink_that_is_not_installed_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        live.WandB(tmp_path)
