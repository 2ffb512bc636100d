"""What of the comparison with pfl-research can be known without it."""

import pytest

from benchmarks import pfl_research
from benchmarks.loops import Case
from fedenhance.data import available


def test_without_it_what_to_install_is_said(monkeypatch):
    monkeypatch.setattr(available, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install pfl"):
        pfl_research.main(["--quick"])


def test_users_are_the_clients_and_come_again():
    case = Case(settings=pfl_research.settings_of("clients", 2))
    hparams, _ = case.load("nowhere")
    train_set, clients = pfl_research.loops.shares(hparams)
    options = hparams["train_dataloader_opts"]
    users = pfl_research.Users(train_set, clients, options)
    cohort = [user for user, _ in users.get_cohort(3)]
    assert [len(user) for user in cohort] == [
        len(ids) for ids in (*clients, clients[0])
    ]
    batches = list(cohort[0].iter(None))
    assert sum(len(batch["inputs"]) for (batch,) in batches) == len(clients[0])
    network = pfl_research.Loss(case, hparams)
    assert network.loss(*batches[0]).requires_grad
