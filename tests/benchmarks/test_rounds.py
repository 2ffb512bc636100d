"""All codes do the same work, and each of their rounds is timed."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import loops, rounds
from benchmarks.loops import Case

SMALL = {"clients": 2, "registered": 2, "parameters": 64, "batches": 3}


@pytest.fixture
def loaded(monkeypatch):
    """Keep the hparams that a code loads, to look at what it trained."""
    kept = []
    load = Case.load

    def remember(case, folder):
        hparams, overrides = load(case, folder)
        kept.append(hparams)
        return hparams, overrides

    monkeypatch.setattr(Case, "load", remember)
    return kept


def test_every_code_trains_the_same_weights(loaded):
    for code in rounds.CODES.values():
        assert len(code(Case(settings=SMALL), 2)) == 2
    weights = [h["model"][0].weight.detach().numpy() for h in loaded]
    start = Case(settings=SMALL).load("results")[0]["model"][0].weight.detach().numpy()
    assert not np.allclose(weights[0], start, atol=1e-4)
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-6)
    np.testing.assert_allclose(weights[2], weights[0], atol=1e-6)


def test_recordings_come_again_where_a_client_has_too_few(tiny_corpus, tmp_path):
    file = loops.HERE.parent / "hparams" / "fedenhance.yaml"
    settings = {
        "data_folder": tiny_corpus,
        "manifest_folder": tiny_corpus,
        "n_clients": 4,
        "batch_size": 2,
        "datasets": "!name:benchmarks.loops.few_batches [2, 5]",
    }
    hparams, _ = Case(str(file), settings).load(tmp_path)
    train_set = hparams["datasets"](hparams)["train"]
    held = train_set.clients
    assert [len(ids) for ids in held.values()] == [4] * 5
    assert held["00004"] == held["00000"] != held["00001"]
    first, second, *again = held["00000"]
    assert again == [f"{first} again 1", f"{second} again 1"]
    assert train_set[0]["sources"].shape == train_set[2]["sources"].shape


def test_the_original_is_told_no_more_than_it_understands(monkeypatch, tmp_path):
    monkeypatch.setattr(rounds, "few_rows", lambda case, sizes: {})
    monkeypatch.setattr(rounds.original, "write_tree", lambda *_, **options: None)
    args = SimpleNamespace(authors=tmp_path, device="cpu")
    sizes = {"model": "sudormrf_groupcomm_small", "clients": 2, "batches": 3}
    sizes |= {"batch_size": 4, "seconds": 1.0}
    call = rounds.original_code(args, None, tmp_path, sizes)
    words = call.args[2]
    assert words[words.index("--n_fed_nodes") + 1] == "2"
    assert "--batches" not in words


def test_each_sweep_varies_what_it_says():
    for name, values in rounds.SWEEPS.items():
        settings = rounds.settings_of(name, values[-1])
        assert settings[name] == values[-1]
        sampled = settings.get("clients", 16)
        assert settings.get("registered", 16) >= sampled


def test_an_unknown_section_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        rounds.parse(["sampled"])
    assert "no section sampled: there are compare, clients" in capsys.readouterr().err


def test_a_missing_checkout_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        rounds.parse(["--authors", str(tmp_path)])
    assert f"{tmp_path / 'fedenhance/fedenhance'} is missing" in capsys.readouterr().err
