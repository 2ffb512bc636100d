"""The table of personal models: what is gained, over what, by whom."""

import csv

from benchmarks import personal
from fed.arrays import matching
from fedenhance.based_yaml import load_hparams

CLIENTS = "client,global_si_sdri,{}personal_si_sdri\n0,1.0,{}2.0\n1,3.0,{}2.5\n"


def finish(folder, command):
    """Leaves what a run of train.py leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    local = "--local" in command
    cells = ("local_si_sdri,", "1.5,", "2.0,") if local else ("", "", "")
    (folder / "personal.csv").write_text(CLIENTS.format(*cells))
    (folder / "rounds.csv").write_text("test_si_sdri\n4.0\n")
    return True


def test_gains_are_over_the_shared_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(personal, "train", finish)
    monkeypatch.setattr(personal, "is_done", lambda *_: False)
    monkeypatch.setattr(personal.measuring, "begin", lambda args: None)
    argv = ["--runs", str(tmp_path), "--out", str(tmp_path / "all.csv")]
    argv += ["--statistics", "averaged", "local", "--seeds", "1"]
    personal.main([*argv, "--data_folder", str(tmp_path)])
    told = capsys.readouterr().out
    assert "| averaged | global | 1 | 2.00 |  |  | 4.00 |" in told
    assert "| averaged | Ditto | 1 | 2.25 | 0.25 | 1 of 2 |  |" in told
    assert "| local | local | 1 | 1.75 |  |  |  |" in told
    assert "| local | all | 1 | 2.25 | 0.50 | 2 of 2 |  |" in told
    with open(tmp_path / "all.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * (4 + 4)


def test_its_yaml_loads_and_its_patterns_are_gtcrns(tmp_path):
    hparams = load_hparams(personal.YAML, f"data_folder: {tmp_path}")
    names = list(hparams["modules"]["separator"].state_dict(prefix="separator."))
    local = personal.STATISTICS["local"]["local"]
    kept = matching(names, local)
    assert {n for n in names if "running_mean" in n} <= kept
    assert not any("intra" in name or "inter" in name for name in kept)
