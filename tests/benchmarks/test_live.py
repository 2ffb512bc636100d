"""What is measured of a model that runs live."""

import pytest

from benchmarks.live import lateness, measure
from fedenhance.deploy.blocks import Blocks
from fedenhance.deploy.trained import load_trained


@pytest.fixture(scope="module")
def blocks():
    return Blocks(load_trained(None))


def test_a_click_is_late_by_the_stated_delay(blocks):
    keep = blocks.keep
    assert lateness(blocks) == blocks.delay == 256
    assert blocks.keep is keep


def test_factors_and_latencies_add_up(blocks):
    ticks = iter([0.0, 0.004, 1.0, 1.004, 2.0, 2.004])
    row = measure(blocks, 3, lambda: next(ticks))
    assert row["real_time_factor"] == pytest.approx(0.25)
    assert row["stated_latency_ms"] == 32
    assert row["heard_after_ms"] == pytest.approx(36)
