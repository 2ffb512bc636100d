"""Adapting starts from a trained model and is judged beside it."""

import pytest
import torch
from speechbrain import Stage
from torch import nn

from fedenhance.deploy.trained import Trained
from fedenhance.training.adaptation import Adaptation, Remixes, cleanness


class Halves(nn.Module):
    """Speech is a share of the mixture."""

    def __init__(self, share):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, mixture):
        return torch.stack([self.share * mixture, (1 - self.share) * mixture], dim=1)


def brain(anchor=0.0, judge=None):
    start = Trained(Halves(0.5), None, 16000, {})
    hparams = {"start_model": start, "consistency": None, "anchor": anchor}
    hparams |= {"judge": judge, "ovrl_tolerance": 0.05, "sample_rate": 16000}
    return Adaptation({"separator": Halves(0.9)}, None, hparams=hparams)


def test_training_starts_from_the_start_and_the_anchor_pulls_to_it():
    own = brain(anchor=2.0)
    assert own.modules.separator.share == 0.5 and own.distance() == 0
    with torch.no_grad():
        own.modules.separator.share += 0.25
    assert own.distance() == 0.0625
    assert brain().distance() == 0.0


def test_without_a_change_there_is_no_gain_and_remixes_follow_the_recordings():
    own = brain(
        judge=lambda signals, rate: [{"sig": 1, "bak": 2, "ovrl": 3}] * len(signals)
    )
    for count in (1, 4):  # a trial of one recording comes first
        own.on_stage_start(Stage.VALID)
        signals = torch.randn(count, 800)
        starts = own.hparams.start_model(signals)
        own.heard = {k: (signals[k], starts[k], starts[k]) for k in range(count)}
        stats = own.evaluation_stats()
        assert stats["gain"] == stats["score"] == stats["ovrl_gain"] == 0.0
        assert len(own.remixes.pairs) == count // 2


def test_clean_speech_is_remixed_with_loud_noise():
    levels = [0.1, 10.0, 1.0, 5.0]
    signals = [level * torch.randn(100).abs() for level in levels]
    heard = {k: (signal, None, None) for k, signal in enumerate(signals)}

    def start(mixture):
        return torch.stack([mixture, torch.ones_like(mixture)], dim=1)

    (_, first), (_, second) = Remixes(heard, start).pairs
    assert torch.equal(first, signals[1]) and torch.equal(second, signals[3])
    parts = [start(signals[k][None])[0] for k in (0, 1)]
    assert cleanness(parts[1]) > cleanness(parts[0]) + 20


def test_what_sounds_worse_scores_less():
    from fedenhance.training.adaptation import Judged, summary

    def opinion(value):
        return [{"sig": value, "bak": value, "ovrl": value}]

    lost = summary(Judged([1.0], [], opinion(3.0), opinion(2.85)), tolerance=0.05)
    assert lost["score"] == pytest.approx(0.0)
