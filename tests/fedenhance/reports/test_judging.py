"""An adapted model is kept only if it is better than its start."""

from types import SimpleNamespace

import pytest
import torch

from fedenhance.reports.judging import best_of, checkpoints_of, describe
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
