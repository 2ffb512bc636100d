"""Units, containers and a job: what they would run is what the programs understand.

None of them is executed here; the same commands are, in tests/fed/test_supernodes.py.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fed import node

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = [DEPLOY / name for name in ("certificates", "common.sh", "rehearse", "up")]
SCRIPTS += [DEPLOY / "slurm.sh", ROOT / "fed" / "loopback.sh"]


@pytest.fixture
def settings():
    lines = (DEPLOY / "deploy.env").read_text().splitlines()
    return dict(
        re.match("([A-Z_]+)=(.*)", n).groups() for n in lines if n[:1].isalpha()
    )


def understood(words):
    """Parse a node's command, as the node does; the experiment has to be here."""
    options = node.parse(words)
    terms = node.Terms(options.command, options.accept)
    assert [file.name for file in terms.files] == ["train.py", "fedenhance.yaml"]
    return options


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.fixture
def unit():
    def unit(name):
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str
        parser.read(DEPLOY / "systemd" / f"{name}.service")
        return parser

    return unit


def expanded(command, settings):
    """Split and fill in a command, as systemd does."""
    words = []
    for word in shlex.split(command):
        whole = re.fullmatch(r"\$([A-Z_]+)", word)
        filled = re.sub(r"\$\{([A-Z_]+)\}", lambda m: settings[m[1]], word)
        words += shlex.split(settings[whole[1]]) if whole else [filled]
    return words


def test_a_nodes_unit_runs_a_command_that_a_node_understands(
    unit, settings, monkeypatch
):
    monkeypatch.chdir(ROOT)
    words = expanded(unit("fed-node")["Service"]["ExecStart"], settings)
    assert words[:3] == [f"{settings['APP']}/.venv/bin/python", "-m", "fed.node"]
    options = understood(words[3:])
    assert (options.client, options.accept) == ("clinic-a", ["rounds"])


def test_the_servers_unit_gives_options_that_there_are(unit, settings):
    words = expanded(unit("fed-superlink")["Service"]["ExecStart"], settings)
    assert words[2:] == ["fed.superlink", "--home", "/srv/fed", "--nodes-port", "9092"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("name", ["fed-node", "fed-superlink"])
def test_systemd_accepts_the_units(name, tmp_path):
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    text = text.replace("/opt/fedenhance/.venv/bin/python", sys.executable)
    (tmp_path / f"{name}.service").write_text(text)
    words = ["systemd-analyze", "verify", tmp_path / f"{name}.service"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    told = [n for n in done.stderr.splitlines() if f"{name}.service" in n]
    assert (done.returncode, told) == (0, [])


def test_a_job_runs_a_command_that_a_node_understands(tmp_path, monkeypatch):
    (tmp_path / "app").mkdir()
    (tmp_path / "deploy").mkdir()
    text = (DEPLOY / "deploy.env").read_text()
    text = re.sub("(?m)^APP=.*", f"APP={tmp_path}/app", text)
    text = re.sub("(?m)^PATH=.*", f"PATH={tmp_path}:/usr/bin:/bin", text)
    (tmp_path / "deploy" / "deploy.env").write_text(text)
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    environment = {**os.environ, "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", DEPLOY / "slurm.sh"], env=environment, check=True, capture_output=True
    )
    words = json.loads(done.stdout)
    monkeypatch.chdir(ROOT)
    assert words[:2] == ["-m", "fed.node"]
    assert understood(words[2:]).port == 10007


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def script_of(service):
    """Return what the shell of a container gets to run."""
    shell, option, script = service["command"]
    assert (shell, option) == ("bash", "-ec")
    return script.replace("$$", "$")


def test_containers_run_shell(services):
    for name in ("keys", "run", "node0"):
        script = script_of(services[name])
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_containers_of_nodes_run_what_a_node_understands(services, monkeypatch):
    monkeypatch.chdir(ROOT)
    script = script_of(services["node0"]).replace("${NODE:-0}", "1")
    words = shlex.split(script.replace("\\\n", " "))
    assert words[:4] == ["exec", "python", "-m", "fed.node"]
    assert understood(words[4:]).partition_id == 1


def test_nodes_reach_the_port_for_nodes_alone(services):
    ports = [services[name].get("ports") for name in services]
    assert ports == [None] * len(services)  # nothing is open outside
    assert services["run"]["network_mode"] == "service:superlink"
    assert services["node0"]["networks"] == services["superlink"]["networks"]
    (port,) = re.findall(r"--nodes-port (\d+)", services["superlink"]["command"])
    assert f"superlink:{port}" in script_of(services["node0"])


def test_the_image_has_what_the_scripts_call():
    image = (DEPLOY / "Dockerfile").read_text()
    for package in ("openssh-client", "openssl", "procps"):  # ssh-keygen, pgrep
        assert package in image
