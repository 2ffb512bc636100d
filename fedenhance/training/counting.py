"""What all Brains here count: examples, audio, and what was left out."""

import torch


class CountsAudio:
    """Mixed in before ``speechbrain.Brain``; passes over batches without examples.

    Batches have ``id`` and ``skipped``, the ids of damaged recordings. ``hparams`` has
    the ``sample_rate``.

    Attributes
    ----------
    num_examples : int
        Trained on since the Brain was made.
    num_samples, num_skipped : float, int
        Samples of audio trained on, and examples left out, since the stage began.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_examples = 0
        self.num_samples = 0
        self.num_skipped = 0

    def samples_of(self, batch):
        """Count the samples of audio in a batch."""
        raise NotImplementedError

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
        return super().evaluate_batch(batch, stage)

    def on_stage_start(self, stage, epoch=None):
        """Count anew."""
        super().on_stage_start(stage, epoch)
        self.num_skipped = self.num_samples = 0

    def training_stats(self, loss):
        """What is logged of training: ``loss``, ``hours`` of audio, ``skipped``."""
        hours = self.num_samples / self.hparams.sample_rate / 3600
        return {"loss": loss, "hours": hours, "skipped": self.num_skipped}
