"""SI-SDR and SNR are TorchMetrics'; silence scores badly and stays finite."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.audio import (
    scale_invariant_signal_distortion_ratio,
    signal_noise_ratio,
)

from fedenhance.objectives.levels import (
    si_sdr,
    si_sdr_loss,
    snr,
    snr_loss,
    thresholded_snr_loss,
)

LOSSES = [si_sdr_loss, snr_loss, thresholded_snr_loss]


@pytest.mark.parametrize("snr_db", [-20, 0, 20, 40, 60])
def test_si_sdr_and_snr_are_those_of_torchmetrics(snr_db):
    targets = torch.randn(4, 16000)
    estimates = targets + 10 ** (-snr_db / 20) * torch.randn(4, 16000)
    # TorchMetrics adds an absolute constant, which shows in its float32 at 60 dB.
    exact = estimates.double(), targets.double()
    for ours, theirs in (
        (si_sdr, scale_invariant_signal_distortion_ratio),
        (snr, signal_noise_ratio),
    ):
        expected = theirs(*exact).float()
        torch.testing.assert_close(
            ours(estimates, targets), expected, atol=1e-4, rtol=0
        )


def test_si_sdr_by_hand():
    # One tenth of the amplitude is orthogonal to the target: 20 dB at any scale.
    target = torch.tensor([1.0, 0.0])
    for scale in (1e-3, 1.0, -7.0):
        assert si_sdr(scale * torch.tensor([1.0, 0.1]), target) == pytest.approx(20)


def test_threshold_is_a_soft_maximum():
    target = torch.tensor([1.0, 0.0])
    # Error power 0.01 on power 1: 10 log10(0.01 + 0.01) = -16.99 dB.
    estimate = torch.tensor([1.0, 0.1])
    loss = thresholded_snr_loss(estimate, target, snr_max=20)
    assert loss == pytest.approx(10 * np.log10(0.02), abs=1e-4)
    assert thresholded_snr_loss(target, target, snr_max=20) == pytest.approx(-20)


@pytest.mark.parametrize("loss", LOSSES)
def test_silence_scores_badly(loss):
    targets = torch.randn(8, 1000)
    silence = loss(torch.zeros_like(targets), targets)
    attempts = loss(targets + torch.randn_like(targets) * 0.9, targets)
    assert (silence > attempts).all()
    assert torch.isfinite(silence).all()


def test_si_sdr_of_silence_is_below_that_of_unrelated_noise():
    targets = torch.randn(8, 1000)
    unrelated = si_sdr(torch.randn(8, 1000), targets)
    assert (si_sdr(torch.zeros(8, 1000), targets) < unrelated - 50).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_silent_targets_are_finite(loss):
    estimates = torch.randn(2, 100, requires_grad=True)
    value = loss(estimates, torch.zeros(2, 100))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(estimates.grad).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="do not match"):
        si_sdr(torch.randn(4, 3, 100), torch.randn(4, 2, 100))
