"""What is sent while a federation trains."""

import sys
import types

import pytest
import torch

from fedenhance.data.datasets import dataio_prepare
from fedenhance.reports import live
from tests.conftest import RATE
from tests.test_yaml import ROOT
from train import load_experiment


class Sink:
    """Keeps what it is sent."""

    def __init__(self, folder):
        self.folder = folder
        self.sent = []

    def scalars(self, values, step):
        self.sent.append((step, values))

    def audio(self, name, signal, sample_rate, step):
        self.sent.append((step, name, tuple(signal.shape), sample_rate))

    def figure(self, name, figure, step):
        titles = [axis.get_title() for axis in figure.axes]
        self.sent.append((step, name, titles))


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
    scalars = {"round/round": 3.0, "valid/loss": -1.5}
    assert sink.sent[-1] == (3, scalars)
    examples = [sent for sent in sink.sent if isinstance(sent[1], str)]
    kinds = ["noisy", "enhanced", "clean"]
    assert [sent[0] for sent in examples] == [1] * 4 + [2] * 4
    assert examples[0] == (1, "e0-1/noisy", (RATE // 2,), RATE)
    assert [sent[1].split("/")[1] for sent in examples[:3]] == kinds
    assert examples[3] == (1, "e0-1/spectrogram", kinds)


def test_nothing_is_opened_unless_asked_for(tmp_path):
    callback = live.Live([], tmp_path, None, RATE)
    callback(1, None, {"round": 1})
    assert callback.sinks is None


def test_sinks_are_chosen_on_the_command_line(tmp_path):
    overrides = "live: [!name:fedenhance.reports.live.TensorBoard ]\n"
    overrides += f"output_folder: {tmp_path}"
    hparams = load_experiment(ROOT / "hparams" / "fedenhance.yaml", overrides)
    (callback,) = hparams["federation"].callbacks
    assert callback.makers == [live.TensorBoard]


def test_tensorboard_gets_numbers_audio_and_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    sink = live.TensorBoard(tmp_path)
    sink.scalars({"valid/loss": 2.0}, 7)
    sink.audio("a/noisy", torch.zeros(100), RATE, 7)
    figure = live.spectrograms({"noisy": torch.randn(600)}, RATE)
    sink.figure("a/spectrogram", figure, 7)
    sink.writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert (tags["audio"], tags["images"]) == (["a/noisy"], ["a/spectrogram"])
    (number,) = events.Scalars("valid/loss")
    assert (number.step, number.value) == (7, 2.0)


def test_wandb_goes_on_with_the_run_of_its_folder(monkeypatch, tmp_path):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

    def init(**options):
        calls.append(options)
        return Run()

    module = types.SimpleNamespace(init=init)
    monkeypatch.setitem(sys.modules, "wandb", module)
    sink = live.WandB("results/a/1", project="mine")
    sink.scalars({"valid/loss": 2.0}, 7)
    assert calls[0]["id"] == "results-a-1"
    assert (calls[0]["project"], calls[0]["resume"]) == ("mine", "allow")
    assert calls[1] == (7, {"valid/loss": 2.0})


def test_a_sink_that_is_not_installed_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install wandb"):
        live.WandB(tmp_path)
