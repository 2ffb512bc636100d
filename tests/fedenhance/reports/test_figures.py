"""What is drawn is what was logged."""

from functools import partial

import numpy as np
import pytest

from fedenhance.reports import figures
from fedenhance.reports.runs import find_runs
from tests.fedenhance import finished
from tests.test_yaml import ROOT

PAPER = ROOT / "recipes" / "LibriFSD50K" / "paper.csv"


@pytest.fixture
def write_run(tmp_path):
    return partial(finished.write_run, tmp_path)


def drawn(axes):
    """Lines by label, as lists of points."""
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_training_curves_join_the_rounds_that_were_evaluated(write_run):
    run = write_run("a", test=(1.0, 3.0), valid=(0.0, 2.0))
    one, two = figures.training_curves(run).axes
    assert drawn(one) == {"validation": [[1, 0], [12, 2]], "test": [[1, 1], [12, 3]]}
    assert drawn(two)["test"] == [[1, 2], [12, 4]]


def test_without_references_the_loss_is_drawn(write_run):
    run = write_run("a")
    (run.folder / "rounds.csv").write_text("round,valid_loss,test_loss\n1,2,3\n")
    (axes,) = figures.training_curves(run).axes
    assert drawn(axes) == {"validation": [[1, 2]], "test": [[1, 3]]}
    assert axes.get_title() == "Loss"


def test_a_central_run_has_epochs(write_run):
    run = write_run("a")
    (run.folder / "rounds.csv").unlink()
    assert not figures.training_curves(run).axes
    (run.folder / "train_log.txt").write_text("epoch: 3 - train loss: 2.00\n")
    run.__dict__.pop("epochs")
    (axes,) = figures.training_curves(run).axes
    assert drawn(axes) == {"training": [[3, 2]]}
    assert axes.get_xlabel() == "Epoch"


def test_convergence_draws_means_levels_and_hours(write_run, tmp_path):
    write_run("c", test=(0.0, 2.0))
    write_run("c", seed=2, test=(2.0, 4.0))
    write_run("alone_0", test=(0.0, 1.0), selected_clients="[0]")
    write_run("alone_2", test=(0.0, 2.0), selected_clients="[2]")
    write_run("iid", test=(3.0, 5.0), n_clients=1)
    write_run("started", initial_model="x")
    for name, other in (("other", {"test_size": 9}), ("known", {"p_supervised": 1.0})):
        write_run(f"{name} iid", test=(9.0, 9.0), n_clients=1, **other)
        write_run(f"{name} alone", test=(9.0, 9.0), selected_clients="[0]", **other)
    figure = figures.convergence(find_runs([tmp_path]))
    one, two = figure.axes
    assert drawn(one) == {
        "Federated, C = 4": [[1, 1], [12, 3]],
        "Individual, C = 4": [[0, 1.5], [1, 1.5]],
        "IID upper bound": [[0, 5], [1, 5]],
    }
    assert drawn(two)["Federated, C = 4"] == [[1, 2], [12, 4]]
    (shading,) = one.collections
    ends = shading.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (0, 4)
    (hours,) = one.child_axes
    figure.draw_without_rendering()
    assert np.allclose(hours.get_xlim(), np.array(one.get_xlim()) / 2)


def test_hours_that_differ_get_no_axis(write_run, tmp_path):
    write_run("a")
    run = write_run("b", n_clients=8)
    path = run.folder / "rounds.csv"
    path.write_text(path.read_text().replace(",0.5,", ",2.0,"))
    figure = figures.convergence(find_runs([tmp_path]))
    assert not figure.axes[0].child_axes


def test_transfer_draws_windows_of_ten_rounds(write_run, tmp_path):
    scores = {"test": [float(i) for i in range(12)], "valid": [0.0] * 12}
    write_run("scratch", **scores)
    write_run("started", initial_model="x", learning_rate=0.0001, **scores)
    axes = figures.transfer(find_runs([tmp_path])).axes[0]
    assert drawn(axes) == {
        f"{start}, C = 4": [[1, 4.5], [11, 10.5]]
        for start in ("Pre-trained", "Random start")
    }
    assert axes.get_xscale() == "log"
    assert len({line.get_color() for line in axes.lines}) == 1


def test_supervision_draws_a_bar_for_each_share_split_and_number(write_run, tmp_path):
    for share, level in ((0.0, 1.0), (1.0, 2.0)):
        write_run(f"p{share:g}", test=(0.0, level), p_supervised=share)
    axes = figures.supervision(find_runs([tmp_path])).axes[0]
    bars = {
        bar.get_label(): [patch.get_height() for patch in bar]
        for bar in axes.containers
        if hasattr(bar, "patches")
    }
    assert bars == {
        "Validation, one noise": [2, 2],
        "Test, one noise": [1, 2],
        "Validation, two noises": [2, 2],
        "Test, two noises": [2, 3],
    }
    assert len({patch.get_hatch() for patch in axes.patches}) == 4


def test_the_paper_is_laid_over(write_run, tmp_path):
    write_run("c16", n_clients=16)
    paper = figures.read_paper(PAPER, "convergence")
    axes = figures.convergence(find_runs([tmp_path]), paper).axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    assert [50.0, 4.8] in [line.get_xydata()[0].tolist() for line in marks]
    levels = [line for line in axes.lines if line.get_marker() == "<"]
    assert sorted(line.get_ydata()[0] for line in levels) == [-1.6, 0.2, 4.6, 8.8]


def test_figures_are_written_as_png_and_pdf(write_run, tmp_path):
    write_run("c")
    figure = figures.convergence(find_runs([tmp_path]))
    png, pdf = figures.save(figure, tmp_path / "out", "convergence")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")


def test_ablations_are_drawn_when_asked_for(write_run, tmp_path):
    for epochs in (1, 5, 25):
        write_run(f"e{epochs}", local_epoch_p=epochs)
    runs = find_runs([tmp_path])
    assert len(drawn(figures.convergence(runs).axes[0])) == 1
    lines = drawn(figures.convergence(runs, vary="local_epoch_p").axes[0])
    assert list(lines) == [f"Federated, local epochs: {e}" for e in (1, 5, 25)]


def test_a_figure_without_its_runs_says_which(write_run, tmp_path):
    write_run("c")
    with pytest.raises(ValueError, match="no federation from a pre-trained model"):
        figures.transfer(find_runs([tmp_path]))


def test_curves_over_seconds_have_means_and_ranges():
    rows = [
        {"training": "ours", "seconds": seconds, "si_sdri_1": value, "si_sdri_2": 0.0}
        for seconds, value in ((60.0, 3.0), (30.0, 1.0), (60.0, 5.0))
    ]
    first, second = figures.over_seconds(rows).axes
    (line,), (band,) = first.lines, first.collections
    assert line.get_xydata().tolist() == [[30, 1], [60, 4]]
    ends = band.get_paths()[0].vertices
    assert {tuple(p) for p in ends} == {(30, 1), (60, 3), (60, 5)}
    assert first.get_title() == "One noise" and second.get_title() == "Two noises"
