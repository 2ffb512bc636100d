"""Puts a torchaudio that cannot load its native library into pure Python mode.

The torchaudio wheels on PyPI are built for CUDA. Beside a CPU-only build of PyTorch
``import torchaudio`` then fails with

    OSError: Could not load this library: .../torchaudio/lib/_torchaudio.abi3.so

although nothing of what this project and SpeechBrain use is native: without that file
torchaudio falls back to Python by itself. This script gives the file another name, and
does so for that error on a CPU-only PyTorch alone. Any other failure is left as it is
and raised. A second run finds nothing to do.

    python tools/setup_torchaudio.py
"""

import importlib.util
from pathlib import Path


def main():
    """Imports torchaudio, and repairs it when that fails in the one known way."""
    import torch

    folder = Path(importlib.util.find_spec("torchaudio").origin).parent / "lib"
    try:
        import torchaudio  # noqa: F401
    except OSError as error:
        library = Path(str(error).removeprefix("Could not load this library: "))
        if torch.version.cuda or torch.version.hip or library.parent != folder:
            raise
        renamed = library.rename(f"{library}.disabled")
        print(
            f"set-up: {library.name} needs CUDA and this PyTorch has none: renamed to "
            f"{renamed.name}, torchaudio now runs in pure Python"
        )


if __name__ == "__main__":
    main()
