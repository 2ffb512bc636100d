"""An adapted model is kept only if it is better than its start."""

from types import SimpleNamespace

import pytest
import torch

from fedenhance.reports.judging import (
    best_of,
    checkpoints_of,
    describe,
    keep_if_better,
    replace_best,
)
from fedenhance.run_folder.checkpoints import Checkpoints
from fedenhance.training.adaptation import Judged


def scores(value, count=8):
    return [{"sig": value, "bak": value, "ovrl": value}] * count


@pytest.mark.parametrize(
    ("gains", "ovrl", "kept"),
    [
        ([0.4, 0.5, 0.6] * 3, 3.0, True),
        ([0.4, 0.5, 0.6] * 3, 2.97, True),  # within the tolerance
        ([0.4, 0.5, 0.6] * 3, 2.8, False),  # sounds worse
        ([-0.4, -0.5, -0.6] * 3, 3.2, False),  # separates worse
        ([2.0, -1.9] * 4, 3.0, False),  # may be chance
    ],
)
def test_better_is_beyond_chance_and_sounds_no_worse(gains, ovrl, kept):
    judged = Judged(gains, scores(2.0), scores(3.0), scores(ovrl))
    verdict = describe(judged, tolerance=0.05, share=1.0)
    assert verdict["kept"] == kept
    assert verdict["sentence"].endswith("use it." if kept else "kept in its place.")
    assert verdict["sentence"].startswith("On 8 recordings held out")
    assert "\n" not in verdict["sentence"]


def test_one_recording_tells_nothing():
    verdict = describe(Judged([], [], [], []), tolerance=0.05, share=1.0)
    assert not verdict["kept"] and "too few" in verdict["sentence"]
    assert "nan" not in verdict["sentence"]


def test_the_best_model_of_a_federation_is_found_though_its_brain_has_no_checkpointer(
    tmp_path,
):
    modules = {"separator": torch.nn.Linear(1, 1), "idle": torch.nn.Identity()}
    checkpoints = Checkpoints(tmp_path / "save", {"separator": modules["separator"]})
    checkpoints.save_checkpoint(meta={"round": 3})
    brain = SimpleNamespace(checkpointer=None, modules=modules)
    assert best_of(checkpoints_of(brain, tmp_path)).meta["round"] == 3
    brain.checkpointer = checkpoints
    assert checkpoints_of(brain, tmp_path) is checkpoints


def test_what_was_judged_is_not_judged_again(tmp_path):
    """The same command again would average what is averaged, and judge the start."""
    layer = torch.nn.Linear(1, 1)
    checkpoints = Checkpoints(tmp_path, {"layer": layer})
    for score in (2.0, 1.0):
        checkpoints.save_and_keep_only(meta={"score": score}, max_keys=["score"])
    torch.nn.init.constant_(layer.weight, 7)
    replace_best(checkpoints)
    checkpoints.recover_if_possible()
    assert layer.weight != 7  # what goes on, goes on from the newest
    checkpoints.recover_if_possible(max_key="score")
    assert layer.weight == 7
    before = sorted(tmp_path.rglob("*"))
    brain = SimpleNamespace(checkpointer=checkpoints, modules={"layer": layer})
    keep_if_better(brain, None, {"output_folder": tmp_path})
    assert sorted(tmp_path.rglob("*")) == before
