"""Runs that are killed inside saving go on and end as if nothing had been."""

import fnmatch

from benchmarks.kills import CONFIGURATIONS, killed_at, resumed, uninterrupted
from benchmarks.left import left_by
from tests.fedenhance.commands.test_train import arguments  # noqa: F401

LASTING = {
    **CONFIGURATIONS["remixit"],
    "keep_optimizer": True,
    "results": "[!name:fedenhance.reports.results.write_test_metrics ]",
    "evaluate_every": 1,
    "p_available_users": 1,
    "n_clients": 2,
    "valid_size": 1,
    "test_size": 1,
}
MOMENTS = {
    "save/.saving/CKPT*/CKPT.yaml": 1,
    "save/.saving/CKPT*": 2,  # all is written, and not yet in its place
    "save/.*.federation.pt": 1,
    "save/clients/*/.*.pt": 2,
}
"""Pattern of a file -> which of its changes is the last thing that a run does."""


def test_a_run_killed_inside_saving_ends_the_same(arguments, tmp_path):  # noqa: F811
    words = arguments(**LASTING)
    place = words.index("--output_folder")
    del words[place : place + 2]
    seconds, changes = uninterrupted(words, tmp_path / "whole")
    whole = left_by(tmp_path / "whole")
    assert {"rounds.csv", "test_metrics.csv", "save/federation.pt"} <= whole.keys()
    assert "save/checkpoint 0/teacher.ckpt" in whole
    assert [name for name in whole if name.startswith("save/clients/run/")]
    for number, (pattern, which) in enumerate(MOMENTS.items()):
        places = [i for i, f in enumerate(changes, 1) if fnmatch.fnmatch(f, pattern)]
        folder = tmp_path / str(number)
        assert killed_at(words, folder, places[which]), pattern
        assert left_by(folder) != whole
        assert resumed(words, folder, whole, 60 + 20 * seconds) == "equal", pattern
