"""Models of clients' own: what is tested, what is trained, what leaves the client."""

from types import SimpleNamespace

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from speechbrain.dataio.dataset import DynamicItemDataset

import fed
from fed.personal import answer, own_tests, row_of
from fed.runtime import ProcessGrid
from tests.fed import recipe


def datasets(hparams):
    """The regression's, and for each client its own recordings, but for one."""
    made = recipe.datasets(hparams)
    dataset = DynamicItemDataset(recipe.rows(24, 4, seed=9))
    dataset.set_output_keys(["id", "inputs", "targets", "client"])
    clients = fed.partition.by_column(dataset.data)
    dataset.clients = {name: ids for name, ids in clients.items() if name != "client03"}
    return made | {"own": dataset}


@pytest.fixture
def run(train, read):
    def run(folder="out", **federation):
        options = {"datasets": datasets, "minimize": "loss", **federation}
        train(folder=folder, federation=options)
        return {row["client"]: row for row in read("personal.csv", folder)}

    return run


def weights_of(folder, client):
    return torch.load(folder / "save/personal" / client / "model.ckpt")


def test_the_model_is_tested_on_each_clients_own_recordings(run, tmp_path):
    rows = run(personal={"epochs": 0})
    assert [row["status"] for row in rows.values()][:3] == ["ok"] * 3
    assert {row["examples"] for row in rows.values()} == {"6", "0"}
    # Clients' targets differ by an offset: so do the losses of a model for all.
    losses = {float(rows[f"client0{i}"]["global_loss"]) for i in range(3)}
    assert len(losses) == 3
    assert not any(key.startswith("personal_") for key in rows["client00"])


def test_a_client_without_recordings_of_its_own_is_named(run):
    status = run(personal={"epochs": 0})["client03"]["status"]
    assert "no recordings of client client03 are held out" in status


def test_training_on_helps_on_own_recordings_and_changes_no_other_client(run):
    rows = run(personal={"epochs": 20, "lr": 0.02}, rounds=1)
    for i in range(3):
        row = rows[f"client0{i}"]
        assert float(row["personal_loss"]) < float(row["global_loss"])


@pytest.mark.parametrize("local", [[], ["model.1.*"]])
def test_personal_models_leave_the_run_as_it_was(train, read, local):
    federation = {"datasets": datasets, "maximize": "loss", "local": local}
    a = train(folder="a", federation=federation)
    b = train(folder="b", federation={**federation, "personal": {"epochs": 2}})
    without = [{**row, "seconds": 0} for row in read("rounds.csv", "a")]
    assert without == [{**row, "seconds": 0} for row in read("rounds.csv", "b")]
    for name, weight in a.modules.state_dict().items():
        assert weight.equal(b.modules.state_dict()[name])


def test_some_layers_train_on_and_all_others_stay(run, tmp_path):
    run(folder="a", personal={"epochs": 0})
    run(folder="b", personal={"epochs": 2, "train": ["model.3.*"]})
    shared = weights_of(tmp_path / "a", "client00")
    own = weights_of(tmp_path / "b", "client00")
    changed = {name for name in own if not own[name].equal(shared[name])}
    assert changed == {"3.weight", "3.bias"}


def test_ditto_holds_a_model_near_the_shared_one(run, tmp_path):
    run(folder="a", personal={"epochs": 0})
    shared = weights_of(tmp_path / "a", "client00")["3.weight"]
    distances = []
    for mu in (0.0, 10.0):
        folder = tmp_path / f"mu{mu:g}"
        run(folder=folder.name, personal={"epochs": 3, "proximal_mu": mu})
        own = weights_of(folder, "client00")["3.weight"]
        distances.append(float((own - shared).norm()))
    assert 0 < distances[1] < distances[0] / 2


def test_what_stays_local_is_tested_with_the_newest_model(run, tmp_path):
    rows = run(personal={"epochs": 0}, local=["model.1.*"])
    own = [weights_of(tmp_path / "out", f"client0{i}") for i in range(2)]
    assert not own[0]["1.running_mean"].equal(own[1]["1.running_mean"])
    assert own[0]["3.weight"].equal(own[1]["3.weight"])
    for i in range(3):
        row = rows[f"client0{i}"]
        assert float(row["local_loss"]) < float(row["global_loss"])


def test_a_personal_model_starts_another_run(run, train, tmp_path):
    run(personal={"epochs": 1})
    initial = tmp_path / "out/save/personal/client00"
    train(folder="next", federation={"initial_model": str(initial), "rounds": 1})


def test_a_machine_of_its_own_tests_on_all_that_it_holds():
    """Whatever the client is called: of others there is nothing there."""
    own = datasets({"train_size": 4})["own"]
    site = SimpleNamespace(datasets={"own": own})
    assert len(own_tests(site)) == 24
    assert len(own_tests(site, "client00")) == 6


def test_a_client_that_did_not_agree_tells_nothing():
    site = SimpleNamespace(federation=fed.Federation(), datasets={})
    ProcessGrid(1)
    content = RecordDict({"config": ConfigRecord({"client": "a"})})
    message = Message(content, message_type="evaluate", dst_node_id=1)
    with pytest.raises(ValueError, match="have no 'personal'"):
        answer(site, True, message)


def test_replies_that_are_none_are_statuses():
    ProcessGrid(1)  # so that messages can be made
    assert "no reply" in row_of("a", None)["status"]
    message = Message(RecordDict(), message_type="evaluate", dst_node_id=1)
    content = {"config": ConfigRecord({"client": "b"})}
    content["metrics"] = MetricRecord({"num-examples": 1, "seconds": 1.0})
    reply = Message(RecordDict(content), reply_to=message)
    assert row_of("a", reply)["status"] == "answers for another client"
    assert row_of("b", reply)["examples"] == 1
    reply.content["metrics"]["=cmd()"] = 1.0
    assert "has a metric named '=cmd()'" in row_of("b", reply)["status"]


@pytest.mark.parametrize(
    ("federation", "told"),
    [
        ({"personal": {"epoch": 1}}, "its keys are"),
        ({"personal": {"epochs": -1}}, "epochs is -1; it must be 0 or more"),
        ({"personal": {"epochs": 1}, "secure": True}, "are to hide"),
    ],
)
def test_what_cannot_be_is_refused(federation, told):
    with pytest.raises(ValueError, match=told):
        fed.Federation(**federation)


def test_layers_that_do_not_exist_are_named(run):
    rows = run(personal={"epochs": 1, "train": ["head.*"]})
    told = "personal, train: 'head.*' matches none of 6 weights, such as model.0."
    assert told in rows["client00"]["status"]


def test_a_run_without_recordings_of_clients_own_says_so(train, read):
    train(federation={"personal": {"epochs": 1}})
    assert all("have no 'own'" in row["status"] for row in read("personal.csv"))
