"""Help is there at once, and says what a YAML file has."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from fedenhance.__main__ import COMMANDS
from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import keys

TRAINING = {"speechbrain", "flwr", "matplotlib", "pandas", "sentencepiece", "jinja2"}
LATER = {"matplotlib", "pandas", "jinja2", "onnxruntime", "ray"}
LATER |= {"torch._dynamo", "torch.distributed.tensor"}  # the first optimizer does
SLOW = {"torch", "speechbrain", "flwr", "matplotlib", "scipy", "soundfile"}


def test_keys_come_with_values_and_comments(capsys):
    keys.main(["hparams/centralized.yaml", "--help"])
    lines = capsys.readouterr().out.splitlines()
    (segment,) = [line for line in lines if line.startswith("  --segment ")]
    assert segment.split() == ["--segment", "1.0", "#", "seconds"]
    assert any(line.startswith("  --seed ") for line in lines)  # of its base's base


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="none.yaml"):
        keys.main(["none.yaml", "--help"])


@pytest.mark.parametrize("program", COMMANDS)
def test_help_imports_nothing_slow(program):
    code = (
        f"import sys; sys.argv = ['{program}.py', '--help']\n"
        "from fedenhance.__main__ import start\n"
        "try:\n"
        f"    start('{program}', ['--help'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print({SLOW!r} & sys.modules.keys(), file=sys.stderr)\n"
    )
    done = run(code, timeout=60)
    assert done.stdout.startswith("usage: ")
    assert done.stderr.strip() == "set()"


def run(code, *words, timeout=120):
    """Runs code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_training_starts_without_what_is_needed_later():
    code = (
        "import sys\n"
        "from fedenhance.commands import train\n"
        "print('flwr' in sys.modules)\n"
        "train.load_hparams('hparams/fedenhance.yaml')\n"
        f"print({LATER!r} & sys.modules.keys())\n"
    )
    done = run(code)
    assert done.stdout.split() == ["False", "set()"], done.stderr


def test_enhancing_imports_no_more_than_it_needs(tmp_path):
    """Neither what trains, nor torchaudio, whose libraries may not fit PyTorch's."""
    soundfile.write(tmp_path / "noisy.wav", np.zeros(1600), 16000)
    code = (
        "import sys; sys.modules['torchaudio'] = None  # it cannot be imported\n"
        "from fedenhance.commands import enhance\n"
        "status = enhance.main(sys.argv[1:])\n"
        f"print({TRAINING!r} & sys.modules.keys(), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    words = tmp_path / "noisy.wav", "--out", tmp_path / "clean"
    done = run(code, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "set()"
    assert (tmp_path / "clean/noisy.wav").exists()
