"""The command that starts a run on real machines; ``docs/real-machines.md`` says how.

python -m fed.deployment --nodes 4 train.py hparams/fedenhance.yaml --rounds 20
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import speechbrain as sb

from fed.installed import NAME, ROOT, digests

logger = logging.getLogger(__name__)


def in_app(file):
    """Name a file as it is called on all machines, which may have no links.

    Example
    -------
    >>> in_app("train.py")
    'train.py'
    """
    here = [p for p in (Path(file), ROOT / file) if p.exists()]
    if not here or not here[0].resolve().is_relative_to(ROOT):
        sys.exit(f"fed.deployment: {file} is not in {ROOT}, as on the other machines.")
    return here[0].resolve().relative_to(ROOT).as_posix()


def submit(config, superlink):
    """Submit a run, whose app has no code, and follow its log; give Flower's status.

    Arguments
    ---------
    config : dict
        Of the run.
    superlink : str
        Its name in Flower's config.toml.
    """
    files = (ROOT / config[key] for key in ("script", "hparams") if config[key])
    with tempfile.TemporaryDirectory() as folder:
        app, settings = Path(folder, "app"), Path(folder, "settings.toml")
        app.mkdir()
        shutil.copy(ROOT / "pyproject.toml", app)
        (app / NAME).write_text(json.dumps(digests(files)))
        # Strings and numbers are written alike in TOML and JSON.
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in config.items())
        settings.write_text("".join(lines), encoding="utf-8")
        words = ["flwr", "run", app, superlink, "--stream", "--run-config", settings]
        # Flower looks whether the app's modules are to be found.
        path = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(words, env=environment, check=False).returncode


def start(argv):
    """Submit a run to a SuperLink, follow its log, and say how it ended.

    Arguments
    ---------
    argv : list of str
        ``--nodes``, ``--server``, ``--superlink``, and the command to federate.

    Returns
    -------
    int
        0 if the run was completed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fed.deployment",
        usage="%(prog)s [options] [train.py] train.yaml [--key value ...]",
        description="Trains on SuperNodes. Keys and values hold on the server and must "
        "be agreed to on each node; files are relative to the repository.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nodes", type=int, default=2, help="to wait for, before each round")
    add("--patience", type=int, default=3600, help="seconds to wait for them")
    add("--server", default="", metavar="YAML", help="keys for the server alone")
    add("--superlink", default="federation", help="its name in Flower's config.toml")
    add("command", nargs=argparse.REMAINDER, help="what to federate")
    options = parser.parse_args(argv)
    words = options.command
    if not words:
        parser.error("which script and YAML file?")
    script = in_app(words.pop(0)) if words[0].endswith(".py") else ""
    config = {"script": script, "hparams": in_app(words[0]), "nodes": options.nodes}
    config["patience"] = options.patience
    _, run_options, overrides = sb.parse_arguments(words)
    config |= {"server": options.server, "overrides": overrides}
    config |= {"device": run_options.get("device") or ""}
    if status := submit(config, options.superlink):
        return status  # Flower has said why
    listed = subprocess.run(
        ["flwr", "ls", options.superlink, "--format", "json"],
        check=True,
        stdout=subprocess.PIPE,
    )
    status = json.loads(listed.stdout)["runs"][0]["status"]
    logger.info("The run is %s.", status)
    return 0 if status == "finished:completed" else 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(start(sys.argv[1:]))
