"""The command that draws figures."""

import pytest

from fedenhance.commands import figures
from tests.fedenhance import finished


@pytest.mark.parametrize("name", ["convergence", "transfer", "supervision"])
def test_each_figure_is_drawn_by_its_name(name, tmp_path):
    finished.write_run(tmp_path, "c")
    finished.write_run(tmp_path, "started", initial_model="x")
    figures.main([name, str(tmp_path), "--out", str(tmp_path / "out")])
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{name}.pdf", f"{name}.png"]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no federated run"):
        figures.main(["convergence", str(tmp_path), "--out", str(tmp_path)])
