"""Set-up: ./run, tools/setup_env.py and tools/setup_torchaudio.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup_env

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


# ------------------------------------------------------------------------ ./run


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


# ----------------------------------------------------------------- setup_env.py


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
    monkeypatch.setattr(setup_env, "check_platform", lambda *_: None)
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


def test_an_interrupted_setup_starts_again(checkout, monkeypatch):
    root, installs = checkout

    def interrupted(venv, root, test):
        (venv / "half a package").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup_env.setup(root, test=False)
    setup_env.setup(root, test=False)
    assert installs == [False]
    assert not (root / ".venv/half a package").exists()


def test_an_interrupted_update_starts_again(checkout, monkeypatch):
    root, installs = checkout
    setup_env.setup(root, test=False)
    (root / "requirements.txt").write_text("torch>=2.12\n")

    def interrupted(venv, root, test):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup_env.setup(root, test=False)
    # Even with the old files back, the environment cannot be trusted.
    (root / "requirements.txt").write_text("torch>=2.11\n")
    setup_env.setup(root, test=False)
    assert len(installs) == 2
    assert not (root / ".venv/package-1").exists()


def test_an_unreadable_record_starts_again(checkout):
    root, installs = checkout
    setup_env.setup(root, test=False)
    (root / ".venv" / setup_env.STATE).write_text("{")
    setup_env.setup(root, test=False)
    assert len(installs) == 2


def test_a_foreign_environment_is_left_alone(checkout):
    root, installs = checkout
    (root / ".venv").mkdir()
    (root / ".venv/precious").touch()
    with pytest.raises(setup_env.SetupError, match="was not made by ./run"):
        setup_env.setup(root, test=False)
    assert installs == []
    assert (root / ".venv/precious").exists()


def test_the_record_names_python_and_every_file(checkout):
    root, _ = checkout
    setup_env.setup(root, test=True)
    record = json.loads((root / ".venv" / setup_env.STATE).read_text())
    assert record.keys() == {
        "complete",
        "python",
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-extra.txt",
    }


def test_a_second_setup_waits_for_the_first(tmp_path):
    code = (
        "from pathlib import Path; from tools.setup_env import only_one\n"
        f"with only_one(Path({str(tmp_path)!r})): print('second')"
    )
    with setup_env.only_one(tmp_path):
        second = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert "waiting" in second.stdout.readline()
    assert second.communicate(timeout=60) == ("second\n", None)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A find-links folder with two CPU builds of torch, on a Linux without GPU."""
    for name in (
        "torch-2.9.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "torchvision-0.29.1+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    ):
        (tmp_path / name).touch()
    monkeypatch.setenv("UV_FIND_LINKS", f"/nowhere,{tmp_path}")
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup_env, "has_gpu", lambda: False)


class Installer:
    """Answers as uv does for the versions it accepts."""

    def __init__(self, accepted):
        self.accepted = accepted

    def __call__(self, *arguments):
        assert "--dry-run" in arguments
        return subprocess.CompletedProcess(arguments, arguments[-1] != self.accepted)


def test_cpu_builds_are_listed_newest_first(wheels):
    folders = os.environ["UV_FIND_LINKS"].split(",")
    assert setup_env.cpu_torch_versions(folders) == ["2.13.0+cpu", "2.9.1+cpu"]


def test_without_a_gpu_the_cpu_build_is_taken(wheels):
    uv = Installer(accepted="torch==2.13.0+cpu")
    assert setup_env.torch_pin(uv, ROOT) == ["torch==2.13.0+cpu"]


def test_a_cpu_build_that_does_not_fit_is_passed_over(wheels):
    uv = Installer(accepted="torch==2.9.1+cpu")
    assert setup_env.torch_pin(uv, ROOT) == ["torch==2.9.1+cpu"]
    assert setup_env.torch_pin(Installer(accepted=None), ROOT) == []


def test_a_gpu_gets_the_cuda_build(wheels, monkeypatch):
    monkeypatch.setattr(setup_env, "has_gpu", lambda: True)
    assert setup_env.torch_pin(Installer("torch==2.13.0+cpu"), ROOT) == []


def test_macos_resolves_plainly(wheels, monkeypatch):
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Darwin")
    assert setup_env.torch_pin(Installer("torch==2.13.0+cpu"), ROOT) == []


def test_a_chosen_backend_is_respected(wheels, monkeypatch):
    monkeypatch.setenv("UV_TORCH_BACKEND", "cu126")
    assert setup_env.torch_pin(Installer("torch==2.13.0+cpu"), ROOT) == []


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo 'GPU 0: NVIDIA H100'", True),
        ("echo 'No devices were found'", False),
        ("echo 'driver not loaded' >&2; exit 9", False),
    ],
)
def test_a_gpu_counts_when_it_answers(tmp_path, monkeypatch, script, answer):
    executable(tmp_path / "nvidia-smi", f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert setup_env.has_gpu() is answer


def test_find_links_of_the_environment_are_read(monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/some/wheels")
    assert setup_env.pip_settings(sys.executable)["find-links"] == "/some/wheels"


def test_a_missing_network_is_one_clear_line():
    failure = subprocess.CompletedProcess(
        [], 2, "", "error: Failed to fetch\n  cause: dns error\n  cause: lookup\n"
    )
    assert setup_env.explain(failure).splitlines() == [
        "the package index cannot be reached: is there a network connection?"
    ]


def test_another_failure_is_shown_whole():
    failure = subprocess.CompletedProcess([], 1, "", "No space left on device\n")
    assert "No space left on device" in setup_env.explain(failure)


# ---------------------------------------------------------- setup_torchaudio.py


@pytest.fixture
def repair(tmp_path):
    """Runs the repair against a torch and a torchaudio that are made for it."""
    library = tmp_path / "torchaudio/lib/_torchaudio.abi3.so"
    library.parent.mkdir(parents=True)
    library.touch()
    (library.parent / "libtorchaudio.abi3.so").touch()

    def run(raises, cuda="None"):
        (tmp_path / "torch.py").write_text(
            f"from types import SimpleNamespace\n"
            f"version = SimpleNamespace(cuda={cuda}, hip=None)\n"
        )
        (tmp_path / "torchaudio/__init__.py").write_text(
            "from pathlib import Path\n"
            "library = Path(__file__).parent / 'lib/_torchaudio.abi3.so'\n"
            f"if {raises is not None} and library.exists():\n    raise {raises}\n"
        )
        script = ROOT / "tools" / "setup_torchaudio.py"
        return subprocess.run(
            [sys.executable, script],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run, library


KNOWN = "OSError(f'Could not load this library: {library}')"


def test_torchaudio_falls_back_to_python_on_cpu_only_torch(repair):
    run, library = repair
    first = run(KNOWN)
    assert (first.returncode, library.exists()) == (0, False)
    assert "renamed" in first.stdout
    assert library.with_name("_torchaudio.abi3.so.disabled").exists()
    assert library.with_name("libtorchaudio.abi3.so").exists()


def test_repairing_twice_is_repairing_once(repair):
    run, library = repair
    run(KNOWN)
    files = sorted(library.parent.iterdir())
    second = run(KNOWN)
    assert (second.returncode, second.stdout) == (0, "")
    assert sorted(library.parent.iterdir()) == files


@pytest.mark.parametrize(
    "error",
    [
        "OSError('libcudart.so.13: cannot open shared object file')",
        "OSError('Could not load this library: /elsewhere/lib/_torchaudio.abi3.so')",
        "RuntimeError(f'Could not load this library: {library}')",
        "ImportError('Failed to load libtorchaudio')",
    ],
)
def test_any_other_error_is_raised_and_nothing_changed(repair, error):
    run, library = repair
    result = run(error)
    assert result.returncode != 0
    assert error.partition("(")[0] in result.stderr
    assert library.exists()


def test_a_cuda_torch_is_not_touched(repair):
    run, library = repair
    result = run(KNOWN, cuda="'13.0'")
    assert result.returncode != 0
    assert library.exists()


def test_a_torchaudio_that_loads_is_not_touched(repair):
    run, library = repair
    result = run(raises=None)
    assert (result.returncode, result.stdout) == (0, "")
    assert library.exists()
