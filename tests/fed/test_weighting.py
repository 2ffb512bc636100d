"""What a client's metrics are worth."""

import math

import pytest

from fed import weighting


def test_shares_by_metric_are_a_softmax():
    sdrs = [3.0, 5.0]
    a, b = (weighting.by_metric({"si_sdr": x}, "si_sdr", temperature=2) for x in sdrs)
    assert b / (a + b) == pytest.approx(1 / (1 + math.exp(-1)))


def test_negative_sdr_has_a_positive_weight():
    assert weighting.by_metric({"si_sdr": -30.0}, "si_sdr") > 0


def test_extreme_metrics_have_finite_positive_weights():
    for value in (-1e9, 1e9):
        weight = weighting.by_metric({"si_sdr": value}, "si_sdr", temperature=1e-6)
        assert 0 < weight < math.inf


def test_a_lower_word_error_rate_weighs_more():
    low, high = ({"valid_WER": x} for x in (20.0, 21.0))
    ratio = weighting.by_word_error_rate(low) / weighting.by_word_error_rate(high)
    assert ratio == pytest.approx(math.e)


def test_a_word_error_rate_above_100_counts_as_100():
    assert weighting.by_word_error_rate({"valid_WER": 180.0}) == 1.0


def test_a_missing_metric_is_named():
    with pytest.raises(KeyError, match="si_sdr"):
        weighting.by_metric({"loss": 1.0}, "si_sdr")


def test_a_metric_that_is_no_number_has_no_weight():
    with pytest.raises(ValueError, match="si_sdr"):
        weighting.by_metric({"si_sdr": math.nan}, "si_sdr")
