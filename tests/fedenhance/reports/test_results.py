"""What a run leaves to look at."""

import logging
from types import SimpleNamespace

import numpy as np
from matplotlib import pyplot

from fedenhance.reports.results import announce, plot_convergence, read_rounds


def write_rounds(folder, lines):
    (folder / "rounds.csv").write_text("\n".join(lines) + "\n")


def test_rounds_that_were_not_evaluated_are_nan(tmp_path):
    write_rounds(tmp_path, ["round,test_loss", "1,", "2,0.5"])
    columns = read_rounds(tmp_path)
    assert np.isnan(columns["test_loss"][0])
    assert columns["test_loss"][1] == 0.5


def test_curves_join_the_rounds_that_were_evaluated(tmp_path, monkeypatch):
    names = [f"{split}_si_sdri_{n}" for split in ("valid", "test") for n in (1, 2)]
    header = ",".join(["round", *names])
    write_rounds(tmp_path, [header, "1,,,,", "2,1,2,3,4", "3,,,,", "4,2,3,4,5"])
    drawn = []
    monkeypatch.setattr(
        pyplot, "close", lambda figure: drawn.append(figure.axes[0].lines)
    )
    plot_convergence(None, None, {"output_folder": tmp_path})
    assert [line.get_xydata().tolist() for line in drawn[0]] == [
        [[2, 1], [4, 2]],
        [[2, 3], [4, 4]],
    ]
    assert (tmp_path / "figures" / "convergence.png").stat().st_size > 1000


def test_without_references_the_loss_is_drawn(tmp_path):
    write_rounds(tmp_path, ["round,valid_loss,test_loss", "1,2,3"])
    plot_convergence(None, None, {"output_folder": tmp_path})
    assert (tmp_path / "figures" / "convergence.png").exists()


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
