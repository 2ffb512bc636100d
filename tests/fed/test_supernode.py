"""A SuperNode that is refused when it joins asks again, and no other one does."""

import json
import subprocess
import sys

import httpx
import pytest
from flwr.supercore.error import ApiErrorCode

from fed import supernode
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

    def join(self):
        clock = {"sleep": self.sleep, "now": lambda: self.time}
        return supernode.persistent(self.activate, **clock)("client", "request")


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(supernode, "log", lambda level, line, *_: lines.append(line))
    return lines


def test_a_node_that_is_refused_twice_says_so_once_and_is_taken(told):
    server = SuperLink(REFUSED, REFUSED, "node 1")
    assert server.join() == "node 1"
    assert (server.asked, server.time) == (3, 1 + 2)
    assert len(told) == 1 and "the key is not admitted" in told[0]


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
