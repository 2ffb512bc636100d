"""Losses on compressed spectra."""

import pytest
import torch

from fedenhance.objectives.mixit import supervised
from fedenhance.objectives.spectra import (
    compressed_spectrum_loss,
    snr_and_spectrum_loss,
)


@pytest.fixture
def speech():
    """Loud low and soft high frequencies, ``(batch, time)``."""
    time = torch.arange(4000) / 16000
    low, high = (torch.sin(2 * torch.pi * hertz * time) for hertz in (300, 5000))
    return torch.stack([low + 0.02 * high, low])


def test_soft_parts_count(speech):
    whole, without = speech
    noisy = whole + 0.02 * torch.randn_like(whole)
    assert compressed_spectrum_loss(without, whole) > -15
    assert compressed_spectrum_loss(noisy, whole) > -15
    alike = compressed_spectrum_loss(0.98 * whole, whole)
    assert alike < -25


def test_magnitudes_and_phases_count_equally(speech):
    halves = compressed_spectrum_loss(-speech, speech)
    # magnitudes are right, complex values twice as large an error as the target
    expected = (-30 + 10 * torch.log10(torch.tensor(4.0))) / 2
    assert halves == pytest.approx(expected.expand(2), abs=0.2)


def test_levels_do_not_matter(speech):
    noisy = speech + 0.1 * torch.randn_like(speech)
    expected = compressed_spectrum_loss(noisy, speech)
    assert compressed_spectrum_loss(1e-3 * noisy, 1e-3 * speech) == pytest.approx(
        expected, abs=1e-2
    )


def test_leading_dimensions_are_kept(speech):
    loss = compressed_spectrum_loss(torch.zeros(3, 2, 4000), speech)
    assert loss.shape == (3, 2)
    assert loss[0] == pytest.approx(loss[2])


def test_silence_has_finite_gradients(speech):
    estimates = torch.zeros_like(speech).requires_grad_()
    targets = torch.stack([speech[0], torch.zeros(4000)])
    compressed_spectrum_loss(estimates, targets).sum().backward()
    assert estimates.grad.isfinite().all()


def test_it_weighs_waveforms_and_spectra(speech):
    noisy = speech + 0.1 * torch.randn_like(speech)
    alone = [snr_and_spectrum_loss(noisy, speech, weight=w) for w in (0.0, 1.0)]
    assert alone[1] == pytest.approx(compressed_spectrum_loss(noisy, speech))
    both = snr_and_spectrum_loss(noisy, speech, weight=0.25)
    assert both == pytest.approx(0.75 * alone[0] + 0.25 * alone[1])


def test_it_is_an_objective_of_supervision(speech):
    estimates = torch.stack([speech, -speech], 1)
    loss = supervised(estimates, estimates, loss=snr_and_spectrum_loss)
    assert loss == pytest.approx([-30, -30], abs=0.1)
