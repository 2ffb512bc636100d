"""What a node agrees to run, and what it refuses."""

import json
import zipfile
from io import BytesIO
from types import SimpleNamespace

import httpx
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.run import RunNotRunningException

from fed import installed, node
from fed.runtime import ProcessGrid
from tests.fed.conftest import YAML

FILE = YAML.relative_to(installed.ROOT).as_posix()
BOMB = "&a [1, 1]" + "".join(
    f", &{chr(b)} [{', '.join(9 * [f'*{chr(b - 1)}'])}]" for b in range(98, 112)
)
"""YAML of a line, and of 9^14 values."""
RUN = {"script": "", "hparams": FILE, "overrides": "", "device": ""}


def app_of(code):
    """Pack an app that says what code a run is of."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(installed.NAME, json.dumps(code))
    return packed.getvalue()


@pytest.fixture(scope="module")
def fab():
    return app_of(installed.digests([YAML]))


@pytest.fixture
def terms():
    return node.Terms([str(YAML), "--output_folder", "here"], accepted=["lr", "rounds"])


def test_a_run_of_the_installed_code_is_the_nodes_own_command(terms, fab):
    words = json.loads(terms.command(fab, RUN))
    assert words == [str(YAML), "--output_folder", "here"]


@pytest.mark.parametrize(
    "name", ["fed/client.py", "fedenhance/hparams/new.yaml", "tests/fed/recipe.py"]
)
def test_other_code_is_refused_by_the_names_of_its_files(terms, name):
    theirs = app_of(installed.digests([YAML]) | {name: "0"})
    with pytest.raises(ValueError, match=f"not what is installed here: {name}"):
        terms.command(theirs, RUN)


def test_an_app_that_grows_when_it_is_unpacked_is_not(terms):
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(installed.NAME, bytes(installed.LARGEST + 1))
    assert len(packed.getvalue()) < 2**15
    with pytest.raises(ValueError, match="what code it is of") as caught:
        terms.command(packed.getvalue(), RUN)
    assert "larger than" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "app", [b"", b"PK\5\6" + 18 * b"\0", app_of([1]), app_of(3), app_of({"a": {}})]
)
def test_an_app_that_does_not_say_its_code_is_refused(terms, app):
    with pytest.raises(ValueError, match="what code it is of|not what is installed"):
        terms.command(app, RUN)


@pytest.mark.parametrize(
    "asked",
    [
        {"hparams": "hparams/fedenhance.yaml"},
        {"script": "train.py"},
        {"script": "/tmp/train.py"},
        {"script": "../train.py"},
    ],
)
def test_another_experiment_is_refused(terms, fab, asked):
    with pytest.raises(ValueError, match="this node takes part in .*regression.yaml"):
        terms.command(fab, RUN | asked)


def test_settings_that_were_agreed_to_are_taken(terms, fab):
    run = RUN | {"overrides": "{lr: 0.1, rounds: 3}"}
    words = json.loads(terms.command(fab, run))
    assert words == [str(YAML), "--lr=0.1", "--rounds=3", "--output_folder", "here"]


def test_the_nodes_own_settings_come_first(terms, fab):
    run = RUN | {"overrides": "output_folder: /home/them", "device": "cuda:7"}
    words = json.loads(terms.command(fab, run))
    assert words == [str(YAML), "--output_folder", "here"]


@pytest.mark.parametrize(
    "overrides, reason",
    [
        ("seed: 1", "the run sets seed; .* --accept"),
        ("lr: !apply:os.system [touch pwned]", "not plain YAML"),
        ("lr: !include:/etc/passwd", "not plain YAML"),
        ("lr: '!apply:os.system [touch pwned]'", "no number or plain word"),
        ("lr: {a: 1}", "no number or plain word"),
        ("lr: [1, [2]]", "no number or plain word"),
        ('lr: "1\\nmodel: 2"', "no number or plain word"),
        ("rounds: /etc/passwd", "no number or plain word"),
        ("rounds: 'http://pwned'", "no number or plain word"),
        ("[lr]", "not keys and values"),
        (f"[{BOMB}]", "not keys and values"),
        (f"lr: [{BOMB}]", "no number or plain word"),
        ("{", "not plain YAML"),
        ("1: 2", "the run sets 1"),
    ],
)
def test_other_settings_are_refused(terms, fab, overrides, reason):
    with pytest.raises(ValueError, match=reason):
        terms.command(fab, RUN | {"overrides": overrides})


def test_a_command_names_files_that_are_there():
    with pytest.raises(FileNotFoundError, match="no.yaml"):
        node.Terms(["no.yaml"])


@pytest.fixture
def answer(terms, fab):
    """Let a node answer a message of a type."""

    def answer(run_config, kind="query", app=fab, **config):
        ProcessGrid(1)
        content = RecordDict({"config": ConfigRecord(config)})
        message = Message(content, 1, kind)
        message.metadata.__dict__["_message_id"] = "1"
        context = Context(1, 1, {}, RecordDict(), run_config)
        return node.Node(terms, {"client": "a"}, "", b"").reply(message, context, app)

    return answer


def test_a_refusal_is_an_answer(answer):
    reply = answer(RUN, app=app_of({"fed/client.py": "0"}))
    assert "not what is installed here" in reply.error.reason


def test_a_node_says_who_it_is(answer):
    assert answer(RUN).content["config"]["client"] == "a"


def test_an_app_that_exits_is_a_failed_client(answer, monkeypatch):
    monkeypatch.setattr(node, "app", lambda message, context: exit(3))
    assert answer(RUN).error.reason == "SystemExit: 3"


def test_whatever_a_message_says_the_nodes_own_command_is_run(answer, monkeypatch):
    loaded = []
    monkeypatch.setattr("fed.command.load", loaded.append)
    theirs = json.dumps(["/tmp/theirs.py"])
    answer(RUN, kind="train", command=theirs, client="a")
    assert [json.loads(c)[0] for c in loaded] == [str(YAML)]


def test_a_message_that_is_gone_does_not_end_the_node(monkeypatch, caplog, terms):
    faults = [RuntimeError("no message"), RunNotRunningException(), None]
    served = []

    def answer(self, token):
        served.append(token)
        if fault := faults.pop(0):
            raise fault

    monkeypatch.setattr(node.Node, "answer", answer)
    monkeypatch.setattr(node, "tasks", lambda *place: ["a", None, "b", "c"])
    node.Node(terms, {}, "", b"").serve(lambda: True)
    assert served == ["a", "b", "c"]
    assert "A message gets no reply: RuntimeError: no message" in caplog.text


@pytest.mark.parametrize(
    "status, heard", [(200, True), (401, True), (503, False), (None, False)]
)
def test_a_heart_goes_on_where_the_task_is_no_more(status, heard):
    """Flower's would interrupt the node where the task has failed."""

    def send(request):
        told = httpx.Request("POST", "http://127.0.0.1")
        if status is None:
            raise httpx.ConnectError("gone", request=told)
        httpx.Response(status, request=told).raise_for_status()
        return SimpleNamespace(success=False)

    assert node.beat(SimpleNamespace(SendTaskHeartbeat=send)) is heard
