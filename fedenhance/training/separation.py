"""The Brain: learns to separate speech from noise, with or without references."""

import math
from statistics import fmean

import torch
from speechbrain import Stage
from torch.nn.modules.batchnorm import _BatchNorm

from fedenhance.networks.scaling import separate
from fedenhance.objectives.levels import si_sdr
from fedenhance.training.brain import AudioBrain, reports
from fedenhance.training.graphs import Graphed


def mixtures_of(sources):
    """The two mixtures that a mixture of mixtures was added from.

    Arguments
    ---------
    sources : torch.Tensor
        ``(batch, 3, time)``: speech, its noise, extra noise.

    Returns
    -------
    torch.Tensor
        ``(batch, 2, time)``: noisy recording, isolated noise.

    Example
    -------
    >>> mixtures_of(torch.tensor([[[1.0], [2.0], [4.0]]])).tolist()
    [[[3.0], [4.0]]]
    """
    return torch.stack([sources[:, :2].sum(1), sources[:, 2]], dim=1)


class Separation(AudioBrain):
    """Trains a separator; each example by the objective of its group.

    Batches have ``sources (batch, 3, time)``, as ``fedenhance.data.mixing`` makes them,
    and ``group``. Its mixtures alone reach the objective of the group
    ``"unsupervised"``, so that no reference is ever asked for; the objective of any
    other group is given the sources.

    ``modules`` has the ``separator``, ``(batch, time) -> (batch, source, time)``.
    ``hparams`` has:

    - ``objectives``: group -> ``(estimates, targets) -> (batch,)``;
    - ``consistency``: ``(estimates, mixture) -> estimates``;
    - ``mixing``: told the epoch, so that it draws new mixtures;
    - ``sample_rate``, ``train_logger``;
    - ``frozen_statistics``, if it is there: whether batch normalisation trains with the
      statistics that it has, which then never change; None: where there is an
      ``initial_model``, whose they are;
    - ``cuda_graphs``, if it is there: whether the separator's training steps are
      recorded on a GPU after the first epoch, see ``fedenhance.training.graphs``.

    Statistics it logs in validation and test, beside those of ``AudioBrain``:
    ``si_sdr`` and the improvement ``si_sdri`` of the speech in dB, the latter also for
    one and for two noises (``si_sdri_1``, ``si_sdri_2``). ``utterances`` keeps them one
    by one.
    """

    frozen_statistics = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.utterances = []
        self.graphed = None

    def on_fit_start(self):
        """Prepare to record the separator as it is after compiling."""
        super().on_fit_start()
        separator = self.modules.separator
        several = self.distributed_launch or self.data_parallel_backend
        if several or not getattr(self.hparams, "cuda_graphs", False):
            self.graphed = None
        elif self.graphed is None or self.graphed.network is not separator:
            self.graphed = Graphed(separator)

    def fit_batch(self, batch):
        """Fit one batch; statistics of batch normalisation may stay as they are."""
        frozen = getattr(self.hparams, "frozen_statistics", self.frozen_statistics)
        if frozen is None:
            frozen = getattr(self.hparams, "initial_model", None) is not None
        if frozen:
            for module in self.modules.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return super().fit_batch(batch)

    def compute_forward(self, batch, stage):
        """Separate the sum of the sources; return estimates and sources."""
        sources = batch.sources.data.to(self.device, non_blocking=True)
        training = stage == Stage.TRAIN and self.graphed is not None
        separator = self.graphed if training else self.modules.separator
        estimates = separate(separator, sources.sum(1), self.hparams.consistency)
        return estimates, sources

    def compute_objectives(self, predictions, batch, stage):
        """Mean over the batch of each example's own objective, in dB."""
        estimates, sources = predictions
        losses = []
        for group in sorted(set(batch.group)):
            members = [i for i, name in enumerate(batch.group) if name == group]
            # All of them without a copy: indices would have to travel to a GPU.
            where = slice(None) if len(members) == len(estimates) else members
            targets = sources[where]
            if group == "unsupervised":
                targets = mixtures_of(targets)
            if group not in self.hparams.objectives:
                raise ValueError(
                    f"objectives has no entry for the group {group} of client_groups"
                )
            objective = self.hparams.objectives[group]
            losses.append(objective(estimates[where], targets).float())
        if stage != Stage.TRAIN:
            self.utterances += describe_utterances(batch, estimates, sources)
        return torch.cat(losses).mean()

    def samples_of(self, batch):
        """Count the samples of the mixtures."""
        examples, _, samples = batch.sources.data.shape
        return examples * samples

    def on_stage_start(self, stage, epoch=None):
        """Count anew; draw new mixtures in training."""
        super().on_stage_start(stage, epoch)
        self.utterances = []
        if stage == Stage.TRAIN:
            self.hparams.mixing.epoch = epoch
            if self.graphed is not None:
                self.graphed.record()

    @reports("si_sdr", "si_sdri", "si_sdri_*")
    def evaluation_stats(self):
        """Means over the utterances of the stage; NaN where none could be evaluated."""
        if not self.num_averaged:
            return {"si_sdr": math.nan, "si_sdri": math.nan}
        return mean_scores(self.utterances)


def describe_utterances(batch, estimates, sources):
    """One row an utterance whose clean speech is known and not silent.

    Arguments
    ---------
    batch : PaddedBatch
        With ``id``, ``group``, ``n_noises``, ``spk_id``, ``noise_class``.
    estimates, sources : torch.Tensor
        ``(batch, 3, time)``; the speech in row 0.

    Returns
    -------
    list of dict
        ``id``, ``n_noises``, ``si_sdr_in``, ``si_sdr``, ``si_sdri`` (dB), ``spk_id``,
        ``noise_class``.
    """
    speech = sources[:, 0]
    before = si_sdr(sources.sum(1), speech)
    after = si_sdr(estimates[:, 0], speech)
    known = speech.abs().amax(-1) > 0
    return [
        {
            "id": batch.id[i],
            "n_noises": int(batch.n_noises[i]),
            "si_sdr_in": float(before[i]),
            "si_sdr": float(after[i]),
            "si_sdri": float(after[i] - before[i]),
            "spk_id": batch.spk_id[i],
            "noise_class": batch.noise_class[i],
        }
        for i, group in enumerate(batch.group)
        if group == "supervised" and known[i]
    ]


def mean_scores(utterances):
    """Mean SI-SDR and improvements over utterances, in dB.

    Arguments
    ---------
    utterances : list of dict
        As :func:`describe_utterances` makes them.

    Returns
    -------
    dict
        ``si_sdr``, ``si_sdri``, and ``si_sdri_<n>`` for each number of noises; empty
        without utterances.

    Example
    -------
    >>> row = {"si_sdr": 4.0, "si_sdri": 3.0, "n_noises": 1}
    >>> mean_scores([row, {**row, "si_sdri": 5.0, "n_noises": 2}])
    {'si_sdr': 4.0, 'si_sdri': 4.0, 'si_sdri_1': 3.0, 'si_sdri_2': 5.0}
    """
    if not utterances:
        return {}
    stats = {
        key: fmean(row[key] for row in utterances) for key in ("si_sdr", "si_sdri")
    }
    for count in sorted({row["n_noises"] for row in utterances}):
        values = [row["si_sdri"] for row in utterances if row["n_noises"] == count]
        stats[f"si_sdri_{count}"] = fmean(values)
    return stats
