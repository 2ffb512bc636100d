"""A torchaudio built for CUDA is repaired beside a CPU-only PyTorch, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


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
    first, second = run(KNOWN), run(KNOWN)
    assert (first.returncode, library.exists()) == (0, False)
    assert "renamed" in first.stdout
    assert (second.returncode, second.stdout) == (0, "")
    assert sorted(path.name for path in library.parent.iterdir()) == [
        "_torchaudio.abi3.so.disabled",
        "libtorchaudio.abi3.so",
    ]


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
