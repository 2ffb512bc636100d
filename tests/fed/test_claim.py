"""A folder belongs to one experiment, whatever script trains there."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from flwr.app import Context, RecordDict

import fed.serverapp
from fed.claim import fingerprint, held
from fed.command import Process, deployed
from fed.runtime import ProcessGrid
from fedenhance.run_folder.record import WORKER
from tests.fed import recipe
from tests.fed.conftest import YAML
from tests.fed.test_command import HERE, ROOT, SCRIPT, as_main, script  # noqa: F401


def snapshot(folder):
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {p: data for p, data in files.items() if p.name != ".lock"}


def test_other_settings_are_refused_and_nothing_is_touched(script, tmp_path):  # noqa: F811
    script("--lr=0.01")
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert (told["finished"], told["settings"]["lr"]) == (True, 0.01)
    assert told["settings"]["federation.rounds"] == 3
    assert told["metric"] == "minimize loss"
    assert told["sources"] == [str(HERE / f"{n}.yaml") for n in ("train", "federation")]
    before = snapshot(tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"out holds another experiment: lr is 0.01 there, not 0.05; "
    ) as refusal:
        script("--train_size=16")
    assert "train_size is 32 there, not 16" in str(refusal.value)
    assert snapshot(tmp_path / "out") == before
    script("--lr=0.01")


def test_a_longer_federation_goes_on_and_another_is_refused(script, tmp_path):  # noqa: F811
    text = (HERE / "federation.yaml").read_text()
    script()
    longer = tmp_path / "longer.yaml"
    longer.write_text(text.replace("rounds: 3", "rounds: 4"))
    assert len(script(federation=longer)) == 4
    longer.write_text(f"{text}    min_clients: 2\n".replace("rounds: 3", "rounds: 4"))
    with pytest.raises(ValueError, match="federation.min_clients is 'absent' there"):
        script(federation=longer)


def test_a_folder_is_held_for_one_command_alone(script, train, tmp_path):  # noqa: F811
    script()
    before = (tmp_path / "out/run.json").read_bytes()
    train("other", rounds=1)  # in the same process
    assert (tmp_path / "out/run.json").read_bytes() == before
    assert Process.claim is None


def test_restart_removes_what_the_federation_left_alone(script, tmp_path):  # noqa: F811
    script()
    (tmp_path / "out/notes.txt").write_text("mine")
    (tmp_path / "out/save/CKPT+central").mkdir()
    rows = script("--restart", "--lr=0.01")
    assert len(rows) == 3
    assert (tmp_path / "out/notes.txt").exists()
    assert (tmp_path / "out/save/CKPT+central").exists()
    assert json.loads((tmp_path / "out/run.json").read_text())["settings"]["lr"] == 0.01


def test_other_data_are_refused(script, monkeypatch):  # noqa: F811
    script()
    rows = recipe.rows
    monkeypatch.setattr(recipe, "rows", lambda *args: {**rows(*args), **rows(1, 1, 9)})
    with pytest.raises(ValueError, match="clients, rows in the training data is not"):
        script()


def test_a_second_process_is_refused_in_a_line(tmp_path):
    words = [str(word) for word in (*SCRIPT, "--output_folder", tmp_path / "out")]
    federation = str(HERE / "federation.yaml")
    command = [sys.executable, "-m", "fed", *words, "--federation", federation]
    with held(words, federation):
        environment = {k: v for k, v in os.environ.items() if k != WORKER}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"out is in use: process {os.getpid()} trains there" in last
    assert "Traceback" not in done.stderr


def test_what_is_no_experiment_of_a_yaml_has_no_record(tmp_path, caplog):
    with held(["notebook", "-f", str(tmp_path / "kernel.json")]) as claim:
        assert claim is None
    assert "No record is kept" in caplog.text
    with held([str(ROOT / "train.py"), "any.yaml"]) as claim:
        assert claim is None  # it claims its folder itself


def test_where_files_lie_makes_no_other_data_but_their_lengths_do(tmp_path):
    def digests(folder, seconds=2.0):
        rows = {"a": {"wav": f"{folder}/a.wav", "seconds": seconds}}
        train_set = SimpleNamespace(data_ids=["a"], data=rows)
        return fingerprint(SimpleNamespace(train_set=train_set, partition={"0": ["a"]}))

    assert digests("/here") == digests("/there") != digests("/here", 3.0)
    for name, content in (("here", b"a"), ("there", b"b"), ("longer", b"bc")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(content)
    here, there, longer = (digests(tmp_path / n) for n in ("here", "there", "longer"))
    assert here == there
    assert {name for name in here if here[name] != longer[name]} == {"audio"}
    assert fingerprint(SimpleNamespace(train_set=None)) == {}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Run the server that ``flwr run`` starts, on nodes in this process."""
    monkeypatch.setattr(Process, "sites", {})
    monkeypatch.setattr(Process, "stops_at_fit", False)
    monkeypatch.setattr("fed.command.keep_freed_memory", lambda: None)
    monkeypatch.setattr(
        fed.serverapp,
        "Roster",
        lambda grid, nodes, patience: (
            lambda: [(f"client{i:02d}", None) for i in range(nodes)]
        ),
    )

    def serve(**overrides):
        overrides = {"output_folder": str(tmp_path / "out"), **overrides}
        config = {"hparams": str(YAML), "overrides": json.dumps(overrides), "nodes": 4}
        context = Context(1, 1, {}, RecordDict(), config)
        monkeypatch.setattr("fed.client.site_of", lambda *_: site(context))
        Process.sites.clear()
        Process.stops_at_fit = False
        fed.serverapp.server(ProcessGrid(4), context)

    def site(context):
        return Process.sites[deployed(context)]

    return serve


def test_the_server_of_real_nodes_holds_its_folder(serve, tmp_path):
    serve(lr=0.01, rounds=1)
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert (told["finished"], told["settings"]["lr"]) == (True, 0.01)
    before = snapshot(tmp_path / "out")
    with pytest.raises(ValueError, match="lr is 0.01 there, not 0.05"):
        serve(rounds=1)
    assert snapshot(tmp_path / "out") == before
    serve(lr=0.01, rounds=2)
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert (told["finished"], told["settings"]["rounds"]) == (True, 2)
    assert WORKER not in os.environ


def test_a_debug_run_leaves_a_finished_one_as_it_is(script, tmp_path):  # noqa: F811
    script()
    before = snapshot(tmp_path / "out")
    before.pop(tmp_path / "out/log.txt")  # open still, in this process
    script("--debug")
    after = snapshot(tmp_path / "out")
    assert {p: after.get(p) for p in before} == before
    tried = {p.relative_to(tmp_path / "out").parts[0] for p in after.keys() - before}
    assert tried == {"debug", "log.txt"}
    assert (tmp_path / "out/debug/rounds.csv").exists()
