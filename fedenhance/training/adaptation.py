"""Adaptation of a trained separator to recordings that nobody knows the parts of."""

from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from speechbrain import Stage

from fedenhance.data.estimates import hear_well
from fedenhance.data.recordings import GROUP
from fedenhance.networks.scaling import separate
from fedenhance.objectives.levels import si_sdr
from fedenhance.training.brain import reports
from fedenhance.training.separation import Separation


class Adaptation(Separation):
    """Training that starts from a trained model, stays near it, is judged beside it.

    It trains on the start's estimates, see ``fedenhance.data.estimates``.

    In validation it separates the recordings, and remixes of the start's estimates of
    them, see :class:`Remixes`. Statistics that it logs there: ``gain``, by how many dB
    it separates the remixes better than the start does; with a ``judge`` also the
    opinion scores ``sig``, ``bak`` and ``ovrl`` of its speech, and ``ovrl_gain`` over
    the start's; and the ``score`` by which the best round is chosen. The loss in
    validation and test is that of its estimates against the start's: how far it went.

    Batch normalisation keeps the start's statistics, unless ``frozen_statistics`` says
    otherwise: those of remixes are others.

    In addition to those of ``Separation``, ``hparams`` has:

    - ``start_model``: the trained model, ``(batch, time) -> (batch, source, time)``,
      with the ``separator`` whose weights training starts from;
    - ``judge``: ``(waveforms, sample_rate) -> list of dict`` with ``sig``, ``bak``
      and ``ovrl``, or None;
    - ``ovrl_tolerance``: what ``ovrl`` may lose before the score does, 10 dB a point;
    - ``anchor``: weight of the squared distance to the start's weights in the loss
      (L2-SP: Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning
      with convolutional networks", ICML 2018).
    """

    frozen_statistics = True

    def __init__(self, modules, *args, hparams, **kwargs):
        start = hparams["start_model"]
        modules["separator"].load_state_dict(start.separator.state_dict())
        super().__init__(modules, *args, hparams=hparams, **kwargs)
        self.anchors = {
            name: weight.detach().to(self.device)
            for name, weight in start.separator.named_parameters()
        }
        self.heard = {}  # estimates of the stage, by id
        self.remixes = None

    def compute_objectives(self, predictions, batch, stage):
        """The loss and the anchor; beyond training, how far it went."""
        if stage == Stage.TRAIN:
            loss = super().compute_objectives(predictions, batch, stage)
            return loss + self.hparams.anchor * self.distance()
        estimates, sources = predictions
        recordings = sources.sum(1)
        starts = self.hparams.start_model(recordings).to(estimates)
        for i, key in enumerate(batch.id):
            self.heard[key] = recordings[i].cpu(), starts[i].cpu(), estimates[i].cpu()
        return self.hparams.objectives[GROUP](estimates, starts).mean()

    def distance(self):
        """Squared distance of the weights to the start's."""
        if not self.hparams.anchor:
            return 0.0
        named = self.modules.separator.named_parameters()
        return sum((w - self.anchors[name]).square().sum() for name, w in named)

    def on_stage_start(self, stage, epoch=None):
        """Hear the recordings anew."""
        super().on_stage_start(stage, epoch)
        self.stage, self.heard = stage, {}

    @reports("gain", "score", "sig", "bak", "ovrl", "ovrl_gain")
    def evaluation_stats(self):
        """Judge the estimates of validation; the test set is judged at the end."""
        if self.stage != Stage.VALID or not self.heard:
            return {}
        if self.remixes is None or self.remixes.ids != list(self.heard):
            self.remixes = Remixes(self.heard, self.hparams.start_model)
        judged = judge(self.heard, self.remixes, self.separate, self.hparams)
        return summary(judged, self.hparams.ovrl_tolerance)

    @torch.no_grad()
    def separate(self, mixture):
        """Separate ``(batch, time)`` with the present model."""
        self.modules.eval()
        return separate(
            self.modules.separator, mixture.to(self.device), self.hparams.consistency
        )


class Judged(NamedTuple):
    """Values of the recordings and of the remixes, one each.

    ``gains``, in dB; ``before``, ``start`` and ``after``: lists of dict with opinion
    scores of the recordings, of the start's speech and of the model's; empty without a
    judge.
    """

    gains: list
    before: list
    start: list
    after: list


def judge(heard, remixes, model, hparams, before=False):
    """Compare a model with its start on recordings without references.

    Arguments
    ---------
    heard : dict
        Id -> recording ``(time,)``, the start's estimates and the model's, ``(source,
        time)``.
    remixes : Remixes
    model : callable
        ``(batch, time) -> (batch, source, time)``.
    hparams : namespace or dict-like
        With ``judge`` and ``sample_rate``.
    before : bool
        Whether to judge the recordings as they are, too.

    Returns
    -------
    Judged
    """
    gains = remixes.gains(model)
    if not hparams.judge:
        return Judged(gains, [], [], [])
    opinions = [
        hparams.judge(
            [take(row).numpy() for row in heard.values()], hparams.sample_rate
        )
        if wanted
        else []
        for wanted, take in (
            (before, lambda row: row[0]),
            (before or remixes.opinions is None, lambda row: row[1][0]),
            (True, lambda row: row[2][0]),
        )
    ]
    remixes.opinions = opinions[1] or remixes.opinions
    return Judged(gains, opinions[0], remixes.opinions, opinions[2])


def summary(judged, tolerance):
    """Means of what was judged.

    Arguments
    ---------
    judged : Judged
    tolerance : float
        See :class:`Adaptation`.

    Returns
    -------
    dict
        ``gain``, ``score`` and, with opinions, ``sig``, ``bak``, ``ovrl``,
        ``ovrl_gain``.

    Example
    -------
    >>> one = [{"sig": 3.0, "bak": 3.0, "ovrl": 3.0}]
    >>> summary(Judged([1.0, 0.0], [], one, one), tolerance=0.05)
    {'gain': 0.5, 'sig': 3.0, 'bak': 3.0, 'ovrl': 3.0, 'ovrl_gain': 0.0, 'score': 0.5}
    """
    stats = {"gain": fmean(judged.gains) if judged.gains else 0.0}
    lost = 0.0
    if judged.after:
        for name in ("sig", "bak", "ovrl"):
            stats[name] = float(np.nanmean([row[name] for row in judged.after]))
        start = float(np.nanmean([row["ovrl"] for row in judged.start]))
        stats["ovrl_gain"] = stats["ovrl"] - start
        lost = max(0.0, -stats["ovrl_gain"] - tolerance)
    return {**stats, "score": stats["gain"] - 10 * lost}


class Remixes:
    """Mixtures of a model's own estimates, whose parts are known therefore.

    The speech of the recordings that seem cleanest, one half of them, with the noise of
    others. A model that separates these better has learned these voices and noises; on
    recordings that it did not train on that is no matter of memory.

    Arguments
    ---------
    heard : dict
        Id -> recording and what else :func:`judge` has.
    start : callable
        ``(batch, time) -> (batch, source, time)``. The parts are what it hears when
        it hears well, see ``fedenhance.data.estimates``.
    most : int
        Remixes, at most.

    Example
    -------
    >>> halves = lambda mixture: torch.stack([mixture / 2, mixture / 2], 1)
    >>> heard = {i: (torch.randn(100), None, None) for i in range(4)}
    >>> Remixes(heard, halves).gains(halves)
    [0.0, 0.0]
    """

    def __init__(self, heard, start, most=40):
        self.ids, self.opinions = list(heard), None  # opinions of the start's estimates
        recordings = (recording for recording, _, _ in heard.values())
        estimates = [
            hear_well(start, wave.unsqueeze(0))[0].cpu() for wave in recordings
        ]
        order = sorted(range(len(estimates)), key=lambda i: -cleanness(estimates[i]))
        chosen = order[: max(1, len(order) // 2)][:most]
        self.pairs = []
        for turn, i in enumerate(chosen):
            j = order[-1 - turn]  # the cleanest speech, the loudest noise
            speech, noise = estimates[i][0], estimates[j][1:].sum(0)
            if i == j or not speech.any():
                continue
            noise = noise.repeat(-(-len(speech) // len(noise)))[: len(speech)]
            self.pairs.append((speech + noise, speech))
        self.levels = self.measure(start)

    def measure(self, model):
        """SI-SDR of a model's speech in each, in dB."""
        return [
            float(si_sdr(model(mixture.unsqueeze(0))[0, 0].cpu(), speech))
            for mixture, speech in self.pairs
        ]

    def gains(self, model):
        """By how many dB a model is better than the start in each."""
        levels = zip(self.measure(model), self.levels, strict=True)
        return [ours - start for ours, start in levels]


def cleanness(estimates):
    """How much louder speech is than noise by a model's own estimates, in dB."""
    speech, noise = estimates[0].square().sum(), estimates[1:].sum(0).square().sum()
    return float(10 * torch.log10((speech + 1e-12) / (noise + 1e-12)))
