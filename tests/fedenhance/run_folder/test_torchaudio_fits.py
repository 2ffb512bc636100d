"""A torchaudio for CUDA loads beside a CPU-only PyTorch, and any other as it would."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from fedenhance.run_folder import torchaudio_fits
versions = {{"torch": {torch!r}, "torchaudio": {torchaudio!r}}}
torchaudio_fits.version = versions.__getitem__
torchaudio_fits.let_torchaudio_load()
if "torchaudio._extension.utils" in sys.modules:
    import torch
    torch.ops.load_library = None  # whoever calls it fails
    import torchaudio
    print(torchaudio.transforms.Resample(2, 1)(torch.ones(100)).shape[0])
"""


@pytest.mark.parametrize(
    ("torch", "torchaudio", "said"),
    [
        ("2.13.0+cpu", "2.11.0", "50\n"),
        ("2.13.0+cpu", "2.11.0+cpu", ""),
        ("2.13.0", "2.11.0", ""),
    ],
)
def test_a_library_that_cannot_load_is_not_looked_for(torch, torchaudio, said):
    code = PROGRAM.format(torch=torch, torchaudio=torchaudio)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (said, "")
