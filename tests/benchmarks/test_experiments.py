"""The table of the default experiment."""

import csv

from benchmarks import experiments


def finished_run(folder):
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "convergence.png").touch()
    (folder / "test_metrics.csv").write_text(
        "id,n_noises,si_sdri\na-1,1,2.0\na-2,2,3.0\nb-1,1,4.0\n"
    )
    (folder / "rounds.csv").write_text("round,seconds\n1,30\n2,90\n")


def test_finished_runs_are_averaged_and_not_run_again(tmp_path, capsys):
    for seed in ("1", "2"):
        finished_run(tmp_path / "built-in" / "p0.5" / seed)
    argv = ["--out", str(tmp_path), "--csv", str(tmp_path / "all.csv")]
    experiments.main([*argv, "--seeds", "1", "2", "--p_supervised", "0.5"])
    printed = capsys.readouterr().out
    assert "| built-in | 0.5 | 2 | 3.00 ± 0.00 | 3.00 ± 0.00 |" in printed
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert rows[0]["minutes"] == "2.0"
