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
import re
import sys
from pathlib import Path

SUFFIX = ".disabled"


def unloadable_library(error, package, cpu_only):
    """Finds the file to disable, if this is the error to repair.

    Arguments
    ---------
    error : Exception
        What ``import torchaudio`` raised.
    package : Path
        The folder of the torchaudio package.
    cpu_only : bool
        Whether PyTorch is built without CUDA and ROCm.

    Returns
    -------
    Path or None
        The native library, or None where the failure is another one.

    Example
    -------
    >>> package = Path("site-packages/torchaudio")
    >>> library = package / "lib" / "_torchaudio.abi3.so"
    >>> error = OSError(f"Could not load this library: {library}")
    >>> unloadable_library(error, package, cpu_only=True).name
    '_torchaudio.abi3.so'
    >>> unloadable_library(error, package, cpu_only=False)
    >>> unloadable_library(OSError("disk quota exceeded"), package, cpu_only=True)
    """
    if not cpu_only or not isinstance(error, OSError):
        return None
    match = re.fullmatch(r"Could not load this library: (.+\.so)", str(error))
    if match is None:
        return None
    library = Path(match[1])
    return library if library.parent == package / "lib" else None


def main():
    """Imports torchaudio, and repairs it when that fails in the one known way."""
    import torch

    package = Path(importlib.util.find_spec("torchaudio").origin).parent
    try:
        import torchaudio  # noqa: F401
    except OSError as error:
        cpu_only = torch.version.cuda is None and torch.version.hip is None
        library = unloadable_library(error, package, cpu_only)
        if library is None:
            raise
        library.rename(library.with_name(library.name + SUFFIX))
        print(
            f"set-up: {library.name} needs CUDA and this PyTorch has none: renamed to "
            f"{library.name + SUFFIX}, torchaudio now runs in pure Python"
        )


if __name__ == "__main__":
    sys.exit(main())
