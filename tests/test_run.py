"""What ./run does with its arguments, its Python and its folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASH = shutil.which("bash")


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    """A folder with a space in its name that holds ./run and nothing else."""
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(ROOT / "run", folder)
    return folder


def start(project, *arguments, path="", **environment):
    """Runs ./run from elsewhere, with nothing but bash's own commands and `path`."""
    tools = project.parent / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "dirname", "sed"):
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name))
    return subprocess.run(
        [BASH, project / "run", *arguments],
        cwd="/",
        env={"PATH": f"{path}:{tools}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# Stands for a Python that passes the version check and repeats its arguments.
ECHO = '#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\nprintf "%s\\n" "$@"\n'


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "tools/setup_env.py train.py hparams/fedenhance.yaml --p_supervised 0.5"),
        (
            ["hparams/other.yaml", "--rounds", "5"],
            "tools/setup_env.py train.py hparams/other.yaml --rounds 5",
        ),
        (
            ["--rounds", "5"],
            "tools/setup_env.py train.py hparams/fedenhance.yaml --rounds 5",
        ),
        (
            ["test"],
            "tools/setup_env.py --test "
            "-m pytest -n auto --maxprocesses 4 --dist loadfile",
        ),
        (["test", "-k", "mixit"], "tools/setup_env.py --test -m pytest -k mixit"),
    ],
)
def test_arguments_go_to_the_right_program(project, arguments, expected):
    executable(project / ".venv/bin/python", ECHO)
    result = start(project, *arguments)
    assert result.stdout.split() == expected.split()
    assert result.returncode == 0


def test_an_argument_with_spaces_stays_one(project):
    executable(project / ".venv/bin/python", ECHO)
    assert "my data" in start(project, "x.yaml", "--data_folder", "my data").stdout


def test_old_python_is_one_clear_line(project):
    old = '#!/bin/sh\nif [ "$1" = -c ]; then exit 1; fi\necho Python 3.9.6\n'
    executable(project.parent / "old/python3", old)
    result = start(project, path=project.parent / "old")
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert "Python 3.11 to 3.14 is needed, and Python 3.9.6 was found" in line


def test_missing_python_is_one_clear_line(project):
    result = start(project)
    assert result.returncode != 0
    [line] = result.stderr.splitlines()
    assert "no Python was found" in line


def test_a_named_python_is_the_only_one_tried(project):
    executable(project / ".venv/bin/python", ECHO)
    result = start(project, PYTHON="/nowhere/python3")
    assert result.returncode != 0
    assert "no Python was found" in result.stderr


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.14", "3.15"])
def test_versions_are_those_that_torch_has_builds_for(project, version):
    """The real check of ./run, evaluated with another sys.version_info."""
    check = next(
        line.split("'")[1]
        for line in (project / "run").read_text().splitlines()
        if "sys.version_info" in line
    )
    release = tuple(map(int, version.split(".")))
    fake = f"import sys; sys.version_info = {(*release, 0)}; "
    result = subprocess.run([sys.executable, "-c", fake + check], timeout=60)
    assert (result.returncode == 0) == (version in ("3.11", "3.14"))


def test_a_failed_setup_stops_the_run(project):
    failing = '#!/bin/sh\nif [ "$1" = -c ]; then exit 0; fi\necho "$1"; exit 3\n'
    executable(project / ".venv/bin/python", failing)
    result = start(project, "test")
    assert (result.returncode, result.stdout) == (3, "tools/setup_env.py\n")
