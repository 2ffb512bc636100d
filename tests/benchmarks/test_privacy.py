"""How many clients differential privacy needs."""

from pathlib import Path

import pytest

from benchmarks import privacy
from benchmarks.loops import HERE, Case, federate
from fedenhance.data.tables import read_table

pytest.importorskip("dp_accounting")


def test_the_page_has_what_the_accountant_says(tmp_path):
    privacy.main(["plan", "--out", str(tmp_path)])
    page = Path(HERE.parent, "docs", "privacy.md").read_text(encoding="utf-8")
    rows = read_table(tmp_path / "privacy_clients.csv")
    assert len(rows) == len(privacy.CLIENTS)
    for row in rows:
        noise, ratio = row["noise_multiplier"], row["noise_to_update"]
        line = f"| {int(row['clients']):,} | {row['expected']} | {noise} | {ratio} |"
        assert line in page


def test_the_example_trains_within_its_budget():
    small = {"registered": 60, "clients": 30, "rounds": 2}
    rows = federate(Case(str(HERE / "privacy.yaml"), settings=small), rounds=2)
    assert 7.9 < float(rows[-1]["epsilon"]) <= 8.0
    assert "train_loss" not in rows[-1]
