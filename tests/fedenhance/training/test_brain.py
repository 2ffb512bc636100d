"""What is counted, passed over, logged and kept, whatever the Brain."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from speechbrain import Stage

from fedenhance.training.brain import AudioBrain


class Log(list):
    """Keeps what is logged."""

    def log_stats(self, meta, **stats):
        self.append((meta, stats))


class Counter(AudioBrain):
    """Says of a batch what it holds: seconds of audio, and its loss."""

    def compute_forward(self, batch, stage):
        return self.modules.model(torch.ones(1))

    def compute_objectives(self, predictions, batch, stage):
        return 0 * predictions.sum() + batch.loss

    def samples_of(self, batch):
        return 1800 * len(batch.id)

    def evaluation_stats(self):
        return {"score": 7}


@pytest.fixture
def brain():
    return Counter(
        modules={"model": torch.nn.Linear(1, 1)},
        opt_class=lambda weights: torch.optim.SGD(weights, lr=0.1),
        hparams={"sample_rate": 3600, "train_logger": Log()},
        run_opts={"device": "cpu", "noprogressbar": True, "skip_nonfinite_grads": True},
    )


def batch(ids, skipped=(), loss=1.0):
    return SimpleNamespace(id=ids, skipped=list(skipped), loss=loss)


def loader(*batches):
    return torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=lambda b: b)


def test_what_was_trained_on_is_counted_and_what_was_not(brain):
    brain.fit(
        [1],
        loader(
            batch(["a", "b"], skipped=["c"], loss=2.0),
            batch(["d"], loss=float("nan")),
            batch([], skipped=["e", "f"]),
        ),
    )
    assert brain.train_stats["hours"] == pytest.approx(1 / 3600)
    assert brain.train_stats["skipped"] == 4
    assert brain.num_examples == 2


def test_a_stage_counts_anew_but_examples_go_on(brain):
    brain.fit([1], loader(batch(["a"], skipped=["b"])))
    brain.on_stage_start(Stage.TRAIN)
    assert (brain.num_samples, brain.num_skipped, brain.num_examples) == (0, 0, 1)


def test_a_batch_without_examples_has_no_loss_in_evaluation(brain):
    assert torch.isnan(brain.evaluate_batch(batch([]), Stage.VALID))
    assert brain.evaluate_batch(batch(["a"]), Stage.VALID) == 1.0


def test_stages_are_logged_and_the_best_is_kept(brain):
    brain.checkpointer = Mock()
    brain.fit([3], loader(batch(["a"], loss=2.0)), loader(batch(["b"], loss=4.0)))
    brain.evaluate(loader(batch(["c"], loss=5.0)))
    trained = {"loss": 2.0, "hours": 0.5 / 3600, "skipped": 0}
    valid, tested = ({"loss": loss, "score": 7} for loss in (4.0, 5.0))
    assert brain.hparams.train_logger == [
        ({"epoch": 3}, {"train_stats": trained, "valid_stats": valid}),
        ({"stage": "test"}, {"test_stats": tested}),
    ]
    keep = brain.checkpointer.save_and_keep_only
    keep.assert_called_once_with(meta=valid, min_keys=["loss"])
