"""Augmented recordings are what was asked for."""

from random import Random

import pytest
import torch

from fedenhance.data.augmentation import Augmentation, change_speed


def pitch(waveform, rate=16000):
    """The loudest frequency, in Hz."""
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return spectrum.argmax().item() * rate / len(waveform)


def tone(hertz, seconds=0.5, rate=16000):
    return torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)


def test_speed_moves_the_pitch():
    assert pitch(change_speed(tone(1000.0), 1.1)) == pytest.approx(1100, abs=4)
    assert len(change_speed(torch.ones(1), 2.0)) == 1


@pytest.mark.parametrize("hertz", [50.0, 1000.0, 7000.0])
def test_colour_changes_levels_within_its_bounds(hertz):
    augment, levels = Augmentation(colour=6.0), []
    for seed in range(20):
        middle = slice(2000, 6000)  # the ends are those of a longer response
        changed = augment(tone(hertz), Random(seed))[middle]
        ratio = changed.square().mean() / tone(hertz)[middle].square().mean()
        levels.append(10 * float(ratio.log10()))
    assert -6.1 < min(levels) < -2 and 2 < max(levels) < 6.1


def test_a_room_keeps_the_direct_sound_and_adds_what_follows():
    click = torch.zeros(16000)
    click[0] = 1.0
    ranges = {"decay_times": (0.2, 0.2), "direct_ratios": (5.0, 5.0)}
    heard = Augmentation(p_room=1.0, **ranges)(click, Random(0))
    energy = heard.square()
    assert energy[0] == pytest.approx(1, abs=1e-3)
    assert 10 * energy[1:].sum().log10() == pytest.approx(-5, abs=0.1)
    early, late = energy[1:801].sum(), energy[1601:2401].sum()
    assert 10 * (early / late).log10() == pytest.approx(30, abs=3)  # in 0.1 of 0.2 s
    assert energy[3300:].max() < 1e-10


def test_draws_are_those_of_the_generator():
    augment = Augmentation(speeds=(0.9, 1.0, 1.1), colour=3.0, p_room=0.5)
    first, again, other = (augment(tone(440.0), Random(seed)) for seed in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)
