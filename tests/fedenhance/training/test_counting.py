"""What is counted of a batch, whatever the Brain."""

from types import SimpleNamespace

import pytest
import torch

from fedenhance.training.counting import CountsAudio


class Fits:
    """Stands for a Brain: the loss of a batch is given."""

    hparams = SimpleNamespace(sample_rate=3600)

    def fit_batch(self, batch):
        return torch.tensor(batch.loss)

    def evaluate_batch(self, batch, stage):
        return torch.tensor(batch.loss)

    def on_stage_start(self, stage, epoch=None):
        pass


class Counter(CountsAudio, Fits):
    def samples_of(self, batch):
        return 1800 * len(batch.id)


def batch(ids, skipped=(), loss=1.0):
    return SimpleNamespace(id=ids, skipped=list(skipped), loss=loss)


def test_what_was_trained_on_is_counted_and_what_was_not():
    brain = Counter()
    brain.fit_batch(batch(["a", "b"], skipped=["c"]))
    brain.fit_batch(batch(["d"], loss=float("nan")))
    assert torch.isnan(brain.fit_batch(batch([], skipped=["e", "f"])))
    stats = brain.training_stats(2.0)
    assert stats == {"loss": 2.0, "hours": pytest.approx(1 / 3600), "skipped": 4}
    assert brain.num_examples == 2


def test_a_stage_counts_anew_but_examples_go_on():
    brain = Counter()
    brain.fit_batch(batch(["a"], skipped=["b"]))
    brain.on_stage_start("train")
    assert (brain.num_samples, brain.num_skipped, brain.num_examples) == (0, 0, 1)


def test_a_batch_without_examples_has_no_loss_in_evaluation():
    brain = Counter()
    assert torch.isnan(brain.evaluate_batch(batch([]), "valid"))
    assert brain.evaluate_batch(batch(["a"]), "valid") == 1.0
