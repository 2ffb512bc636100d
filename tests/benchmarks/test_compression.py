"""The table of bytes and quality."""

import csv

from benchmarks import compression, experiments
from tests.benchmarks import test_experiments


def finish(folder, command):
    """Leaves what a run of train.py leaves."""
    test_experiments.finish(folder, command)
    sent = 100 if "{compress: int8}" in command else 400
    (folder / "clients.csv").write_text(
        f"client,status,bytes\n0,ok,{sent}\n1,no reply,0\n1,ok,{sent}\n"
    )
    return True


def test_bytes_stand_beside_quality(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "train", finish)
    argv = ["--out", str(tmp_path), "--csv", str(tmp_path / "all.csv")]
    argv += ["--seeds", "1", "--updates", "float32", "int8"]
    compression.main(argv)
    assert "| int8 | 100 | 0.250 | 3.00 | 4.00 |" in capsys.readouterr().out
    with open(tmp_path / "all.csv", newline="") as file:
        assert [row["bytes"] for row in csv.DictReader(file)] == ["400", "100"]
