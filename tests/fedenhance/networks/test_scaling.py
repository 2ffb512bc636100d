"""The level that a network follows by itself is that of the past alone."""

import math

import pytest
import torch

from fedenhance.networks.scaling import RunningLevel, separate
from fedenhance.networks.separator import PerSource, Separator
from fedenhance.objectives.consistency import uniform


class Clipped(torch.nn.Module):
    """A mask network for which the level matters."""

    def forward(self, latent):
        return latent.clamp(-1, 1).unsqueeze(0).expand(2, *latent.shape)


def separator(masking):
    """One sample a frame."""
    encoder, decoder = torch.nn.Identity(), PerSource(torch.nn.Flatten())
    encoder.forward = lambda x: x.unsqueeze(1)
    level = RunningLevel(num_frames=4)
    return Separator(encoder, Clipped(), decoder, masking, level)


def test_the_level_is_the_weighted_mean_of_the_frames_so_far():
    latent, level = torch.randn(2, 3, 200), RunningLevel(num_frames=5)
    rms, _ = level(latent, level.initial_state(latent))
    power, expected = latent.square().mean(1), []
    for frame in range(200):
        weights = 0.8 ** torch.arange(frame, -1.0, -1.0)
        mean = (power[:, : frame + 1] * weights).sum(1) / weights.sum()
        expected.append(mean.sqrt())
    torch.testing.assert_close(rms[:, 0], torch.stack(expected, 1))


def test_steps_equal_the_whole():
    latent, level = torch.randn(2, 3, 90), RunningLevel(num_frames=7)
    state = level.initial_state(latent)
    whole, _ = level(latent, state)
    parts = []
    for frames in latent.split([1, 20, 69], dim=2):
        rms, state = level(frames, state)
        parts.append(rms)
    torch.testing.assert_close(torch.cat(parts, 2), whole)


@pytest.mark.parametrize("masking", [True, False])
def test_a_louder_mixture_has_louder_sources(masking):
    mixture, network = torch.randn(2, 50), separator(masking)
    quiet, loud = network(mixture), network(1000 * mixture)
    torch.testing.assert_close(loud, 1000 * quiet)


def test_a_network_that_follows_the_level_sees_the_mixture_as_it_is():
    mixture, network = 3 + torch.randn(2, 50), separator(masking=True)
    torch.testing.assert_close(separate(network, mixture), network(mixture))
    torch.testing.assert_close(separate(network, mixture, uniform).sum(1), mixture)


def test_silence_stays_silent():
    estimates = separator(masking=False)(torch.zeros(1, 9))
    assert torch.equal(estimates, torch.zeros(1, 2, 9))


def test_a_time_constant_below_a_frame_is_refused():
    with pytest.raises(ValueError, match="num_frames must be 1 or more"):
        RunningLevel(math.pi / 4)
