"""A SuperNode that is refused when it joins asks again, and no other one does."""

import json
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.supercore.constant import TaskType
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.nodestate import NodeStateFactory

from fed import supernode
from fed.runtime import ProcessGrid
from tests.fed.deployed import ROOT


def error(status, code):
    """Make an error as Flower's client raises it."""
    request = httpx.Request("POST", "https://server.example.org")
    text = json.dumps({"code": int(code), "detail": "no"})
    response = httpx.Response(status, text=text, request=request)
    return httpx.HTTPStatusError("no", request=request, response=response)


REFUSED = error(412, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)


class SuperLink:
    """Gives one answer after the other, the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.asked, self.time = list(answers), 0, 0.0

    def activate(self, client, request):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds):
        self.time += seconds

    def DeactivateNode(self, request):
        self.left.append((request.node_id, self.time))

    def join(self):
        clock, self.left = {"sleep": self.sleep, "now": lambda: self.time}, []
        return supernode.persistent(self.activate, **clock)(self, "request")


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(supernode, "log", lambda level, line, *_: lines.append(line))
    return lines


def test_a_node_that_is_refused_twice_says_so_once_and_is_taken(told):
    node = ActivateNodeResponse(node_id=1)
    server = SuperLink(REFUSED, REFUSED, node)
    assert server.join() is node
    # It leaves once more, so that the server does not wait for the one that died.
    assert server.left == [(1, 1 + 2)]
    assert (server.asked, server.time) == (4, 1 + 2 + supernode.ABSENCE)
    assert len(told) == 1 and "the key is not admitted" in told[0]


def test_a_node_that_is_taken_at_once_stays(told):
    server = SuperLink(ActivateNodeResponse(node_id=1))
    assert server.join().node_id == 1
    assert (server.asked, server.left, told) == (1, [], [])


def test_it_asks_for_three_minutes_each_ten_seconds_at_most(told):
    server = SuperLink(REFUSED)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        server.join()
    assert caught.value is REFUSED
    assert server.asked == 21  # after 0, 1, 3, 7, 15, 25, ..., 175 s
    assert len(told) == 1


@pytest.mark.parametrize(
    "fault",
    [
        error(401, ApiErrorCode.RUNTIME_AUTHENTICATION_FAILED),
        error(412, ApiErrorCode.FLEET_NODE_DEACTIVATION_FAILED),
        httpx.ConnectError("no certificate of this authority"),
    ],
)
def test_other_errors_are_raised_at_once(told, fault):
    server = SuperLink(fault)
    with pytest.raises(type(fault)):
        server.join()
    assert (server.asked, told) == (1, [])


def test_it_has_no_pytorch_in_its_memory():
    code = "import sys, fed.supernode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("drops", [True, False])
def test_a_message_whose_run_ends_meanwhile_is_forgotten(monkeypatch, drops):
    loop = import_module("flwr.supernode.start_client_internal")
    if drops:  # without, Flower leaves it
        monkeypatch.setattr(loop, "pull_objects", supernode.dropping(loop.pull_objects))
    monkeypatch.setattr(loop, "get_fused_config_from_fab", lambda fab, run: {})
    ProcessGrid(1)
    message = Message(RecordDict({"config": ConfigRecord({"a": 1})}), 1, "train")
    message.metadata.__dict__ |= {"_message_id": message.object_id, "_run_id": 7}
    store = ObjectStoreFactory()
    state = NodeStateFactory(objectstore_factory=store).state()
    state.set_node_id(1)

    def ended(run_id, object_id):
        raise RunNotRunningException

    loop._pull_and_store_message(
        state=state,
        object_store=store.store(),
        node_config={},
        receive=lambda: (message, get_object_tree(message)),
        get_run=lambda run_id: SimpleNamespace(
            run_id=7, fab_hash="", series_id=1, primary_task_type=TaskType.CLIENT_APP
        ),
        get_fab=lambda fab_hash, run_id: Fab("", b"", {}),
        pull_object=ended,
        confirm_message_received=None,
        trusted_entities=None,
    )
    assert len(state.get_messages_legacy()) == (0 if drops else 1)
    assert [task.status.status for task in state.get_tasks()] == [
        "finished" if drops else "pending"
    ]
