"""Makes ``.venv`` hold what the requirement files ask for. ``./run`` calls it.

Standard library only. It does nothing when the environment is complete for these
requirement files and this Python. It stops with one line when it cannot go on.

    python tools/setup_env.py           # requirements.txt
    python tools/setup_env.py --test    # and what the tests need
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Resolved before anything is removed: it may be a link inside the old environment.
PYTHON = os.path.realpath(sys.executable)
# Lies inside the environment: absent, the folder is not ours to change; empty, a set-up
# was interrupted and starts again.
STATE = "setup.json"
NETWORK_ERROR = re.compile(
    r"(?i)dns error|error sending request|client error \(Connect\)|timed? ?out"
    r"|NewConnectionError|NameResolutionError|Network is unreachable|network connect"
)


def say(message):
    """Tells the user what is being done."""
    print(f"set-up: {message}", flush=True)


def stop(message):
    """Ends the set-up with what the user should read."""
    sys.exit(f"set-up: {message}")


def run(*command, timeout=None):
    """Runs a command quietly; one that is not there, or takes too long, fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def require(result):
    """Stops where a command failed, and says why."""
    output = result.stderr + result.stdout
    if result.returncode == 0:
        return
    if "ensurepip" in output:
        stop(
            "this Python cannot make environments: install python3-venv "
            "(Debian, Ubuntu), or uv"
        )
    if NETWORK_ERROR.search(output):
        stop("the package index cannot be reached: is there a network connection?")
    stop(f"installing failed:\n{output.strip()}")


def wanted_state(root, test):
    """Describes the environment asked for: Python's version, each file's hash."""
    more = ["requirements-dev.txt", "requirements-extra.txt"] if test else []
    state = {"python": platform.python_version()}
    for name in ["requirements.txt", *more]:
        state[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    return state


def prepare_uv():
    """Tells uv what it would not see: pip's settings; and to compile bytecode."""
    listed = run(PYTHON, "-m", "pip", "config", "list").stdout
    pip = dict(re.findall(r"(?m)^(?:global|install)\.([\w-]+)='(.+)'$", listed))
    links = os.environ.get("PIP_FIND_LINKS", pip.get("find-links", ""))
    folders = filter(os.path.isdir, links.replace(r"\n", " ").split())
    settings = {
        "UV_FIND_LINKS": ",".join(folders),
        "UV_DEFAULT_INDEX": os.environ.get("PIP_INDEX_URL", pip.get("index-url")),
        # Else every start would compile all that it imports.
        "UV_COMPILE_BYTECODE": "1" if sys.flags.dont_write_bytecode else "",
    }
    for name, value in settings.items():
        if value:
            os.environ.setdefault(name, value)


def has_gpu():
    """Tells whether an NVIDIA GPU answers."""
    result = run("nvidia-smi", "-L", timeout=60)
    return result.returncode == 0 and "GPU" in result.stdout


def torch_pin(installer, root):
    """Chooses a CPU build of torch where there is no GPU and find-links has one.

    Left alone, the newest version wins, which on Linux is a CUDA build and several
    gigabytes. The installer judges whether a wheel fits the range, Python and the
    system.
    """
    if platform.system() != "Linux" or "UV_TORCH_BACKEND" in os.environ or has_gpu():
        return []
    folders = filter(None, os.environ.get("UV_FIND_LINKS", "").split(","))
    wheels = [path.name for folder in folders for path in Path(folder).glob("*.whl")]
    found = (re.match(r"torch-([\d.]+)(\+|%2B)cpu-", wheel) for wheel in wheels)
    releases = {tuple(map(int, match[1].split("."))) for match in found if match}
    options = ["--dry-run", "--no-deps", "--no-index"]
    options += ["--constraint", root / "requirements.txt"]
    for release in sorted(releases, reverse=True):
        pin = f"torch=={'.'.join(map(str, release))}+cpu"
        if run(*installer, *options, pin).returncode == 0:
            say(f"no GPU found: taking {pin} from find-links")
            return [pin]
    return []


def make(venv):
    """Makes the environment; returns the command that installs into it.

    That is uv, of the system or the environment; pip where uv cannot be had.
    """
    python, own = venv / "bin" / "python", venv / "bin" / "uv"
    uv = next((uv for uv in ("uv", own) if run(uv, "--version").returncode == 0), None)
    if uv is None:
        say("installing uv")
        require(run(PYTHON, "-m", "venv", venv))
        if run(python, "-m", "pip", "install", "uv").returncode:
            say("uv cannot be had: pip installs, which takes longer")
            return [python, "-m", "pip", "install"]
    elif not python.exists():
        require(run(uv, "venv", "--allow-existing", "--python", PYTHON, venv))
    return [uv or own, "pip", "install", "--python", python]


def install(venv, root, test):
    """Installs the requirement files into the environment."""
    prepare_uv()
    installer = make(venv)
    name = "requirements-dev.txt" if test else "requirements.txt"
    wanted = ["-r", root / name, *torch_pin(installer, root)]
    # Resolving first, quietly, finds most failures before any download.
    require(run(*installer, "--dry-run", *wanted))
    say(f"installing {name}")
    if subprocess.run([*installer, *wanted]).returncode:
        stop("installing failed, for the reason above")
    if test:
        install_extras(installer, root / "requirements-extra.txt", wanted)
    repair = [venv / "bin" / "python", root / "tools" / "setup_torchaudio.py"]
    if subprocess.run(repair).returncode:
        stop("torchaudio cannot be imported, for the reason above")


def install_extras(installer, requirements, installed):
    """Installs the optional packages one can have here; tests skip the others."""
    say(f"installing {requirements.name}")
    if run(*installer, "-r", requirements, *installed).returncode == 0:
        return
    for line in requirements.read_text().splitlines():
        package = line.partition("#")[0].strip()
        if package and run(*installer, package, *installed).returncode:
            say(f"{package} cannot be installed here; the tests that need it skip")


def setup(root, test):
    """Brings ``root/.venv`` up to date with the requirement files."""
    venv, wanted, start = root / ".venv", wanted_state(root, test), time.monotonic()
    record = venv / STATE
    state = json.loads(record.read_text() or "{}") if record.exists() else {}
    if wanted.items() <= state.items():
        return
    if venv.exists() and not record.exists():
        stop(
            ".venv was not made by ./run: move it away, or use it directly "
            "(.venv/bin/python train.py ...)"
        )
    if state.get("python") != wanted["python"]:
        say(f"creating {venv.name} with Python {wanted['python']}")
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir()
    # Marked as ours and unfinished from its start.
    record.write_text("{}")
    install(venv, root, test)
    record.write_text(json.dumps(wanted, indent=2) + "\n")
    say(f"done in {time.monotonic() - start:.0f} s")


def main():
    """Sets up; a second set-up of the same checkout waits for the first."""
    with open(ROOT / "requirements.txt") as lock:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        setup(ROOT, test="--test" in sys.argv[1:])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; the next run starts it again")
