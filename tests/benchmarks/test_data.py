"""The benchmark of data counts what can be counted by hand."""

import time
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import data
from fedenhance.data.audio import Segment, read_segment
from fedenhance.objectives.mixit import constrained_mixit


def test_batches_are_counted_until_the_time_is_over():
    ticks = iter(range(100))  # start, three looks, the end
    rate = data.batches_per_second(lambda: [[1, 2], [3]], 3, lambda: next(ticks))
    assert rate == 3 * 2 / 4


def test_a_copy_in_another_format_holds_the_same_part(tmp_path):
    path = tmp_path / "ramp.wav"
    ramp = np.arange(16000, dtype=np.int16)
    data.soundfile.write(path, ramp, 16000)
    rows = {"u": {"speech": Segment(str(path), 100, 200), "noise": None}}
    copied = data.convert(rows, tmp_path / "flac", "flac")
    segment = copied["u"]["speech"]
    assert segment.path.endswith(".flac") and copied["u"]["noise"] is None
    found = read_segment(*segment, sample_rate=16000, num_samples=100)
    assert (found * 32768).round().tolist() == list(range(100, 200))


def test_a_step_trains():
    separator = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)), torch.nn.Conv1d(1, 3, 1)
    )
    hparams = {
        "modules": {"separator": separator},
        "opt_class": partial(torch.optim.SGD, lr=0.1),
        "max_grad_norm": 5.0,
        "consistency": None,
        "objectives": {"unsupervised": constrained_mixit},
    }

    class Batch:
        class sources:
            data = torch.randn(2, 3, 100)

    before = separator[1].weight.detach().clone()
    assert data.step_seconds(hparams, Batch, time.perf_counter, repeats=2) > 0
    assert not torch.equal(before, separator[1].weight)


def test_an_unknown_section_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        data.parse(["read"])
    assert "no section read: there are load, switch" in capsys.readouterr().err
