"""Strangers at the nodes' door of a SuperLink: nothing runs, nothing is seen."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from queue import Queue

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
)
from flwr.proto.fab_pb2 import Fab, GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
)
from flwr.superlink.main import create_app

from fed import superlink
from tests.fed.deployed import ROOT, Deployed, free_ports


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A SuperLink that nobody was admitted to."""
    running = Deployed(tmp_path_factory.mktemp("superlink"))
    yield running
    running.stop()


def refused(call, request, status):
    with pytest.raises(httpx.HTTPStatusError) as caught:
        call(request)
    assert caught.value.response.status_code in status, caught.value.response.text


def test_nobody_submits_code_or_registers_keys_at_the_nodes_door(deployed):
    _, public = generate_key_pairs()
    with deployed.operator(deployed.nodes) as stranger:
        fab = Fab(hash_str="0", content=b"code")
        refused(stranger.StartRun, StartRunRequest(fab=fab), {404})
        key = public_key_to_bytes(public)
        refused(stranger.RegisterNode, RegisterNodeRequest(public_key=key), {404})
        refused(stranger.ListRuns, ListRunsRequest(), {404})
    with deployed.operator() as operator:
        assert not operator.ListRuns(ListRunsRequest()).run_dict
        assert not operator.ListNodes(ListNodesRequest()).nodes_info


def test_every_route_but_those_of_the_fleet_is_closed(deployed):
    paths = create_app().openapi()["paths"]
    routes = {(method, path) for path in paths for method in paths[path]}
    closed = {r for r in routes if not r[1].startswith("/v1/fleet/")}
    assert len(closed) > 50
    assert {path for _, path in routes - closed} == superlink.FleetAlone(None).paths
    with httpx.Client(verify=ssl.create_default_context(cafile=deployed.ca)) as client:
        for method, path in closed:
            url = f"https://127.0.0.1:{deployed.nodes}{path}"
            assert client.request(method, url).status_code == 404, path


@pytest.mark.parametrize(
    "target",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet%2f..%2fcontrol/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/v1/fleet/get-fab/",
        "//v1/control/list-runs",
        "/v1/fleet/get-run;/v1/control/list-runs",
        "https://127.0.0.1/v1/control/list-runs",
        "*",
    ],
)
def test_no_spelling_of_a_path_opens_another_one(deployed, target):
    context = ssl.create_default_context(cafile=deployed.ca)
    request = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        "Content-Type: application/protobuf\r\nConnection: close\r\n\r\n"
    )
    address = ("127.0.0.1", deployed.nodes)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(request.encode())
        answer = secure.recv(4096).decode()
    assert re.match(r"HTTP/1.1 4\d\d", answer), answer


def test_keys_that_were_not_registered_see_nothing(deployed):
    keys = generate_key_pairs()
    key = public_key_to_bytes(keys[1])
    with deployed.node(keys) as stranger:
        refused(
            stranger.RegisterNode,
            RegisterNodeFleetRequest(public_key=key),
            range(400, 500),
        )
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
        refused(stranger.ActivateNode, request, range(400, 500))
        for call, request in (
            (stranger.PullMessages, PullMessagesRequest(node=Node(node_id=1))),
            (stranger.GetFab, GetFabRequest(node=Node(node_id=1), hash_str="0")),
            (stranger.PullObject, PullObjectRequest(node=Node(node_id=1))),
        ):
            refused(call, request, {401})


def test_a_node_cannot_speak_for_another(deployed):
    ours, theirs = generate_key_pairs(), generate_key_pairs()
    ids = []
    with deployed.operator() as operator:
        for _, public in (ours, theirs):
            request = RegisterNodeRequest(public_key=public_key_to_bytes(public))
            ids.append(operator.RegisterNode(request).node_id)
    with deployed.node(ours) as node:
        key = public_key_to_bytes(ours[1])
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
        assert node.ActivateNode(request).node_id == ids[0]
        node.PullMessages(PullMessagesRequest(node=Node(node_id=ids[0])))
        other = PullMessagesRequest(node=Node(node_id=ids[1]))
        refused(node.PullMessages, other, {401})


@pytest.mark.parametrize(
    "sender, answers, status",
    [
        ("ours", "1", {404, 412, 500}),  # of a run that there is not
        ("theirs", "1", {403}),
        ("superlink", "", {403}),
        ("ours", "", {403}),
    ],
)
def test_a_node_sends_nothing_but_answers_of_its_own(deployed, sender, answers, status):
    """Flower would take a message to another node, as if it were the server's."""
    ours, theirs = generate_key_pairs(), generate_key_pairs()
    ids = {"superlink": SUPERLINK_NODE_ID}
    with deployed.operator() as operator:
        for name, (_, public) in (("ours", ours), ("theirs", theirs)):
            request = RegisterNodeRequest(public_key=public_key_to_bytes(public))
            ids[name] = operator.RegisterNode(request).node_id
    metadata = Metadata(
        run_id=1,
        message_id="0",
        src_node_id=ids[sender],
        dst_node_id=ids["theirs"] if not answers else SUPERLINK_NODE_ID,
        reply_to_message_id=answers,
        message_type="train",
        ttl=60,
    )
    request = PushMessagesRequest(
        node=Node(node_id=ids["ours"]),
        messages_list=[ProtoMessage(metadata=metadata)],
        message_object_trees=[ObjectTree(object_id="0")],
    )
    with deployed.node(ours) as node:
        refused(node.PushMessages, request, status)


def test_control_listens_on_this_machine_alone(deployed):
    """All of 127.0.0.0/8 is this machine; control is on one address of it."""
    for host, port, open_there in (
        ("127.0.0.1", deployed.control, True),
        ("127.0.0.2", deployed.control, False),
        ("127.0.0.2", deployed.nodes, True),
    ):
        with socket.socket() as probe:
            assert (probe.connect_ex((host, port)) == 0) is open_there, (host, port)


def test_without_tls_nobody_is_spoken_to(deployed):
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://127.0.0.1:{deployed.nodes}/v1/fleet/get-run")


@pytest.mark.parametrize(
    "words", [["--host", "0.0.0.0"], ["--host=::"], ["--insecure"]]
)
def test_what_would_open_it_is_refused(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        superlink.main(["--home", str(tmp_path), *words])
    assert "control stays on 127.0.0.1, and TLS on" in capsys.readouterr().err


def test_a_superlink_of_which_a_part_ends_does_not_go_on(monkeypatch):
    killed = Queue()
    monkeypatch.setattr("os.kill", lambda *signal: killed.put(signal))
    superlink.background(int, 1)  # which returns
    assert killed.get(timeout=10) == (os.getpid(), signal.SIGTERM)


def test_a_superlink_and_what_the_layer_is_named_by_need_no_pytorch():
    code = "import sys, fed, fed.superlink; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_layer_has_what_yaml_names():
    import fed

    assert all(getattr(fed, name) for name in fed.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Federations'"):
        fed.Federations  # noqa: B018


def test_a_node_that_is_back_before_it_was_missed_waits_and_is_taken(
    deployed, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    file, said = deployed.admit("back"), tmp_path / "log"
    private = load_ssh_private_key(file.read_bytes(), None)
    key = public_key_to_bytes(private.public_key())
    words = ["--superlink", f"127.0.0.1:{deployed.nodes}", "--isolation", "process"]
    words += ["--root-certificates", deployed.ca, "--auth-supernode-private-key", file]
    words += ["--port", str(free_ports(1)[0])]

    def wait_for(told):
        deadline = time.monotonic() + 60
        while told not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)

    @contextmanager
    def returned():
        with open(said, "w") as log:
            command = [sys.executable, "-m", "fed.supernode", *map(str, words)]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for("still counts on one with this key")
            yield process
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0

    with deployed.node((private, private.public_key())) as dead:
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
        node_id = dead.ActivateNode(request).node_id
        with returned():
            pass  # a signal ends its waiting
        assert "SuperNode ID" not in said.read_text()
        with returned():
            dead.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
            wait_for(f"SuperNode ID: {node_id}")
