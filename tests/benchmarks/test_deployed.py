"""What a deployed round takes beyond training."""

import csv
import sys

from benchmarks import deployed

UP = """#!{python}
import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output_folder") + 1])
folder.mkdir()
(folder / "clients.csv").write_text("round,client,seconds\\n1,a,2\\n1,b,3\\n2,a,4\\n")
(folder / "rounds.csv").write_text("round,seconds\\n1,4.5\\n")
time.sleep(1)
(folder / "rounds.csv").write_text("round,seconds\\n1,4.5\\n2,4.25\\n")
time.sleep(1)
"""


def test_the_rest_is_a_round_less_its_slowest_client(tmp_path, monkeypatch):
    monkeypatch.setattr(deployed, "ROOT", tmp_path)
    (tmp_path / "deploy").mkdir()
    program = tmp_path / "deploy" / "up"
    program.write_text(UP.format(python=sys.executable))
    program.chmod(0o755)
    deployed.main(["--csv", str(tmp_path / "found.csv")])
    with open(tmp_path / "found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rest"] for row in rows] == ["1.5", "0.25"]
    assert float(rows[0]["finished"]) < float(rows[1]["finished"])
