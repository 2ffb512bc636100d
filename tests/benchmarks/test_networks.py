"""The benchmark of networks counts what can be counted by hand."""

import pytest
import torch

from benchmarks import networks

ARGUMENTS = ["sudormrf_groupcomm_small", "--quick"]


class Frames(torch.nn.Module):
    """Apply a layer to frames of 100 samples, 640 of them in four seconds."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, mixture):
        return self.layer(mixture.unflatten(1, (-1, 100)))


@pytest.fixture
def args():
    return networks.parse(ARGUMENTS)


def test_a_linear_layer_multiplies_every_weight_with_every_frame(args):
    macs = networks.count_macs(Frames(torch.nn.Linear(100, 10)), args)
    assert macs == 160 * 100 * 10


def test_an_lstm_multiplies_the_weights_of_four_gates(args):
    lstm = torch.nn.LSTM(100, 10, bidirectional=True, batch_first=True)
    assert networks.count_macs(Frames(lstm), args) == 160 * 2 * 4 * 10 * (100 + 10)


def test_times_are_measured_for_every_network(args):
    networks_by_code = dict.fromkeys(("ours", "authors"), torch.nn.Linear(10, 10))
    ticks = iter(range(100))
    found = networks.measure_times(
        networks_by_code, torch.ones(1, 10), args, lambda: next(ticks)
    )
    assert found == {"ours": (1, 1), "authors": (1, 1)}


def test_a_ratio_is_ours_over_the_authors():
    ours = {"forward_seconds": 1.0, "train_seconds": 3.0, "train_memory_mb": 1.0}
    authors = {"forward_seconds": 2.0, "train_seconds": 4.0, "train_memory_mb": 5.0}
    networks.compare(ours, authors)
    assert ours["forward_ratio"] == 0.5
    assert ours["train_ratio"] == 0.75
    assert ours["memory_ratio"] == 0.2


def test_an_unknown_network_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        networks.parse(["sudormrf"])
    assert "no network sudormrf: there are convtasnet," in capsys.readouterr().err


def test_a_missing_checkout_of_the_authors_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        networks.parse(["--authors", str(tmp_path)])
    assert f"{tmp_path / 'fedenhance/fedenhance'} is missing" in capsys.readouterr().err
