"""Time to quality: what is timed."""

import pytest
import torch

from benchmarks import quality


def test_copies_are_kept_evenly_until_the_time_is_up():
    ticks = iter([0, 0, 0, 1, 5, 5, 6, 30, 30])  # two looks where a copy is made
    snapshots = quality.Snapshots(seconds=10, points=2, clock=lambda: next(ticks))
    module = torch.nn.Linear(1, 1)
    for _ in range(4):
        snapshots(module)
    with pytest.raises(quality.TimeIsUp):
        snapshots(module)
    assert [seconds for seconds, _ in snapshots.kept] == [0, 5, 30]


def test_a_copy_does_not_change_with_the_network():
    snapshots = quality.Snapshots(seconds=1, points=1, clock=lambda: 0.0)
    module = torch.nn.Linear(1, 1)
    snapshots(module)
    torch.nn.init.constant_(module.weight, 7.0)
    assert snapshots.kept[0][1]["weight"].item() != 7.0
