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


def test_bytes_stand_beside_quality(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "train", finish)
    argv = ["--out", str(tmp_path), "--csv", str(tmp_path / "all.csv")]
    argv += ["--seeds", "1", "--updates", "float32", "int8"]
    compression.main(argv)
    with open(tmp_path / "all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [[row[key] for key in ("updates", "bytes", "si_sdri_1")] for row in rows]
    assert found == [["float32", "400", "3"], ["int8", "100", "3"]]
