"""What the server and the clients do beside averaging."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from flwr.serverapp import strategy as flower

import fed
from fed.arrays import get_arrays, to_arrays, to_record
from fedenhance.run_folder.models import load_folder
from fedenhance.run_folder.states import load
from tests.fed import recipe


def state(tmp_path, folder="out"):
    return load(tmp_path / folder / "save" / "federation.pt")


@pytest.fixture
def equal(tmp_path):
    """Compare the models after the last round of two runs, to the bit."""

    def equal(a, b):
        a, b = (state(tmp_path, folder) for folder in (a, b))
        kept = ["arrays", "average"] if a["average"] and b["average"] else ["arrays"]
        return all((a[k][n] == b[k][n]).all() for k in kept for n in a[k])

    return equal


STILL = {"schedule": lambda server_round, rows: 1e-30}


def test_local_arrays_never_reach_the_server(train, tmp_path):
    train(folder="still", federation=STILL)
    train(folder="local", federation={"local": ["model.0.*", "model.1.*"]})
    a, b = (state(tmp_path, folder)["arrays"] for folder in ("local", "still"))
    assert (a["model.0.weight"] == b["model.0.weight"]).all()
    assert (a["model.1.weight"] == b["model.1.weight"]).all()
    assert (a["model.3.weight"] != b["model.3.weight"]).any()


def test_local_arrays_go_on_from_round_to_round(train, tmp_path):
    train(federation={"local": ["model.1.num_batches_tracked"], "rounds": 3})
    folder = tmp_path / "out" / "save" / "clients" / state(tmp_path)["identity"]
    folder /= "client00"
    assert sorted(path.name for path in folder.iterdir()) == ["2.pt", "3.pt"]
    # Two batches in each of three rounds.
    assert load(folder / "3.pt")["arrays"]["model.1.num_batches_tracked"] == 6


def test_a_local_pattern_that_matches_nothing_is_named(train):
    with pytest.raises(ValueError, match=r"'\*\.nrom\.\*'"):
        train(federation={"local": ["*.nrom.*"]})


def test_optimizer_state_is_kept_on_request(train, equal):
    momentum = {"opt_class": "{momentum: 0.9}"}
    train(folder="kept", federation={"keep_optimizer": True}, **momentum)
    train(folder="fresh", **momentum)
    assert not equal("kept", "fresh")


def test_training_on_the_server_follows_aggregation(train, read, equal):
    options = {"dataset": "valid", "epochs": 2, "lr": 0.02}
    train(folder="with", federation={"server_training": options})
    train(folder="without")
    assert float(read("rounds.csv", "with")[0]["server_num-examples"]) == 32
    assert not equal("with", "without")


def test_server_data_must_exist(train):
    with pytest.raises(ValueError, match="'held_out'"):
        train(federation={"server_training": {"dataset": "held_out"}})


@pytest.mark.parametrize("form", ["output folder", "state dict", "module's state dict"])
def test_initial_model(train, tmp_path, form):
    trained = train(folder="before", rounds=2)
    path = tmp_path / "model.pt"
    if form == "output folder":
        path = tmp_path / "before"
    elif form == "state dict":
        torch.save(trained.modules.state_dict(), path)
    else:
        torch.save(trained.modules["model"].state_dict(), path)
    slow = {"initial_model": path, "rounds": 1, "schedule": lambda *past: 1e-6}
    after = get_arrays(train(folder="after", federation=slow))
    for name, array in get_arrays(trained).items():
        if "running" not in name and "num_batches" not in name:
            assert np.allclose(array, after[name], atol=1e-4)


def test_modules_that_the_initial_model_lacks_start_anew(tmp_path, caplog):
    model, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.save(
        {"weight": torch.full((1, 1), 3.0), "bias": torch.zeros(1)},
        tmp_path / "model.ckpt",
    )
    before = other.weight.item()
    with caplog.at_level("WARNING"):
        load_folder(tmp_path, {"model": model, "head": other})
    assert (model.weight.item(), other.weight.item()) == (3.0, before)
    assert "head" in caplog.text
    with pytest.raises(ValueError, match="head"):
        load_folder(tmp_path, {"head": other})


def test_missing_initial_model_is_named(train):
    with pytest.raises(ValueError, match="nowhere"):
        train(federation={"initial_model": "nowhere"})


def test_proximal_term_holds_clients_back(train, tmp_path):
    def moved(folder, **federation):
        federation |= {"rounds": 1, "local_epochs": 20}
        train(folder=folder, federation=federation, lr=0.01)
        return state(tmp_path, folder)["arrays"]["model.3.weight"]

    start = moved("still", **STILL)
    free = np.linalg.norm(moved("free") - start)
    prox = partial(flower.FedProx, proximal_mu=10.0)
    assert np.linalg.norm(moved("prox", strategy=prox) - start) < 0.8 * free


@pytest.mark.parametrize(
    "strategy",
    [
        partial(flower.FedAdam, eta=0.01),
        partial(flower.FedYogi, eta=0.01),
        partial(flower.FedAdagrad, eta=0.01),
        partial(flower.FedAvgM, server_momentum=0.9),
        flower.FedMedian,
        partial(flower.FedTrimmedAvg, beta=0.25),
        partial(flower.Krum, num_malicious_nodes=1),
    ],
)
def test_strategies_of_flower_train_and_resume(train, tmp_path, equal, strategy):
    whole = train(folder="whole", federation={"strategy": strategy, "rounds": 4})
    train(folder="parts", federation={"strategy": strategy, "rounds": 2})
    train(folder="parts", federation={"strategy": strategy, "rounds": 4})
    assert equal("whole", "parts")
    for name, array in state(tmp_path, "whole")["arrays"].items():
        assert array.dtype == get_arrays(whole)[name].dtype, name
        assert np.isfinite(array).all()


def test_server_optimizers_leave_buffers_alone(train, tmp_path):
    train(federation={"strategy": partial(flower.FedAdam, eta=1.0), "rounds": 1})
    arrays = state(tmp_path)["arrays"]
    assert arrays["model.1.num_batches_tracked"] == 2
    assert (arrays["model.1.running_var"] > 0).all()


def test_the_moving_average_is_evaluated_and_the_clients_never_see_it(
    train, tmp_path, read, equal
):
    train(folder="once", federation={"rounds": 1})
    train(folder="twice", federation={"rounds": 2})
    brain = train(folder="averaged", federation={"rounds": 2, "average": 0.9})
    assert equal("twice", "averaged")
    first, second = (state(tmp_path, name)["arrays"] for name in ("once", "twice"))
    # Of the first model, the second round keeps (1 + 2) / (10 + 2).
    expected = 0.25 * first["model.0.weight"] + 0.75 * second["model.0.weight"]
    kept = state(tmp_path, "averaged")["average"]["model.0.weight"]
    assert kept == pytest.approx(expected, rel=1e-6)
    losses = {
        read("rounds.csv", name)[1]["valid_loss"] for name in ("twice", "averaged")
    }
    assert len(losses) == 2
    assert get_arrays(brain)["model.0.weight"] == pytest.approx(expected, rel=1e-6)


def test_without_an_average_that_of_before_is_forgotten(train, tmp_path):
    train(federation={"rounds": 1, "average": 0.9})
    brain = train(federation={"rounds": 2})
    after = state(tmp_path)
    assert after["average"] is None
    weight = after["arrays"]["model.0.weight"]
    assert get_arrays(brain)["model.0.weight"] == pytest.approx(weight)


# ------------------------------------------------------------------------- resume


def test_a_finished_run_is_not_trained_again(train, tmp_path):
    train(rounds=2)
    before = (tmp_path / "out" / "clients.csv").read_bytes()
    train(rounds=2)
    assert (tmp_path / "out" / "clients.csv").read_bytes() == before


LASTING = {
    "keep_optimizer": True,
    "local": ["model.1.*"],
    "rounds": 4,
    "fraction": 0.5,
    "strategy": partial(flower.FedAvgM, server_momentum=0.9),
    "average": 0.9,
}


@pytest.mark.parametrize("kill_at", [1, 5, 6, 7, 9, 12, 13, 15, 17])
def test_a_killed_run_ends_the_same(train, read, equal, monkeypatch, kill_at):
    train(folder="whole", federation=LASTING, dropout=0.5)
    child = os.fork()
    if not child:
        moves = iter(range(1, 1000))
        replace = os.replace

        def replace_or_die(*args):
            if next(moves) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*args)

        monkeypatch.setattr(os, "replace", replace_or_die)
        train(folder="killed", federation=LASTING, dropout=0.5)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was not killed"
    train(folder="killed", federation=LASTING, dropout=0.5)
    assert equal("whole", "killed")
    for name in ("rounds.csv", "clients.csv"):
        a, b = read(name, "whole"), read(name, "killed")
        assert [{**x, "seconds": 0} for x in a] == [{**x, "seconds": 0} for x in b]


def test_interrupt_finishes_the_client_and_resumes(train, equal):
    calls = []

    def weigh(metrics):
        calls.append(metrics)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    federation = {"weighting": weigh}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        train(folder="parts", federation=federation)
    assert len(calls) == 6
    assert signal.getsignal(signal.SIGINT) is before
    train(folder="parts", federation=federation)
    train(folder="whole", federation={"weighting": fed.weighting.uniform})
    assert equal("parts", "whole")


# -------------------------------------------------------------------- bad clients


def misbehave(kind):
    """A mod that makes the clients 02 bad in one way."""

    def mod(message, context, call_next):
        bad = message.content["config"]["client"] == "client02"
        if bad and kind == "exception":
            raise RuntimeError("out of luck")
        reply = call_next(message, context)
        if bad:
            spoil(reply, kind)
        return reply

    return mod


def spoil(reply, kind):
    arrays = to_arrays(reply.content["arrays"])
    if kind == "exploding":
        arrays["model.0.bias"] += 1e6
    elif kind == "late":
        reply.content["metrics"]["seconds"] = 1e6
    reply.content["arrays"] = to_record(arrays)


KINDS = {"exception": "out of luck", "exploding": "exceeds", "late": "timeout"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_client_is_named_counted_and_left_out(train, read, kind):
    federation = {"mods": [misbehave(kind)], "timeout": 1e3, "rounds": 1}
    train(federation=federation)
    (row,) = read("rounds.csv")
    assert (row["clients"], row["failures"], row["examples"]) == ("3", "1", "24")
    statuses = {row["client"]: row["status"] for row in read("clients.csv")}
    assert KINDS[kind] in statuses.pop("client02")
    assert set(statuses.values()) == {"ok"}


def test_others_are_averaged_as_if_the_bad_client_were_not(train, equal):
    train(folder="bad", federation={"mods": [misbehave("exploding")]})
    train(folder="absent", federation={"mods": [misbehave("exception")]})
    assert equal("bad", "absent")


def test_too_few_clients_are_tried_again_and_then_reported(train, read):
    federation = {"mods": [misbehave("exception")], "min_clients": 4, "max_failures": 2}
    with pytest.raises(RuntimeError, match="client02: RuntimeError: out of luck"):
        train(federation=federation)
    assert len(read("clients.csv")) == 3 * 4
    assert read("rounds.csv") == []


def test_a_failed_attempt_leaves_no_trace_in_the_strategy(train, equal):
    attempts = []

    def flaky(message, context, call_next):
        attempts.append(message)
        if len(attempts) == 2:
            raise RuntimeError("once")
        return call_next(message, context)

    def steady(message, context, call_next):
        return call_next(message, context)

    momentum = {"strategy": partial(flower.FedAvgM, server_momentum=0.9)}
    momentum["min_clients"] = 4
    train(folder="again", federation=momentum | {"mods": [flaky]})
    train(folder="once", federation=momentum | {"mods": [steady]})
    assert equal("again", "once")


def test_dropout_is_simulated_and_counted(train, read):
    train(federation={"p_dropout": 0.5, "rounds": 20})
    rows = read("rounds.csv")
    dropped = sum(int(row["failures"]) for row in rows)
    assert 20 < dropped < 60
    assert {row["status"] for row in read("clients.csv")} >= {"ok", "dropped out"}


def test_a_client_that_learns_nothing_is_named_and_left_out(train, read, monkeypatch):
    monkeypatch.setattr(recipe.Regression, "on_fit_batch_start", still)
    train(rounds=1)
    status = {row["client"]: row["status"] for row in read("clients.csv")}
    assert "no weight has changed" in status.pop("client02")
    assert set(status.values()) == {"ok"}
    assert read("rounds.csv")[0]["failures"] == "1"


def still(brain, batch, should_step):
    """Let one client's learning rate be 0 from its first batch on."""
    if set(batch.client) == {"client02"}:
        for group in brain.optimizer.param_groups:
            group["lr"] = 0.0


def test_a_learning_rate_of_zero_is_taken_at_its_word(train):
    with pytest.raises(RuntimeError, match="learning rate 0"):
        train(federation={"schedule": lambda server_round, rows: 0.0})
