"""The table of the default experiment."""

import csv

from benchmarks import experiments
from tests.fedenhance.commands.test_experiments import finish as train_in_short


def finish(folder, command):
    """Leaves what a run of train.py leaves."""
    train_in_short(command)
    (folder / "hyperparams.yaml").write_text(
        f"seed: {folder.name}\noutput_folder: {folder}\nmaximize: valid_si_sdri\n"
    )
    (folder / "rounds.csv").write_text(
        "round,seconds,valid_si_sdri,test_si_sdri_1,test_si_sdri_2\n"
        "1,30,2.0,3.0,4.0\n2,90,1.0,9.0,9.0\n"
    )
    return True


def test_runs_become_rows_and_are_not_run_again(tmp_path, capsys, monkeypatch):
    trained = []

    def train(folder, command):
        trained.append(folder)
        return finish(folder, command)

    monkeypatch.setattr(experiments, "train", train)
    argv = ["--out", str(tmp_path), "--csv", str(tmp_path / "all.csv")]
    argv += ["--seeds", "1", "2", "--p_supervised", "0.5"]
    for _ in range(2):
        experiments.main(argv)
    assert len(trained) == 2
    printed = capsys.readouterr().out
    row = "| built-in, levels as recorded | 0.5 | 2 | 3.00 ± 0.00 | 4.00 ± 0.00 |"
    assert row in printed
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert rows[0]["minutes"] == "2"
