"""DNSMOS is Microsoft's, at the loudness of the CHiME-7 UDASE task."""

import numpy as np
import pytest

from fedenhance.data.available import require
from fedenhance.reports import dnsmos


def noise(seconds, seed=0):
    return np.random.default_rng(seed).standard_normal(int(seconds * 16000))


def test_the_filters_are_those_of_the_recommendation():
    (shelf, poles), (_, low) = dnsmos.k_weighting(48000)  # BS.1770-4, tables 1 and 2
    np.testing.assert_allclose(
        shelf, [1.53512485958697, -2.69169618940638, 1.19839281085285]
    )
    np.testing.assert_allclose(poles, [1.0, -1.69065929318241, 0.73248077421585])
    np.testing.assert_allclose(low, [1.0, -1.99004745483398, 0.99007225036621])


def test_silence_does_not_make_a_recording_softer():
    loud = noise(2)
    padded = np.concatenate([loud, np.zeros(4 * 16000)])
    assert abs(dnsmos.loudness(padded, 16000) - dnsmos.loudness(loud, 16000)) < 0.5


def test_what_would_clip_has_a_peak_of_one():
    peaky = np.zeros(16000)
    peaky[8000] = 1e-3
    assert np.abs(dnsmos.at_loudness(peaky, -30.0, 16000)).max() == 1.0


def test_the_scores_are_those_of_the_package_whatever_the_level_and_company():
    try:
        require("this test", *dnsmos.PACKAGES, "librosa", "requests")
    except ImportError as error:
        pytest.skip(str(error))
    from speechmos import dnsmos as microsoft

    signals = [noise(2), 1e-3 * noise(10, 1), np.zeros(16000), noise(11.5, 2)]
    ours = dnsmos.dnsmos(iter(signals))
    for signal, own in zip(signals, ours, strict=True):
        if not signal.any():
            assert np.isnan(own["ovrl"])
            continue
        theirs = microsoft.run(dnsmos.at_loudness(signal, -30.0, 16000), 16000)
        for name in dnsmos.NAMES:
            assert own[name] == pytest.approx(theirs[f"{name}_mos"], abs=1e-3)
    with pytest.raises(ValueError, match="16000 Hz, not 8000"):
        dnsmos.dnsmos(signals, 8000)
