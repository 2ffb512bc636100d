"""What a run says it ran with is what it ran with."""

import sys
from importlib import metadata

import torch

from fedenhance.run_folder.environment import write_environment


def test_the_packages_are_those_of_this_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no pip and no git
    write_environment(tmp_path)
    text = (tmp_path / "env.log").read_text(encoding="utf-8")
    assert sys.executable in text
    assert f"torch=={metadata.version('torch')}\n" in text
    assert torch.__version__.startswith(metadata.version("torch").split("+")[0])
    assert "git is not there" in text


def test_the_revision_is_that_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_environment(tmp_path)
    assert "Git revision:\nnot a repository" in (tmp_path / "env.log").read_text()
