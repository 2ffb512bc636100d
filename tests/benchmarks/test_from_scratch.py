"""Training from scratch: it goes on where it stopped, and nothing is run twice."""

import argparse
from types import SimpleNamespace

import pytest
import torch

from benchmarks import from_scratch
from benchmarks.models import build_ours
from fedenhance.data.tables import read_table
from fedenhance.networks.authors import to_reference


def test_a_training_goes_on_where_it_stopped(tmp_path):
    ticks = iter([0, 3, 3, 100, 104, 104, 107])
    kept = from_scratch.Copies(tmp_path, [2.0, 6.0, 9.0], lambda: next(ticks))
    kept.begin()
    kept({"weight": torch.ones(1)})  # 3 s
    again = from_scratch.Copies(tmp_path, [2.0, 6.0, 9.0], kept.clock)
    assert again.spent == 3 and again.left() == [6.0, 9.0]
    again.begin()  # the time in between does not count
    again({"weight": torch.zeros(1)})  # 7 s
    with pytest.raises(from_scratch.TimeIsUp):
        again({"weight": torch.zeros(1)})  # 10 s
    assert again.measured == {"2.0": 3, "6.0": 7, "9.0": 10}
    assert torch.load(again.path(2.0))["weight"] == 1
    assert torch.load(again.path(9.0))["weight"] == 0


def test_what_is_in_the_table_is_not_run_again(tmp_path, monkeypatch, capsys):
    runs = []

    def run(name, share, seed, marks, args, clock):
        runs.append((name, share, seed, marks))
        scores = {"si_sdri_1": 1.0 + seed, "si_sdri_2": 2.0}
        return [{"seconds": mark, "measured": mark, **scores} for mark in marks]

    monkeypatch.setattr(from_scratch, "run", run)
    argv = ["--out", str(tmp_path), "--p_supervised", "0.5"]
    argv += ["--trainings", "fedenhance.yaml"]
    from_scratch.main([*argv, "--seeds", "1", "--seconds", "8", "--points", "2"])
    longer = ["--seconds", "16", "--points", "3"]
    from_scratch.main([*argv, "--seeds", "1", "2", *longer])
    own = "fedenhance.yaml", 0.5
    assert runs == [
        (*own, 1, [4.0, 8.0]),
        (*own, 1, [16.0]),
        (*own, 2, [4.0, 8.0, 16.0]),
    ]
    rows = read_table(tmp_path / "from_scratch.csv")
    assert [row["si_sdri_1"] for row in rows] == ["2"] * 3 + ["3"] * 3
    assert (tmp_path / "from_scratch_p0.5.png").stat().st_size


def test_longer_trainings_have_the_marks_of_shorter_ones():
    short = from_scratch.marks_of(argparse.Namespace(seconds=600.0, points=4))
    long = from_scratch.marks_of(argparse.Namespace(seconds=2400.0, points=6))
    assert short == [75.0, 150.0, 300.0, 600.0] and set(short) < set(long)


def test_the_original_needs_its_checkout(capsys):
    with pytest.raises(SystemExit):
        from_scratch.parse(["--trainings", from_scratch.ORIGINAL])
    assert "no training the original" in capsys.readouterr().err


def test_each_copy_of_the_original_is_scored_with_its_own_weights(
    tmp_path, monkeypatch
):
    separator, _ = build_ours(from_scratch.MODEL)
    state = to_reference(separator.state_dict(), "groupcomm")
    marks, seen = [1.0, 2.0, 4.0], []
    for mark in marks:
        scaled = {k: mark * v for k, v in state.items()}
        torch.save(scaled, tmp_path / f"{mark:g}.pt")

    def build(hparams, _):
        modules = torch.nn.ModuleDict(hparams["modules"])
        weight = next(modules.parameters())
        test = lambda *_: seen.append(weight.abs().mean().item())  # noqa: E731
        return SimpleNamespace(modules=modules, test=test, utterances=[])

    monkeypatch.setattr(from_scratch, "build", build)
    monkeypatch.setattr(from_scratch, "join", lambda brain: None)
    monkeypatch.setattr(from_scratch, "dataio_prepare", lambda _: {"test": None})
    scores = {"si_sdri_1": 0.0, "si_sdri_2": 0.0}
    monkeypatch.setattr(from_scratch, "mean_scores", lambda _: scores)
    copies = from_scratch.Copies(tmp_path, marks, float)
    copies.measured = {str(mark): mark for mark in marks}
    hparams = {"test_dataloader_opts": {}}
    from_scratch.score(from_scratch.ORIGINAL, hparams, copies, marks)
    assert [s / seen[0] for s in seen] == pytest.approx(marks)
