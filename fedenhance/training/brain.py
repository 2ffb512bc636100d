"""What all Brains here do: count audio, pass over damage, log stages, keep the best."""

import torch
from speechbrain import Stage

from fedenhance.training.loading import KeepsProcesses
from fedenhance.training.stepping import Stepping


class AudioBrain(KeepsProcesses, Stepping):
    """A base of Brains that are trained on audio, some of which may be damaged.

    Batches have ``id`` and ``skipped``, the ids of damaged recordings. ``hparams`` has
    ``sample_rate`` and ``train_logger``. A Brain of its own says what it counts in
    ``samples_of``, what it measures in ``evaluation_stats``, and what is best in
    ``keep_best``.

    Statistics it logs: ``loss``; in training ``hours`` of audio and ``skipped``
    examples; in validation and test also ``evaluation_stats``.

    Attributes
    ----------
    num_examples : int
        Trained on since the Brain was made.
    num_samples, num_skipped : float, int
        Samples of audio trained on, and examples left out, since the stage began.
    train_stats, test_stats : dict
        Of the newest training and test.
    """

    keep_best = {"min_keys": ["loss"]}
    """By which validation statistic the checkpointer chooses."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_examples = self.num_samples = self.num_skipped = 0

    def samples_of(self, batch):
        """Count the samples of audio in a batch."""
        raise NotImplementedError

    def evaluation_stats(self):
        """What was measured since the stage began, beside the loss."""
        return {}

    def fit_batch(self, batch):
        """Fit one batch, and count what it held."""
        self.num_skipped += len(batch.skipped)
        if not batch.id:
            return torch.tensor(torch.nan)
        loss = super().fit_batch(batch)
        if torch.isfinite(loss):
            self.num_examples += len(batch.id)
            self.num_samples += self.samples_of(batch)
        else:
            self.num_skipped += len(batch.id)
        return loss

    def evaluate_batch(self, batch, stage):
        """Evaluate one batch; a batch of damaged recordings has no loss."""
        if not batch.id:
            return torch.tensor(torch.nan)
        if not hasattr(batch, "parts"):
            return super().evaluate_batch(batch, stage)
        loss = 0.0  # of examples of several lengths, each judged at its own
        for part in batch.parts:
            loss += super().evaluate_batch(part, stage) * len(part.id) / len(batch.id)
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Count anew."""
        super().on_stage_start(stage, epoch)
        self.num_skipped = self.num_samples = 0

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage; keep the best checkpoint by validation."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TRAIN:
            hours = self.num_samples / self.hparams.sample_rate / 3600
            self.train_stats = {"loss": stage_loss, "hours": hours}
            self.train_stats["skipped"] = self.num_skipped
            return
        stats = {"loss": stage_loss, **self.evaluation_stats()}
        if stage == Stage.TEST:
            self.test_stats = stats
            self.hparams.train_logger.log_stats({"stage": "test"}, test_stats=stats)
            return
        self.hparams.train_logger.log_stats(
            {"epoch": epoch}, train_stats=self.train_stats, valid_stats=stats
        )
        if self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(meta=stats, **self.keep_best)
