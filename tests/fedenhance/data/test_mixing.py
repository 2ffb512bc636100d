"""Mixtures of mixtures."""

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.data.audio import Segment
from fedenhance.data.mixing import (
    MixtureOfMixtures,
    example_generator,
    fixed_mixtures,
    gain_for_snr,
    read_fixed_mixture,
)
from fedenhance.data.opening import DamagedAudioError

RATE = 100


@pytest.fixture
def noise(tmp_path):
    """Segments of white noise, two seconds each."""
    generator = np.random.default_rng(0)
    segments = []
    for i in range(4):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, generator.normal(0, 0.1, 2 * RATE), RATE, subtype="FLOAT")
        segments.append(Segment(str(path), 0, 2 * RATE))
    return segments


def draw(noise, key="a", epoch=0, pool=None, **settings):
    mixing = MixtureOfMixtures(sample_rate=RATE, segment=1.0, **settings)
    mixing.epoch = epoch
    speech, own, *rest = noise
    return mixing(key, speech, own, None, rest if pool is None else pool)


def test_an_example_depends_on_seed_epoch_and_id_alone(noise):
    torch.manual_seed(1)
    first = draw(noise)
    torch.manual_seed(2)
    assert torch.equal(first, draw(noise))
    for other in ({"key": "b"}, {"epoch": 1}, {"seed": 1}):
        assert not torch.equal(first, draw(noise, **other))


def test_sources_have_no_mean(noise):
    assert draw(noise).mean(-1).abs().max() < 1e-7


def test_a_recording_is_cropped_at_one_position(noise):
    speech, *_ = noise
    sources = draw([speech, speech, *noise[2:]])
    assert torch.equal(sources[0], sources[1])


def test_snr_range_sets_the_ratio(noise):
    sources = draw(noise, snr_range=[3.0, 3.0])
    powers = sources.square().mean(-1)
    ratios = 10 * torch.log10(powers[0] / powers[1:])
    # Gains are found before the mean is removed.
    assert torch.allclose(ratios, torch.tensor(3.0), atol=0.1)


def test_the_level_of_a_recording_does_not_change_with_the_epoch(noise):
    def ratio(epoch):
        sources = draw(
            [noise[0], noise[0], *noise[2:]], epoch=epoch, snr_range=[-5, 10]
        )
        return (sources[0].norm() / sources[1].norm()).item()

    assert ratio(0) == pytest.approx(ratio(1))


def test_single_mixtures_leave_out_either_one(noise):
    kept = [
        draw(noise, epoch=e, p_single_mix=1.0).abs().amax(-1) > 0 for e in range(40)
    ]
    assert {tuple(k.tolist()) for k in kept} == {
        (True, True, False),
        (False, False, True),
    }


def test_an_unknown_recording_is_one_source(noise):
    mixing = MixtureOfMixtures(sample_rate=RATE, segment=1.0)
    sources = mixing("a", None, None, noise[0], noise[1:])
    assert (sources.abs().amax(-1) > 0).tolist() == [True, False, True]


def test_without_a_pool_the_extra_noise_is_silent(noise):
    assert draw(noise, pool=[])[2].abs().max() == 0


def test_a_damaged_noise_is_replaced_by_another(noise):
    missing = Segment("/missing.wav", 0, 4)
    assert draw(noise, pool=[missing, noise[2]])[2].abs().max() > 0
    with pytest.raises(DamagedAudioError, match=r"missing\.wav"):
        draw(noise, pool=[missing])


@pytest.mark.parametrize("bad", [{"segment": 0}, {"p_single_mix": 2}])
def test_bad_settings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MixtureOfMixtures(**bad)


def test_gain_of_silence_is_one():
    assert gain_for_snr(torch.zeros(4), torch.ones(4), 10) == 1


def rows(noise, count=4):
    return {
        f"r{i}": {
            "duration": "2.0",
            "spk_id": "a",
            "speech": noise[0] if i < count - 1 else None,
            "noise": noise[1 + i % 3],
            "noisy": None,
            "noise_class": "Rain",
        }
        for i in range(count)
    }


AS_RECORDED = MixtureOfMixtures(sample_rate=RATE)


def test_every_recording_is_tested_with_one_and_with_two_noises(noise):
    mixtures = fixed_mixtures(rows(noise), AS_RECORDED)
    assert list(mixtures) == ["r0-1", "r0-2", "r1-1", "r1-2", "r2-1", "r2-2"]
    one, two = (read_fixed_mixture(mixtures[k], RATE) for k in ("r0-1", "r0-2"))
    assert torch.equal(one[:2], two[:2])
    assert (one[2].abs().max() == 0) and (two[2].abs().max() > 0)


def test_fixed_mixtures_are_spread_over_the_split(noise):
    mixtures = fixed_mixtures(rows(noise, 11), AS_RECORDED, size=2)
    assert list(mixtures) == ["r0-1", "r0-2", "r5-1", "r5-2"]


def test_fixed_gains_reach_the_wanted_ratio(noise):
    mixing = MixtureOfMixtures(sample_rate=RATE, snr_range=[6.0, 6.0])
    mixtures = fixed_mixtures(rows(noise), mixing)
    powers = read_fixed_mixture(mixtures["r0-2"], RATE).square().mean(-1)
    ratios = 10 * torch.log10(powers[0] / powers[1:])
    assert torch.allclose(ratios, torch.tensor(6.0), atol=0.1)


def test_without_references_only_mixtures_of_mixtures_remain(noise):
    table = rows(noise)
    table["r0"].update(speech=None, noise=None, noisy=noise[0])
    mixtures = fixed_mixtures(table, AS_RECORDED)
    assert [k for k in mixtures if k.startswith("r0")] == ["r0-2"]
    assert mixtures["r0-2"]["group"] == "unsupervised"


def test_a_split_without_noises_is_refused(noise):
    table = rows(noise)
    del table["r3"]
    with pytest.raises(ValueError, match="isolated noises"):
        fixed_mixtures(table, AS_RECORDED)


def test_generators_do_not_share_state():
    a, b, again = (example_generator(1, key) for key in "aba")
    drawn = [a.random(), b.random(), a.random()]
    assert [drawn[0], drawn[2]] == [again.random(), again.random()]
