"""Summaries whose numbers can be checked by hand."""

import math

import numpy as np
import pytest

from fedenhance.reports.scores import (
    bootstrap_interval,
    compare,
    draw_summary,
    format_summary,
    group_rows,
    read_rows,
    snr_bin,
    summarize,
    write_rows,
)


def make_rows(gains=(1.0, 2.0, 6.0), **columns):
    """Three utterances, at 0, 5 and 10 dB, improved by so many dB."""
    return [
        {
            "id": f"u{i}",
            "n_noises": 1 + i % 2,
            "noise_class": ["Rain", "Dog", "Rain"][i],
            "spk_id": ["84", "1272", "84"][i],
            "si_sdr_in": 5.0 * i,
            "si_sdr": 5.0 * i + gain,
            "si_sdri": gain,
            "failures": "",
            **columns,
        }
        for i, gain in enumerate(gains)
    ]


def line_of(summary, metric="si_sdri", grouping="all", group="all"):
    (line,) = [
        line
        for line in summary
        if (line["metric"], line["grouping"], line["group"])
        == (metric, grouping, group)
    ]
    return line


# --------------------------------------------------------------------- bootstrap


def test_bootstrap_interval_of_two_values_by_hand():
    # A sample of two has the mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], level=0.6) == (0.0, 1.0)


def test_bootstrap_interval_covers_the_mean():
    generator = np.random.default_rng(0)
    samples = generator.exponential(size=(300, 60))
    ends = np.array([bootstrap_interval(s, resamples=400) for s in samples])
    covered = np.mean((ends[:, 0] < 1) & (ends[:, 1] > 1))
    assert 0.88 < covered < 0.98


def test_bootstrap_interval_repeats_itself_whatever_the_batches():
    values = np.random.default_rng(0).normal(size=30000)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values)
    # The standard error of the mean is 1 / sqrt(30000).
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(30000), rel=0.1)


def test_bootstrap_of_one_value_is_undefined():
    assert all(math.isnan(end) for end in bootstrap_interval([1.0]))


# ----------------------------------------------------------------------- summary


def test_mean_median_and_count_by_hand():
    line = line_of(summarize(make_rows()))
    assert (line["n"], line["failures"]) == (3, 0)
    assert (line["mean"], line["median"]) == (3.0, 2.0)
    assert line["low"] < 3.0 < line["high"]


def test_failures_are_counted_and_left_out():
    line = line_of(summarize(make_rows([1.0, float("nan"), 5.0])))
    assert (line["n"], line["failures"], line["mean"]) == (2, 1, 3.0)
    line = line_of(summarize(make_rows([float("nan")] * 3)))
    assert (line["n"], line["failures"]) == (0, 3)
    assert math.isnan(line["mean"])


def test_every_utterance_is_in_one_group_of_each_grouping():
    summary = summarize(make_rows())
    for grouping in ("n_noises", "input_snr", "noise_class", "spk_id"):
        counts = [
            line["n"]
            for line in summary
            if line["grouping"] == grouping and line["metric"] == "si_sdri"
        ]
        assert sum(counts) == 3


@pytest.mark.parametrize(
    ("grouping", "group", "mean"),
    [
        ("n_noises", "1", 3.5),
        ("n_noises", "2", 2.0),
        ("input_snr", "10 to 15", 6.0),
        ("noise_class", "Rain", 3.5),
        ("spk_id", "1272", 2.0),
    ],
)
def test_groups_by_hand(grouping, group, mean):
    assert line_of(summarize(make_rows()), "si_sdri", grouping, group)["mean"] == mean


def test_bins_and_numbers_are_in_their_order():
    rows = [
        {"id": i, "spk_id": speaker, "si_sdr_in": snr}
        for i, (speaker, snr) in enumerate(
            [("1272", 12.0), ("84", -30.0), ("251", -7.0), ("7", 60.0)]
        )
    ]
    assert [group for grouping, group in group_rows(rows) if grouping == "spk_id"] == [
        "7",
        "84",
        "251",
        "1272",
    ]
    assert [g for grouping, g in group_rows(rows) if grouping == "input_snr"] == [
        "< -10",
        "-10 to -5",
        "10 to 15",
        ">= 20",
    ]
    assert snr_bin(float("nan")) == ""


def test_summary_has_the_scores_before_and_after():
    metrics = {line["metric"] for line in summarize(make_rows())}
    assert metrics == {"si_sdr_in", "si_sdr", "si_sdri"}


def test_tables_survive_writing_and_reading(tmp_path):
    rows = make_rows([1.0, float("nan"), 5.0])
    write_rows(tmp_path / "utterances.csv", rows)
    text = (tmp_path / "utterances.csv").read_text()
    assert "nan" not in text
    again = read_rows(tmp_path / "utterances.csv")
    np.testing.assert_equal(summarize(again), summarize(rows))
    assert [row["id"] for row in again] == ["u0", "u1", "u2"]


def test_other_tables_are_refused(tmp_path):
    (tmp_path / "rounds.csv").write_text("round,loss\n1,2\n")
    with pytest.raises(ValueError, match="rounds.csv is not a table of utterances"):
        read_rows(tmp_path / "rounds.csv")


# -------------------------------------------------------------------- comparison


def test_paired_difference_by_hand():
    line = line_of(compare(make_rows([2.0, 2.0, 8.0]), make_rows()), "si_sdr")
    assert line["mean"] == pytest.approx(1.0)  # differences 1, 0 and 2
    assert line["wins"] == pytest.approx(2 / 3)


def test_model_equals_itself():
    line = line_of(compare(make_rows(), make_rows()), "si_sdr")
    assert (line["mean"], line["wins"], line["p"]) == (0.0, 0.0, 1.0)


def test_small_but_steady_gain_is_significant():
    rows = [{"id": i, "si_sdr_in": 0.0, "si_sdr": float(i % 17)} for i in range(100)]
    better = [{**row, "si_sdr": row["si_sdr"] + 0.1} for row in rows]
    line = line_of(compare(better, rows), "si_sdr")
    assert line["p"] < 1e-6
    assert line["low"] > 0


def test_mixtures_must_be_the_same():
    rows = make_rows()
    with pytest.raises(ValueError, match="u2 is missing in the second"):
        compare(rows, rows[:2])
    with pytest.raises(ValueError, match="u2 is missing in the first"):
        compare(rows[:2], rows)
    with pytest.raises(ValueError, match="another mixture"):
        compare(rows, [{**row, "si_sdr_in": 3.0} for row in rows])
    with pytest.raises(ValueError, match="no metric in common"):
        compare(rows, [{"id": "u0", "pesq_in": 1.0, "pesq": 1.0}])


def test_order_of_the_mixtures_does_not_matter():
    rows, others = make_rows(), make_rows([2.0, 2.0, 8.0])
    straight, reversed_ = compare(rows, others), compare(rows, others[::-1])
    np.testing.assert_equal(straight, reversed_)


# ------------------------------------------------------------------------ output


def test_a_figure_has_a_panel_for_each_grouping_and_its_most_frequent_groups():
    rows = [
        {**row, "noise_class": f"class {i}"} for i in range(30) for row in make_rows()
    ]
    rows += make_rows(noise_class="class 29", spk_id="84")
    summary = summarize(rows)
    panels = draw_summary(summary, "si_sdri", "SI-SDR improvement (dB)").axes
    titles = ["number of noises", "input SI-SDR (dB)", "noise class", "speaker"]
    assert [axes.get_title() for axes in panels] == [f"By {title}" for title in titles]
    names = [label.get_text() for label in panels[2].get_yticklabels()]
    assert len(names) == 20
    assert names[-1] == "class 29 (6)"
    means, _ = panels[3].lines[0].get_data()
    assert list(means) == [
        line_of(summary, group=g, grouping="spk_id")["mean"] for g in ("84", "1272")
    ]
    single = draw_summary(summarize(rows[:1]), "si_sdri", "SI-SDR improvement (dB)")
    assert len(single.axes) == 4


def test_printed_comparison_has_its_test():
    text = format_summary(compare(make_rows(), make_rows()))
    assert text.splitlines()[0].endswith("| wins | p |")
    assert "| all | si_sdr | 3 | 0 | 0.000 |" in text
