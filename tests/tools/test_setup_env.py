"""Set-up installs what is asked for, once, with what there is to install by."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import setup_env

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Requirement files, and an installer that only counts its calls."""
    for name in ("requirements", "requirements-dev", "requirements-extra"):
        (tmp_path / f"{name}.txt").write_text("torch>=2.11\n")
    installs = []

    def install(venv, root, test):
        installs.append(test)
        (venv / f"package-{len(installs)}").touch()

    monkeypatch.setattr(setup_env, "install", install)
    return tmp_path, installs


def test_setup_is_skipped_when_nothing_changed(checkout):
    root, installs = checkout
    setup_env.setup(root, test=False)
    setup_env.setup(root, test=False)
    assert installs == [False]


def test_testing_needs_more_than_training(checkout):
    root, installs = checkout
    setup_env.setup(root, test=False)
    setup_env.setup(root, test=True)
    setup_env.setup(root, test=False)
    setup_env.setup(root, test=True)
    assert installs == [False, True]


def test_changed_requirements_are_added_to_the_environment(checkout):
    root, installs = checkout
    setup_env.setup(root, test=False)
    (root / "requirements.txt").write_text("torch>=2.12\n")
    setup_env.setup(root, test=False)
    assert len(installs) == 2
    assert (root / ".venv/package-1").exists()


def test_another_python_makes_a_new_environment(checkout, monkeypatch):
    root, installs = checkout
    setup_env.setup(root, test=False)
    monkeypatch.setattr(setup_env.platform, "python_version", lambda: "3.14.0")
    setup_env.setup(root, test=False)
    assert len(installs) == 2
    assert not (root / ".venv/package-1").exists()


def interrupt(root, monkeypatch):
    """Stops a set-up while it installs."""

    def install(venv, root, test):
        (venv / "half a package").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(setup_env, "install", install)
        setup_env.setup(root, test=False)


def test_an_interrupted_setup_starts_again(checkout, monkeypatch):
    root, installs = checkout
    interrupt(root, monkeypatch)
    setup_env.setup(root, test=False)
    assert installs == [False]
    assert not (root / ".venv/half a package").exists()


def test_an_interrupted_update_starts_again(checkout, monkeypatch):
    root, installs = checkout
    setup_env.setup(root, test=False)
    (root / "requirements.txt").write_text("torch>=2.12\n")
    interrupt(root, monkeypatch)
    # Even with the old files back, the environment cannot be trusted.
    (root / "requirements.txt").write_text("torch>=2.11\n")
    setup_env.setup(root, test=False)
    assert len(installs) == 2
    assert not (root / ".venv/package-1").exists()


def test_an_unreadable_record_starts_again(checkout):
    root, installs = checkout
    setup_env.setup(root, test=False)
    (root / ".venv" / setup_env.STATE).write_text("")
    setup_env.setup(root, test=False)
    assert len(installs) == 2


def test_a_foreign_environment_is_left_alone(checkout):
    root, installs = checkout
    (root / ".venv").mkdir()
    (root / ".venv/precious").touch()
    with pytest.raises(SystemExit, match="was not made by ./run"):
        setup_env.setup(root, test=False)
    assert installs == []
    assert (root / ".venv/precious").exists()


def test_a_second_setup_waits_for_the_first(tmp_path):
    """The first one's lock is held here; .venv is foreign, so that the second ends."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / ".venv").mkdir()
    (tmp_path / "requirements.txt").touch()
    with open(tmp_path / "requirements.txt") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, tmp_path / "tools/setup_env.py"], stderr=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            second.communicate(timeout=1)
    assert b"was not made by ./run" in second.communicate(timeout=60)[1]


class Commands:
    """Stands for the commands of a set-up: fails those that contain one of `failing`.

    `output` is what a failing command says.
    """

    def __init__(self, monkeypatch, *failing, output="broken"):
        self.failing, self.output, self.seen = failing, output, []
        monkeypatch.setattr(setup_env, "run", self)
        monkeypatch.setattr(setup_env.subprocess, "run", self)

    def __call__(self, *command, **options):
        words = command[0] if isinstance(command[0], list) else command
        line = " ".join(map(str, words))
        self.seen.append(line)
        failed = any(part in line for part in self.failing)
        return subprocess.CompletedProcess(
            words, int(failed), "", self.output if failed else ""
        )

    def install(self, root, test=False):
        setup_env.install(root / ".venv", root, test)
        return [line for line in self.seen if " install " in line]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A find-links folder with two CPU builds of torch, on a Linux without GPU."""
    for name in (
        "torch-2.9.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torchvision-0.29.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    ):
        (tmp_path / name).touch()
    monkeypatch.setenv("UV_FIND_LINKS", f"/nowhere,{tmp_path}")
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup_env, "has_gpu", lambda: False)


def pin():
    return setup_env.torch_pin(["uv", "pip", "install"], ROOT)


def test_without_a_gpu_the_newest_cpu_build_that_fits_is_taken(wheels, monkeypatch):
    commands = Commands(monkeypatch)
    assert pin() == ["torch==2.13.0+cpu"]
    assert "--dry-run" in commands.seen[0] and "--no-index" in commands.seen[0]
    Commands(monkeypatch, "torch==2.13.0")
    assert pin() == ["torch==2.9.1+cpu"]
    Commands(monkeypatch, "torch==")
    assert pin() == []


@pytest.mark.parametrize("why_not", ["a GPU", "macOS", "a chosen backend"])
def test_else_the_newest_build_is_taken(wheels, monkeypatch, why_not):
    Commands(monkeypatch)
    if why_not == "a GPU":
        monkeypatch.setattr(setup_env, "has_gpu", lambda: True)
    elif why_not == "macOS":
        monkeypatch.setattr(setup_env.platform, "system", lambda: "Darwin")
    else:
        monkeypatch.setenv("UV_TORCH_BACKEND", "cu126")
    assert pin() == []


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo 'GPU 0: NVIDIA H100'", True),
        ("echo 'No devices were found'", False),
        ("echo 'driver not loaded' >&2; exit 9", False),
    ],
)
def test_a_gpu_counts_when_it_answers(tmp_path, monkeypatch, script, answer):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert setup_env.has_gpu() is answer


@pytest.fixture
def told(monkeypatch):
    """What uv is told, by pip's configuration and the environment."""

    def told(configuration="", **environment):
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", environment)
            answer = subprocess.CompletedProcess([], 0, configuration, "")
            patch.setattr(setup_env, "run", lambda *_: answer)
            setup_env.prepare_uv()
        return {name: v for name, v in environment.items() if name.startswith("UV_")}

    monkeypatch.setattr(sys, "flags", SimpleNamespace(dont_write_bytecode=0))
    return told


def test_uv_installs_from_where_pip_would(told):
    indexes = "global.index-url='https://a'\ninstall.index-url='https://b'\n"
    found = told(indexes + "global.find-links='/nowhere /'\n")
    assert found == {"UV_DEFAULT_INDEX": "https://b", "UV_FIND_LINKS": "/"}
    assert told() == {}


def test_the_environment_outranks_pips_files_and_uvs_own_settings_both(told):
    files = "global.index-url='https://a'\nglobal.find-links='/nowhere'\n"
    own = {"UV_DEFAULT_INDEX": "https://own"}
    assert told(files, PIP_FIND_LINKS="/", **own) == {"UV_FIND_LINKS": "/", **own}
    assert told(files, PIP_INDEX_URL="https://b") == {"UV_DEFAULT_INDEX": "https://b"}


def test_bytecode_is_compiled_where_python_keeps_none(told):
    sys.flags.dont_write_bytecode = 1
    assert told() == {"UV_COMPILE_BYTECODE": "1"}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Requirement files, nothing of the machine's own settings, no choice of torch."""
    for name in ("requirements", "requirements-dev"):
        (tmp_path / f"{name}.txt").touch()
    extra = "pesq>=0.0.4  # needs a compiler\n\nonnx>=1.18\n"
    (tmp_path / "requirements-extra.txt").write_text(extra)
    monkeypatch.setattr(setup_env, "prepare_uv", lambda: None)
    monkeypatch.setattr(setup_env, "torch_pin", lambda *_: [])
    return tmp_path


def test_uv_installs_where_there_is_one(asked, monkeypatch):
    first, second = Commands(monkeypatch).install(asked)
    assert first.startswith("uv pip install") and "--dry-run" in first
    assert second.endswith(f"-r {asked}/requirements.txt")


def test_uv_is_installed_where_there_is_none(asked, monkeypatch):
    lines = Commands(monkeypatch, "uv --version").install(asked)
    python, uv = (asked / ".venv/bin" / name for name in ("python", "uv"))
    assert lines[0] == f"{python} -m pip install uv"
    assert all(line.startswith(f"{uv} pip install") for line in lines[1:])


def test_pip_installs_where_uv_cannot_be_had(asked, monkeypatch, capsys):
    lines = Commands(monkeypatch, "uv --version", "install uv").install(asked)
    python = asked / ".venv/bin/python"
    assert lines[-1] == f"{python} -m pip install -r {asked}/requirements.txt"
    assert "uv cannot be had" in capsys.readouterr().out


def test_an_optional_package_that_fails_is_named_and_the_others_installed(
    asked, monkeypatch, capsys
):
    lines = Commands(monkeypatch, "extra", "pesq").install(asked, test=True)
    assert any("onnx>=1.18" in line for line in lines)
    printed = capsys.readouterr().out
    assert (
        "pesq>=0.0.4 cannot be installed here; the tests that need it skip" in printed
    )
    assert "onnx" not in printed


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "error: Failed to fetch\n  cause: dns error\n  cause: lookup\n",
            "set-up: the package index cannot be reached: is there a network "
            "connection?",
        ),
        (
            "ensurepip is not available.\napt install python3.11-venv\n",
            "set-up: this Python cannot make environments: install python3-venv "
            "(Debian, Ubuntu), or uv",
        ),
        ("No space\nleft", "set-up: installing failed:\nNo space\nleft"),
    ],
)
def test_a_known_failure_is_one_line_another_is_shown_whole(
    asked, monkeypatch, output, message
):
    with pytest.raises(SystemExit) as stopped:
        Commands(monkeypatch, "--dry-run", output=output).install(asked)
    assert stopped.value.code == message


def test_a_command_that_is_not_there_fails():
    assert setup_env.run("no such command").returncode == 127
