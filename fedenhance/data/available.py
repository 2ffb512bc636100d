"""What is there on this machine: devices, and packages that are optional."""

from importlib.util import find_spec


def check_device(name):
    """Raise ValueError for a device that is misspelt or not there.

    Arguments
    ---------
    name : str or None
        Of PyTorch; None: SpeechBrain chooses.
    """
    if name is None:
        return
    import torch

    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    kind, _, index = str(name).partition(":")
    if kind not in counts or not (index or "0").isdecimal():
        raise ValueError(f"device is {name!r}; it must be cpu, cuda, cuda:N or mps")
    if kind != "cpu" and int(index or 0) >= counts[kind]:
        raise ValueError(
            f"device is {name!r}; PyTorch sees {counts[kind]} {kind} devices here (cpu "
            "always works)"
        )


def require(what, *packages):
    """Raise an ImportError that says what to install, unless the packages are there.

    Example
    -------
    >>> require("this test", "pytest", "no-such-package")
    Traceback (most recent call last):
    ImportError: this test needs: pip install pytest no-such-package
    """
    if not all(find_spec(package.replace("-", "_")) for package in packages):
        raise ImportError(f"{what} needs: pip install {' '.join(packages)}")
