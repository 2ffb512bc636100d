"""The stopwatch follows a network, and counts every second once."""

import pytest
import torch

from benchmarks import profiling


def test_every_second_is_given_to_one_part():
    ticks = iter(range(100))
    watch = profiling.Stopwatch(lambda: next(ticks))
    inner = watch.wrap(lambda: None, "inner")
    outer = watch.wrap(lambda: (inner(), inner()), "outer")
    outer()
    assert watch.seconds == {"outer": 3, "inner": 2}  # ticks 0 to 5


def test_a_part_that_fails_ends_too():
    watch = profiling.Stopwatch(iter(range(100)).__next__)
    with pytest.raises(ZeroDivisionError), watch("part"):
        watch.wrap(lambda: 1 / 0, "inner")()
    assert not watch.parts


def test_the_stopwatch_follows_both_passes():
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    watch = profiling.Stopwatch(iter(range(100)).__next__)
    hooks = profiling.follow(module, watch)
    with watch("forward"):
        loss = module(torch.randn(2, 4)).sum()
    with watch("backward"):
        loss.backward()
    for hook in hooks:
        hook.remove()
    parts = {f"{name}, {way}" for name in ("Linear", "ReLU") for way in WAYS}
    assert set(watch.seconds) == parts | {"Sequential, forward", *WAYS}
    assert sum(watch.seconds.values()) == watch.last - 1  # none between the passes


WAYS = ("forward", "backward")


def test_parts_of_a_run_exist():
    for owner, name, _ in profiling.PARTS:
        assert callable(getattr(owner, name)), f"{owner}.{name}"


def test_an_unknown_section_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        profiling.parse(["disk"])
    assert "no section disk: there are start" in capsys.readouterr().err


def test_a_step_is_measured_with_its_memory():
    row = profiling.step_of("sudormrf_groupcomm_small", 0.25, False, 1, 1)
    assert row["kept"] is False
    assert row["seconds"] > 0 and row["page_faults"] >= 0 and row["peak_mb"] > 100
