"""The roster of a deployed federation, and the command that starts a run."""

import json
import logging
import re
import tomllib
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fed import deployment, serverapp
from fed.runtime import ProcessGrid


class Nodes:
    """A grid of nodes that answer, refuse or take their time.

    Attributes
    ----------
    answers : dict
        Node -> name of its client, an Error, or None for no answer yet.
    """

    def __init__(self, **answers):
        ProcessGrid(0)  # messages know their sender
        self.answers = {int(node[1:]): answer for node, answer in answers.items()}
        self.sent, self.pending = [], {}

    def get_node_ids(self):
        return list(self.answers)

    def push_messages(self, messages):
        for message in messages:
            number = str(len(self.sent))
            message.metadata.__dict__["_message_id"] = number
            self.sent.append(message.metadata.dst_node_id)
            self.pending[number] = message
        return list(self.pending)[len(self.pending) - len(messages) :]

    def pull_messages(self, numbers):
        replies = []
        for number in numbers:
            asked = self.pending[number]
            answer = self.answers.get(asked.metadata.dst_node_id)
            if isinstance(answer, str):
                config = ConfigRecord({"client": answer})
                replies.append(Message(RecordDict({"config": config}), reply_to=asked))
            elif answer is not None:
                replies.append(Message(answer, reply_to=asked))
        return replies


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_clients_are_listed_by_name():
    grid = Nodes(n1="b", n2="a")
    assert serverapp.Roster(grid, 2)() == [("a", 2), ("b", 1)]


def test_known_nodes_are_asked_once_and_those_that_left_are_forgotten():
    grid = Nodes(n1="a", n2="b")
    roster = serverapp.Roster(grid, 1)
    roster()
    del grid.answers[2]
    assert roster() == [("a", 1)]
    assert grid.sent == [1, 2]


def test_a_round_does_not_wait_for_a_node_that_is_slow_to_join():
    grid = Nodes(n1="a", n2=None)
    roster = serverapp.Roster(grid, 1)
    assert roster() == [("a", 1)]
    grid.answers[2] = "b"
    assert roster() == [("a", 1), ("b", 2)]
    assert grid.sent == [1, 2]


def test_a_refusal_is_told_once_and_asked_about_again(caplog, monkeypatch):
    grid = Nodes(n1="a", n2=Error(1, "other code"))
    roster, clock = serverapp.Roster(grid, 1), [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert roster() == [("a", 1)]
        clock[0] += 2 * serverapp.AGAIN
        roster()
    assert [r.message for r in caplog.records] == ["SuperNode 2: other code"]
    assert grid.sent == [1, 2, 2]
    grid.answers[2] = "b"
    clock[0] += 2 * serverapp.AGAIN
    assert roster() == [("a", 1), ("b", 2)]


def test_nobody_takes_the_place_of_a_client_that_is_there(caplog, monkeypatch):
    grid = Nodes(n1="a", n2=None)
    roster, clock = serverapp.Roster(grid, 1), [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    roster()
    grid.answers[2] = "a"
    assert roster() == [("a", 1)]
    assert "SuperNode 2: says that it is a, as 1 did first" in caplog.text
    del grid.answers[1]  # a new machine of the same client
    clock[0] += 2 * serverapp.AGAIN
    assert roster() == [("a", 2)]


def test_waiting_for_nodes_ends_with_a_line_that_names_them(caplog, monkeypatch):
    grid = Nodes(n1="clinic-a", n2=None, n3=Error(1, "other code"))
    roster, clock = serverapp.Roster(grid, 3, patience=90), [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda s: clock.append(clock.pop() + 30 * s))
    waited = r"1 of 3 SuperNodes are there \(clinic-a\); 2 does not say yet who it is; "
    waited += "3 refuses: other code"
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError) as caught:
        roster()
    assert re.match(f"After 90 s: {waited}. Start those", str(caught.value))
    told = [r.message for r in caplog.records if r.levelname == "INFO"]
    assert len(told) == 1 and re.fullmatch(waited, told[0])


@pytest.fixture
def flower(monkeypatch):
    """Stand for Flower's command line; keep the run configurations it was given."""
    given = []

    def run(words, **options):
        if words[1] == "run":
            given.append(tomllib.loads(Path(words[-1]).read_text()))
        status = '{"runs": [{"status": "finished:completed"}]}'
        return type("Done", (), {"stdout": status, "returncode": 0})

    monkeypatch.setattr(deployment.subprocess, "run", run)
    return given


def test_a_command_becomes_the_configuration_of_a_run(flower):
    words = ["--nodes", "4", "--server", "valid_csv: a b.csv"]
    words += [
        "train.py",
        "hparams/fedenhance.yaml",
        "--lr",
        "0.1",
        '--text="é\\"]',
        "--device",
        "cpu",
    ]
    assert deployment.start(words) == 0
    (config,) = flower
    assert config["nodes"] == 4
    assert config["script"] == "train.py"
    assert config["hparams"] == "fedenhance/hparams/fedenhance.yaml"  # no link
    assert config["server"] == "valid_csv: a b.csv"
    assert config["device"] == "cpu"
    assert config["overrides"].splitlines()[0] == "lr: 0.1"


def test_a_yaml_file_alone_is_a_command_as_well(flower):
    deployment.start(["tests/fed/regression.yaml"])
    assert flower[0]["script"] == ""
    assert flower[0]["hparams"] == "tests/fed/regression.yaml"


def test_a_file_that_does_not_go_to_the_nodes_is_refused(flower, tmp_path):
    (tmp_path / "a.yaml").touch()
    for file in (str(tmp_path / "a.yaml"), "no.yaml"):
        with pytest.raises(SystemExit, match=f"{file} is not in"):
            deployment.start([file])


def test_the_configuration_has_the_keys_that_flower_lets_a_run_set(flower):
    deployment.start(["tests/fed/regression.yaml"])
    project = tomllib.loads((deployment.ROOT / "pyproject.toml").read_text())
    assert flower[0].keys() == project["tool"]["flwr"]["app"]["config"].keys()
    assert json.dumps(flower[0])
