"""A torchaudio that was built for CUDA, beside a PyTorch that was not."""

import sys
import types
from importlib.metadata import PackageNotFoundError, version


def let_torchaudio_load():
    """Let torchaudio run in pure Python where its native library cannot be loaded.

    The torchaudio on PyPI is built for CUDA. Beside a CPU-only PyTorch its import fails
    with ``OSError: Could not load this library: .../_torchaudio.abi3.so``, although
    SpeechBrain and this project use nothing native of it. Where the library is not
    there, torchaudio does without; this lets it find none, for this process. A
    torchaudio that fits, or that is imported already, is left alone.
    """
    try:
        fits = not version("torch").endswith("+cpu") or "+" in version("torchaudio")
    except PackageNotFoundError:
        return
    if not fits and "torchaudio" not in sys.modules:
        loader = types.ModuleType("torchaudio._extension.utils")
        loader._load_lib = lambda library: False
        loader._check_cuda_version = loader._init_dll_path = None
        sys.modules[loader.__name__] = loader
