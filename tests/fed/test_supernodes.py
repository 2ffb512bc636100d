"""Nodes in processes of their own, behind TLS: what they train, and whom they obey."""

import csv
import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from math import ceil
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab

from fed import installed
from fedenhance.run_folder.states import load
from tests.fed.conftest import YAML
from tests.fed.deployed import ROOT, Deployed, free_ports
from tests.fed.forgeries import CLIENTS, FORGERIES, forged
from tests.fed.test_schema import HARMLESS

FILE = YAML.relative_to(ROOT).as_posix()
SMALL = {"n_clients": 4, "train_size": 16, "dropout": 0.5}
PLAIN = [word for key, value in SMALL.items() for word in (f"--{key}", str(value))]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Four nodes of a federation, one for each client."""
    running = Deployed(tmp_path_factory.mktemp("federation"))
    accepted = ("rounds", "secure", "compress", "forge", *SMALL)
    accepted = [word for key in accepted for word in ("--accept", key)]
    for place, port in enumerate(free_ports(4)):
        own = ["--partition-id", str(place), *accepted, FILE, "--output_folder"]
        running.start_node(f"node{place}", port, *own, running.home / f"out{place}")
    yield running
    running.stop()


@pytest.fixture
def deploy(federation, tmp_path):
    """Train by the operator's command; return what was said."""

    def deploy(*words, server=""):
        options = ["--nodes", "4", "--patience", "300", "--server", server]
        out = ["--output_folder", tmp_path / "deployed"]
        beside = Path(sys.executable).parent
        done = subprocess.run(
            [sys.executable, "-m", "fed.deployment", *options, FILE]
            + [*PLAIN, *words, *out],
            env={
                **os.environ,
                "FLWR_HOME": str(federation.home),
                "PATH": f"{beside}:{os.environ['PATH']}",
            },
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
        )
        assert done.returncode == 0, done.stdout + federation.said()
        return done.stdout

    return deploy


@pytest.mark.parametrize("options", [{}, {"compress": "int8"}, {"secure": True}])
def test_nodes_give_the_weights_of_one_process(train, deploy, tmp_path, options):
    options = {"rounds": 2, **options}
    train(folder="process", **SMALL, **options)
    words = (word for k, v in options.items() for word in (f"--{k}", str(v)))
    said = deploy(*words)
    ours, theirs = (
        load(tmp_path / folder / "save" / "federation.pt")["arrays"]
        for folder in ("process", "deployed")
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    log = (tmp_path / "deployed" / "log.txt").read_text()
    assert "HTTP Request" not in said + log


def test_a_run_outlives_all_forgeries_of_nodes(deploy, tmp_path):
    rounds = ceil(len(FORGERIES) / len(CLIENTS))
    deploy("--forge", "True", "--rounds", str(rounds), server="{forge: False}")
    with open(tmp_path / "deployed" / "clients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    status = {name: [] for name in FORGERIES}
    for row in rows:
        if row["client"] in CLIENTS:
            name = forged(row["round"], row["client"], CLIENTS)
            status[name].append(row["status"])
    assert all(row["status"] == "ok" for row in rows if row["client"] == "client00")
    assert all(status.values())  # each has been tried
    passed = {name for name, said in status.items() if "ok" in said}
    assert passed <= HARMLESS
    told = [name for name, said in status.items() if FORGERIES[name][1] in said[0]]
    assert len(told) >= 60, {n: s for n, s in status.items() if n not in told}


HOSTILE = """
import pathlib
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

HERE = pathlib.Path({home!r})
(HERE / "pwned").touch()  # wherever it is imported
app, server = ClientApp(), ServerApp()

@server.main()
def main(grid, context):
    (HERE / "pwned").unlink()  # on its own server it runs
    while not (nodes := list(grid.get_node_ids())):
        pass
    kinds = ("query", "train", "evaluate", "query.keys")
    asked = [Message(RecordDict(), nodes[0], kind) for kind in kinds]
    said = [r.error.reason for r in grid.send_and_receive(asked, timeout=120)]
    (HERE / "partial").write_text(repr(said))
    (HERE / "partial").rename(HERE / "said")
"""


def hostile(home, code=None):
    """Pack an app that runs where it is imported, and may claim to be other code."""
    folder = home / "hostile"
    folder.mkdir(exist_ok=True)
    (folder / "hostile.py").write_text(HOSTILE.format(home=str(home)))
    project = (ROOT / "pyproject.toml").read_text()
    project = project.replace("fed.serverapp:server", "hostile:server")
    project = project.replace("fed.client:app", "hostile:app")
    project = project.replace('script = "train.py"', 'script = ""')
    project = project.replace("fedenhance/hparams/fedenhance.yaml", FILE)
    (folder / "pyproject.toml").write_text(project)
    if code:
        (folder / installed.NAME).write_text(json.dumps(code))
    fab = build_fab_from_disk(folder)
    return StartRunRequest(fab=Fab(hash_str=sha256(fab).hexdigest(), content=fab))


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.parametrize("claimed", [False, True])
def test_the_server_runs_no_code_that_is_submitted(federation, claimed):
    """Even by who reaches control, and whatever the code says that it is."""
    code = installed.digests([YAML]) if claimed else None
    request = hostile(federation.home, code)
    with federation.operator() as operator:
        number = operator.StartRun(request).run_id

        def ended():
            run = operator.ListRuns(ListRunsRequest(run_id=number)).run_dict[number]
            return run.status.status == "finished" and run.status

        assert wait_for(ended).sub_status == "failed"
    assert not (federation.home / "pwned").exists()
    assert claimed or "start it with python -m fed.deployment" in federation.said()


class OpenSuperLink(Deployed):
    """Flower's own, whose operator sends nodes what he likes."""

    ready = "FastAPI lifespan: startup"

    def command(self):
        self.nodes = self.control  # one port for all
        tls = {
            "ca-certfile": "ca.crt",
            "certfile": "server.crt",
            "keyfile": "server.key",
        }
        words = [w for k, v in tls.items() for w in (f"--ssl-{k}", str(self.home / v))]
        program = "import sys; from flwr.superlink.cli.flower_superlink import *; "
        program += "sys.argv[0] = 'flower-superlink'; flower_superlink()"
        words += ["--enable-supernode-auth", "--port", str(self.control)]
        return ["-c", program, *words, "--disable-runtime-dependency-installation"]


def test_a_registered_node_refuses_a_hostile_app(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", beside)
    server = OpenSuperLink(tmp_path)
    try:
        wait_for(lambda: "running on https" in server.said())
        (port,) = free_ports(1)
        words = ["--client", "a", FILE, "--output_folder", tmp_path / "out"]
        server.start_node("node", port, *words)
        with server.operator() as operator:
            operator.StartRun(hostile(tmp_path))
        wait_for((tmp_path / "said").exists)
    finally:
        server.stop()
    said = (tmp_path / "said").read_text()
    assert said.count("the run does not say what code it is of") == 4, said
    assert not (tmp_path / "pwned").exists()
