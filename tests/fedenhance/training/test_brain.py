"""What is counted, passed over, logged and kept, whatever the Brain."""

import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from speechbrain import Brain, Stage
from speechbrain.utils.checkpoints import Checkpointer

from fedenhance.training.brain import AudioBrain, reports


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


class Told(Counter):
    """Says what it reports before it does."""

    @reports("score", "score_*")
    def evaluation_stats(self):
        return super().evaluation_stats()


class More(Told):
    """Reports more, and does not say so."""

    def evaluation_stats(self):
        return {**super().evaluation_stats(), "pesq": 1.0}


@pytest.mark.parametrize("key", ["loss", "score", "valid_score_2"])
def test_what_is_reported_may_choose_the_best(key):
    Told(hparams={"maximize": key})


def test_what_is_not_reported_is_refused_before_training():
    with pytest.raises(ValueError, match="by 'pesq', but validation reports"):
        Told(hparams={"maximize": "pesq"})
    More(hparams={"maximize": "pesq"})


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


def test_losses_are_means_over_examples(brain):
    """Batches of one and of two with losses 4 and 1: (4 + 2 * 1) / 3."""
    sets = [
        loader(
            batch([], skipped=["x"], loss=100.0),
            batch(["a"], loss=4.0),
            batch(["n", "m"], loss=float("nan")),
            batch(["b", "c"], skipped=["y"], loss=1.0),
        )
        for _ in range(3)
    ]
    brain.fit([1], *sets[:2])
    brain.evaluate(sets[2])
    (_, epoch), (_, test) = brain.hparams.train_logger
    for stats in (*epoch.values(), *test.values()):
        assert stats["loss"] == pytest.approx(2.0)
        assert stats["skipped"] == 4


def test_what_evaluation_leaves_out_is_said(brain, caplog):
    brain.evaluate(loader(batch(["a"]), batch(["b"], skipped=["x"], loss=torch.inf)))
    assert "test: 2 of 3 examples are left out" in caplog.text


def test_equal_batches_have_the_mean_that_speechbrain_gives(brain):
    losses, average, theirs = torch.rand(50).tolist(), 0.0, 0.0
    brain.batch_size = 3
    for brain.step, loss in enumerate(losses, start=1):
        theirs = Brain.update_average(brain, torch.tensor(loss), theirs)
        average = brain.update_average(torch.tensor(loss), average)
        assert average == theirs


def test_an_epoch_that_goes_on_from_its_middle_keeps_its_mean(brain):
    brain.step, brain.batch_size = 4, 2  # three batches are in the mean of 1.0
    assert brain.update_average(torch.tensor(5.0), 1.0) == 2.0


def test_no_examples_have_no_loss_and_are_never_the_best(brain, tmp_path):
    brain.checkpointer = Checkpointer(tmp_path, {"model": brain.modules.model})
    for epoch, valid in (
        (1, [batch(["a"], loss=3.0)]),
        (2, [batch([], ["x"])]),
        (3, []),
    ):
        brain.modules.model.bias.data.fill_(epoch)
        brain.fit([epoch], loader(batch(["t"])), loader(*valid))
        brain.step = 0
    losses = [stats["valid_stats"]["loss"] for _, stats in brain.hparams.train_logger]
    assert losses[0] == 3.0
    assert all(map(math.isnan, losses[1:]))
    brain.evaluate(loader(batch(["b"])), min_key="loss")
    assert brain.modules.model.bias.item() == pytest.approx(1)
