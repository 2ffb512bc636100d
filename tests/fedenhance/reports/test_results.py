"""What a run leaves to look at."""

import csv
import logging
from types import SimpleNamespace

from matplotlib import image

from fedenhance.reports.results import announce, plot_convergence, write_test_metrics
from tests.fedenhance import finished

COLUMNS = ["id", "n_noises", "si_sdr_in", "si_sdr", "si_sdri"]


def test_metrics_have_a_header_even_without_utterances(tmp_path):
    row = dict(zip(COLUMNS, ["u-1", 1, -1.0, 3.0, 4.0], strict=True))
    for rows in ([], [{**row, "spk_id": "84"}]):
        brain = SimpleNamespace(utterances=rows)
        write_test_metrics(brain, {}, {"output_folder": tmp_path})
        with open(tmp_path / "test_metrics.csv", newline="") as file:
            header, *lines = csv.reader(file)
        assert header == COLUMNS + ["spk_id"] * len(rows)
        assert lines == [["u-1", "1", "-1.0", "3.0", "4.0", "84"]] * len(rows)


def test_the_convergence_is_drawn(tmp_path):
    run = finished.write_run(tmp_path, "run")
    plot_convergence(None, None, {"output_folder": run.folder})
    drawn = image.imread(run.folder / "figures" / "convergence.png")
    height, width, _ = drawn.shape
    assert (height, width) == (480, 1200)  # two panels of 4 x 3.2 inches
    assert drawn.std() > 0


def test_the_last_line_says_what_was_reached_and_where_it_is(tmp_path, caplog):
    row = {"si_sdr": 4.0, "si_sdri": 3.0, "n_noises": 1}
    brain = SimpleNamespace(utterances=[row])
    with caplog.at_level(logging.INFO):
        announce(brain, {}, {"output_folder": tmp_path})
        (tmp_path / "report.html").touch()
        announce(brain, {}, {"output_folder": tmp_path})
    before, after = caplog.messages
    assert before == (
        "Test SI-SDR improvement: 3.00 dB with one noise. "
        f"Listen to {tmp_path}/audio, look at {tmp_path}/figures."
    )
    assert after.endswith(f", or open {tmp_path}/report.html.")
