"""What a run ran with, in ``env.log``."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch


def write_environment(folder):
    """Write which Python, packages, revision and CUDA this process uses.

    SpeechBrain's own ``env.log`` lists the packages of whichever ``pip`` the shell
    finds, which need not be those of this Python, and takes a second or more for it.

    Arguments
    ---------
    folder : str or Path
        Which ``env.log`` is written into.
    """
    told = (package.metadata for package in metadata.distributions())  # parsed once
    packages = sorted({f"{about['Name']}=={about['Version']}" for about in told})
    parts = {
        "Python": [sys.version, sys.executable],
        "Packages": packages,
        "Git revision": [_revision()],
        "CUDA": [torch.version.cuda if torch.cuda.is_available() else "not available"],
    }
    text = "".join(f"{title}:\n" + "\n".join(x) + "\n\n" for title, x in parts.items())
    (Path(folder) / "env.log").write_text(text, encoding="utf-8")


def _revision():
    """Of the working folder's repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "git is not there"
    return found.stdout.strip() or "not a repository"
