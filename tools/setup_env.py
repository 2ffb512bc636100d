"""Makes ``.venv`` hold what the requirement files ask for. ``./run`` calls it.

Standard library only. It does nothing when the environment is complete for these
requirement files and this Python. It stops with one line when it cannot go on.

    python tools/setup_env.py           # requirements.txt
    python tools/setup_env.py --test    # and what the tests need
"""

import ast
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
# Lies inside the environment: absent, the folder is not ours to change; without
# "complete", a set-up was interrupted and starts again.
STATE = "setup.json"
NETWORK_ERROR = re.compile(
    r"dns error|error sending request|client error \(Connect\)|timed? ?out"
    r"|NewConnectionError|NameResolutionError|Network is unreachable|network connect",
    re.IGNORECASE,
)


class SetupError(Exception):
    """A set-up that cannot go on; its message is the one line the user reads."""


def say(message):
    """Tells the user what is being done."""
    print(f"set-up: {message}", flush=True)


def check_platform(system, machine):
    """Refuses the platforms that PyTorch has no builds for.

    >>> check_platform("Linux", "x86_64")
    >>> check_platform("Darwin", "arm64")
    >>> check_platform("Darwin", "x86_64")
    Traceback (most recent call last):
        ...
    tools.setup_env.SetupError: PyTorch 2.11 and newer have no builds for Intel Macs: \
use Linux, or macOS on Apple silicon with an arm64 Python
    """
    if system == "Darwin" and machine == "x86_64":
        raise SetupError(
            "PyTorch 2.11 and newer have no builds for Intel Macs: "
            "use Linux, or macOS on Apple silicon with an arm64 Python"
        )
    if system not in ("Linux", "Darwin"):
        raise SetupError(f"{system} is not supported: use Linux (WSL too) or macOS")


def wanted_state(root, test):
    """Describes the environment asked for: Python's version, each file's hash."""
    names = ["requirements.txt"]
    if test:
        names += ["requirements-dev.txt", "requirements-extra.txt"]
    state = {"python": platform.python_version()}
    for name in names:
        state[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    return state


def read_state(venv):
    """Reads what the last set-up left; an unreadable record counts as none."""
    try:
        return json.loads((venv / STATE).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def write_state(venv, state):
    """Records the state in one step, so that it is whole or absent."""
    draft = venv / (STATE + ".draft")
    draft.write_text(json.dumps(state, indent=2) + "\n")
    draft.replace(venv / STATE)


def is_complete(state, wanted):
    """Tells whether a finished set-up already covers the one asked for.

    >>> is_complete({"complete": True, "python": "3.11.7", "more": "a"},
    ...             {"python": "3.11.7"})
    True
    >>> is_complete({"python": "3.11.7"}, {"python": "3.11.7"})
    False
    """
    return bool(state and state.get("complete")) and wanted.items() <= state.items()


def pip_settings(python):
    """Reads pip's own configuration, files and environment, as {setting: value}."""
    result = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    settings = {}
    # The environment outranks a setting of `pip install`, and that a global one.
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(
            rf"^{re.escape(section)}\.([\w-]+)=(.+)$", result.stdout, re.MULTILINE
        ):
            settings[name] = ast.literal_eval(value)
    # A Python without pip has no such command; the environment still counts.
    for name in ("find-links", "index-url"):
        variable = "PIP_" + name.upper().replace("-", "_")
        if os.environ.get(variable):
            settings[name] = os.environ[variable]
    return settings


def wheel_folders(find_links):
    """Picks the existing folders out of pip's find-links setting.

    >>> wheel_folders("/nowhere https://example.org/wheels .")
    ['.']
    """
    if os.path.isdir(find_links):
        return [find_links]
    return list(filter(os.path.isdir, find_links.split()))


def has_gpu():
    """Tells whether an NVIDIA GPU answers."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(
            [command, "-L"], capture_output=True, timeout=60, check=False
        )
        return result.returncode == 0 and b"GPU" in result.stdout
    return False


def cpu_torch_versions(folders):
    """Lists the CPU builds of torch among the wheels of these folders, newest first."""
    versions = {
        match[1]
        for folder in filter(os.path.isdir, folders)
        for wheel in Path(folder).glob("torch-*.whl")
        if (match := re.match(r"torch-([\d.]+(?:\+|%2B)cpu)-", wheel.name))
    }
    versions = {version.replace("%2B", "+") for version in versions}

    def release(version):
        return [int(number) for number in version.split("+")[0].split(".")]

    return sorted(versions, key=release, reverse=True)


def torch_pin(uv, root):
    """Chooses a CPU build of torch where there is no GPU and find-links has one.

    Left alone, the newest version wins, which on Linux is a CUDA build and several
    gigabytes. uv itself judges whether a wheel fits the range, Python and the system.

    Returns
    -------
    list of str
        The pin, or nothing.
    """
    folders = os.environ.get("UV_FIND_LINKS", "").split(",")
    if platform.system() != "Linux" or "UV_TORCH_BACKEND" in os.environ:
        return []
    versions = cpu_torch_versions(folders)
    if not versions or has_gpu():
        return []
    for version in versions:
        pin = f"torch=={version}"
        options = ["--dry-run", "--no-deps", "--no-index"]
        options += ["--constraint", str(root / "requirements.txt")]
        if uv(*options, pin).returncode == 0:
            say(f"no GPU found: taking torch {version} from find-links")
            return [pin]
    return []


def explain(failure):
    """Turns the failure of an installer into what the user should read."""
    output = (failure.stderr or "") + (failure.stdout or "")
    if NETWORK_ERROR.search(output):
        return "the package index cannot be reached: is there a network connection?"
    return f"{output.strip()}\nset-up: installing failed, for the reason above"


def find_uv(venv):
    """Finds a uv that works, or installs one into the environment with pip."""
    for candidate in (shutil.which("uv"), venv / "bin" / "uv"):
        if candidate and Path(candidate).exists():
            result = subprocess.run(
                [candidate, "--version"], capture_output=True, check=False
            )
            if result.returncode == 0:
                return str(candidate)
    say("installing uv")
    commands = [
        [PYTHON, "-m", "venv", str(venv)],
        [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"],
    ]
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            if "ensurepip" in result.stdout + result.stderr:
                raise SetupError(
                    "this Python cannot make environments: install python3-venv "
                    "(Debian, Ubuntu), or uv"
                )
            raise SetupError(explain(result))
    return str(venv / "bin" / "uv")


def create(venv):
    """Makes an empty environment, marked as ours and unfinished from its start."""
    say(f"creating {venv.name} with Python {platform.python_version()}")
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    write_state(venv, {})


def install(venv, root, test):
    """Installs the requirement files into the environment."""
    uv = find_uv(venv)
    python = venv / "bin" / "python"
    if not python.exists():
        command = [uv, "venv", "--quiet", "--allow-existing", "--python", PYTHON]
        result = subprocess.run(
            [*command, str(venv)], capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SetupError(explain(result))

    # uv does not read pip's configuration.
    settings = pip_settings(PYTHON)
    folders = wheel_folders(settings.get("find-links", ""))
    if folders:
        os.environ.setdefault("UV_FIND_LINKS", ",".join(folders))
    if "index-url" in settings:
        os.environ.setdefault("UV_DEFAULT_INDEX", settings["index-url"])

    command = [uv, "pip", "install", "--python", str(python)]
    if sys.flags.dont_write_bytecode:
        # Else every start would compile all that it imports.
        command.append("--compile-bytecode")

    def uv_install(*arguments, quiet=True):
        return subprocess.run(
            [*command, *arguments],
            capture_output=quiet,
            text=True,
            check=False,
        )

    requirements = root / ("requirements-dev.txt" if test else "requirements.txt")
    wanted = ["-r", str(requirements), *torch_pin(uv_install, root)]
    # Resolving first, quietly, finds most failures before any download.
    result = uv_install("--dry-run", *wanted)
    if result.returncode:
        raise SetupError(explain(result))
    say(f"installing {requirements.name}")
    if uv_install(*wanted, quiet=False).returncode:
        raise SetupError("installing failed, for the reason above")
    if test:
        install_extras(uv_install, root / "requirements-extra.txt", wanted)
    repair = subprocess.run([python, root / "tools" / "setup_torchaudio.py"])
    if repair.returncode:
        raise SetupError("torchaudio cannot be imported, for the reason above")


def install_extras(uv_install, requirements, installed):
    """Installs the optional packages one can have here; tests skip the others."""
    say(f"installing {requirements.name}")
    if uv_install("-r", str(requirements), *installed).returncode == 0:
        return
    for line in requirements.read_text().splitlines():
        package = line.partition("#")[0].strip()
        if package and uv_install(package, *installed).returncode:
            say(f"{package} cannot be installed here; the tests that need it skip")


@contextlib.contextmanager
def only_one(root):
    """Lets a second set-up of the same checkout wait for the first."""
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(folder)


def setup(root, test):
    """Brings ``root/.venv`` up to date with the requirement files."""
    venv = root / ".venv"
    wanted = wanted_state(root, test)
    state = read_state(venv)
    if is_complete(state, wanted):
        return
    check_platform(platform.system(), platform.machine())
    if state is None and venv.exists():
        raise SetupError(
            ".venv was not made by ./run: move it away, or use it directly "
            "(.venv/bin/python train.py ...)"
        )
    start = time.monotonic()
    same_python = bool(state) and state.get("python") == wanted["python"]
    if not (same_python and state.get("complete")):
        create(venv)
    write_state(venv, {})
    install(venv, root, test)
    write_state(venv, {**wanted, "complete": True})
    say(f"done in {time.monotonic() - start:.0f} s")


def main():
    """Sets up, and says in one line why not."""
    try:
        with only_one(ROOT):
            setup(ROOT, test="--test" in sys.argv[1:])
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; the next run starts it again")


if __name__ == "__main__":
    main()
