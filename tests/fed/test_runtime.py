"""One ClientApp, three ways to run it."""

import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

import fed
from fed import serverapp
from fed.command import Process
from fed.runtime import ProcessGrid
from fedenhance.run_folder.states import load
from tests.fed.conftest import YAML
from tests.fed.nodes import Nodes

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"n_clients": 2, "rounds": 2, "dropout": 0.5}


def final(folder):
    return load(folder / "save" / "federation.pt")["arrays"]


def assert_equal(a, b):
    a, b = final(a), final(b)
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name] == b[name]).all(), name


def test_messages_can_be_made_in_process():
    # The private class of Flower that ProcessGrid sets is still there.
    ProcessGrid(1)
    Message(RecordDict(), message_type="train", dst_node_id=1)


def test_replies_are_made_one_by_one():
    grid = ProcessGrid(2)
    messages = [
        Message(RecordDict(), message_type="query", dst_node_id=node)
        for node in grid.get_node_ids()
    ]
    replies = grid.send_and_receive(messages)
    first = next(replies)
    assert first.metadata.src_node_id == 1
    assert first.has_error()  # it is nobody: no client or partition-id
    assert "partition-id" in first.error.reason


def test_unknown_runtime_is_refused():
    with pytest.raises(ValueError, match="process"):
        fed.Federation(datasets=None, runtime="cloud")


def test_deployment_is_started_by_flower(train):
    with pytest.raises(ValueError, match="python -m fed.deployment"):
        train(runtime="deployment")


OPTIONS = [{}, {"compress": "int8"}, {"secure": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_clients_elsewhere_get_bytes_and_give_the_same_weights(
    train, tmp_path, options
):
    """The quick form of Ray: nothing but bytes is shared with whoever trains."""

    def runtime(serve, num_sampled):
        serve(Nodes({}, *[{}] * num_sampled))

    train(folder="process", **SMALL, **options)
    own = {"runtime": runtime, **options}
    train(folder="elsewhere", federation=own, **SMALL, **options)
    assert_equal(tmp_path / "process", tmp_path / "elsewhere")


def test_nodes_of_a_run_configuration_give_the_same_weights(
    train, tmp_path, monkeypatch
):
    """The quick form of SuperNodes: the ServerApp, the ClientApp and their configs."""
    monkeypatch.setattr(Process, "stops_at_fit", False)
    train(folder="process", **SMALL)
    settings = {**SMALL, "output_folder": str(tmp_path / "deployed")}
    run_config = {
        "hparams": str(YAML.relative_to(ROOT)),
        "script": "",
        "overrides": "\n".join(f"{key}: {value}" for key, value in settings.items()),
        "nodes": 2,
    }
    grid = Nodes(run_config, {"partition-id": 0}, {"partition-id": 1})
    serverapp.main(grid, Context(1, 0, {}, RecordDict(), run_config))
    assert_equal(tmp_path / "process", tmp_path / "deployed")


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_ray_gives_the_same_weights(train, tmp_path, monkeypatch, options):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 starves beside other tests
    train(folder="process", **SMALL, **options)
    runtime = partial(fed.runtime.ray, num_cpus=1, log_to_driver=False)
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = {"runtime": runtime, **options}
    train(folder="ray", federation=own, **SMALL, **options)
    assert_equal(tmp_path / "process", tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_supernodes_give_the_same_weights(train, tmp_path):
    small = {**SMALL, "rounds": 1}  # each message to a SuperNode is a new process
    train(folder="process", **small)
    overrides = {**small, "output_folder": tmp_path / "deployed"}
    lines = r"\n".join(f"{key}: {value}" for key, value in overrides.items())
    yaml = str(YAML.relative_to(ROOT))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [ROOT / "fed" / "loopback.sh", yaml, "2", lines],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "LOGS": str(tmp_path / "logs"),
            "TIMEOUT": "500",
            "SCRIPT": "",
        },
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal(tmp_path / "process", tmp_path / "deployed")
