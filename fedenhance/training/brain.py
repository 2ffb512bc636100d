"""What all Brains here do: count audio, pass over damage, log stages, keep the best."""

import math

import torch
from speechbrain import Stage
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.logger import get_logger

from fedenhance.run_folder.best import best_by
from fedenhance.run_folder.checkpoints import check_reported
from fedenhance.training.loading import KeepsProcesses
from fedenhance.training.stepping import Stepping

logger = get_logger(__name__)


def reports(*names):
    """Say which statistics an ``evaluation_stats`` may have, before it has any.

    What the best model is chosen by is compared with them before training begins. A
    method without it may have any.

    Arguments
    ---------
    *names : str
        Or patterns, such as ``si_sdri_*``.
    """

    def note(method):
        method.names = names
        return method

    return note


class AudioBrain(KeepsProcesses, Stepping):
    """A base of Brains that are trained on audio, some of which may be damaged.

    Batches have ``id`` and ``skipped``, the ids of damaged recordings. ``hparams`` has
    ``sample_rate`` and ``train_logger``. A Brain of its own says what it counts in
    ``samples_of``, and what it measures in ``evaluation_stats``, whose names
    :func:`reports` tells beforehand. ``maximize`` or ``minimize`` of ``hparams`` names
    the statistic of validation by which the best checkpoint is kept; without either it
    is the loss.

    Statistics it logs: ``loss``, the mean over the examples of a stage whatever batches
    they came in (NaN without any); in training ``hours`` of audio and ``skipped``
    examples; in validation and test also ``evaluation_stats``, and ``skipped`` if there
    are any.

    Attributes
    ----------
    num_examples : int
        Trained on since the Brain was made.
    num_samples, num_skipped, num_averaged : float, int, int
        Samples of audio trained on, examples left out, and examples in the mean loss,
        since the stage began.
    train_stats, test_stats : dict
        Of the newest training and test.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if names := getattr(self.evaluation_stats, "names", ()):
            _, key = best_by(vars(self.hparams))
            check_reported(key, ("loss", *names))
        self.num_examples = self.num_samples = self.num_skipped = 0
        self.num_averaged = self.batch_size = 0

    def samples_of(self, batch):
        """Count the samples of audio in a batch."""
        raise NotImplementedError

    def evaluation_stats(self):
        """What was measured since the stage began, beside the loss."""
        return {}

    def fit_batch(self, batch):
        """Fit one batch, and count what it held."""
        self.batch_size = len(batch.id)
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
        self.batch_size = len(batch.id)
        self.num_skipped += len(batch.skipped)
        if not batch.id:
            return torch.tensor(torch.nan)
        loss = 0.0  # of examples of several lengths, each judged at its own
        for part in getattr(batch, "parts", [batch]):
            share = len(part.id) / len(batch.id)
            loss += super().evaluate_batch(part, stage) * share
        if not torch.isfinite(loss):
            self.num_skipped += len(batch.id)
        return loss

    def update_average(self, loss, avg_loss):
        """Average over examples; SpeechBrain would over batches, of any size."""
        if not torch.isfinite(loss):
            return avg_loss
        if avg_loss and not self.num_averaged:  # of a checkpoint from within the epoch
            self.num_averaged = (self.step - 1) * self.batch_size
        self.num_averaged += self.batch_size
        parts = self.num_averaged / self.batch_size
        return avg_loss - avg_loss / parts + float(loss) / parts

    def on_stage_start(self, stage, epoch=None):
        """Count anew."""
        super().on_stage_start(stage, epoch)
        self.num_skipped = self.num_samples = self.num_averaged = 0

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the stage; keep the best checkpoint by validation."""
        super().on_stage_end(stage, stage_loss, epoch)
        if not self.num_averaged:
            stage_loss = stage_loss or math.nan  # SpeechBrain's 0.0 of no batch
        if stage != Stage.TRAIN and self.num_skipped:
            logger.warning(
                "%s: %d of %d examples are left out, damaged or without a finite loss",
                stage.name.lower(),
                self.num_skipped,
                self.num_skipped + self.num_averaged,
            )
        if stage == Stage.TRAIN:
            hours = self.num_samples / self.hparams.sample_rate / 3600
            self.train_stats = {"loss": stage_loss, "hours": hours}
            self.train_stats["skipped"] = self.num_skipped
            return
        stats = {"loss": stage_loss, **self.evaluation_stats()}
        if self.num_skipped:
            stats["skipped"] = self.num_skipped
        if stage == Stage.TEST:
            self.test_stats = stats
            self.hparams.train_logger.log_stats({"stage": "test"}, test_stats=stats)
            return
        self.hparams.train_logger.log_stats(
            {"epoch": epoch}, train_stats=self.train_stats, valid_stats=stats
        )
        if self.checkpointer is not None:
            self.save(stats)

    def save(self, stats):
        """Save a checkpoint; keep the best and the newest.

        Raises
        ------
        ValueError
            If validation does not tell what is best.
        """
        way, key = best_by(vars(self.hparams))
        # A federation sees to it itself.
        if isinstance(self.checkpointer, Checkpointer) and self.num_averaged:
            check_reported(key, stats)
        # What is no number takes no part in choosing the best.
        meta = {key: value for key, value in stats.items() if math.isfinite(value)}
        if self.num_averaged:
            self.checkpointer.save_and_keep_only(meta=meta, **{f"{way}_keys": [key]})
        else:
            self.checkpointer.save_checkpoint(meta=meta)
