"""The line that a round prints."""

import logging

from fedenhance.training.lines import Lines, aligned
from fedenhance.training.quiet import is_news


def test_columns_of_rounds_stand_below_each_other():
    rows = [
        ({"round": 1, "seconds": 3.25, "clients": 2, "failures": 0}, -0.5, 1.25),
        ({"round": 60, "seconds": 123.0, "clients": 12, "failures": 0}, -12.5, 11.25),
    ]
    lines = [aligned(meta, {"loss": loss}, {"WER": v}) for meta, loss, v in rows]
    assert lines == [
        "round   1 |    3.2 s |  2 clients | train loss   -0.50 | valid WER    1.25 %",
        "round  60 |  123.0 s | 12 clients | train loss  -12.50 | valid WER   11.25 %",
    ]


def test_failures_are_told_and_a_test_alone():
    assert "1 failures" in aligned({"round": 1, "failures": 1})
    assert aligned({"stage": "test"}, test_stats={"WER": 31.0}) == "test WER   31.00 %"


def test_what_programs_read_is_in_the_file_as_speechbrain_writes_it(tmp_path, capsys):
    path = tmp_path / "train_log.txt"
    lines = Lines(str(path))
    lines.log_stats({"epoch": 2}, {"loss": -3.25}, {"loss": 0.001})
    assert (
        path.read_text() == "epoch: 2 - train loss: -3.25e+00 - valid loss: 1.00e-03\n"
    )
    assert capsys.readouterr().out == (
        "epoch   2 | train loss   -3.25 | valid loss    0.00\n"
    )


def test_set_up_is_no_news():
    chatter = "torchvision is not available - cannot save figures"
    assert not is_news(logging.makeLogRecord({"msg": chatter}))
    assert is_news(logging.makeLogRecord({"msg": "Loading a checkpoint"}))
