"""Federated recognition end to end, on letters that are tones."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from flwr.app import Context, RecordDict

from fed import serverapp
from fed.command import Process
from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import train
from fedenhance.recipes.CommonVoice.ASR.prepare import prepare
from fedenhance.recognition.tokenizer import Tokenizer
from fedenhance.run_folder.states import load
from tests.fed.nodes import Nodes

ROOT = PACKAGE.parent
RATE = 16000
SPEAKERS = {"ann": "train", "bob": "train", "eve": "train", "cid": "dev", "dot": "test"}
LETTERS = "ABCDE"
SMALL = {
    "output_neurons": 12,
    "batch_size": 2,
    "learning_rate": 0.01,
    "rounds": 2,
    "epochs": 2,
    "evaluate_every": 1,
    "clients_per_round": 1.0,
}

MODELS = {
    "fedasr_ctc": {"channels": 16, "enc": "{num_blocks: 1}"},
    "fedasr": {
        "n_mels": 20,
        "enc": "{cnn_blocks: 1, cnn_channels: [4], inter_layer_pooling_size: [2], "
        "rnn_layers: 1, rnn_neurons: 16, dnn_neurons: 16}",
        "ctc_lin": "{input_size: 16}",
        "emb": "{embedding_dim: 8}",
        "dec": "{enc_dim: 16, input_size: 8, hidden_size: 16, attn_dim: 16}",
        "seq_lin": "{input_size: 16}",
        "searcher": "{beam_size: 2}",
    },
}


def spell(words):
    """A fifth of a second of a tone for each letter, a gap for each space."""
    time = np.arange(RATE // 5) / RATE
    tones = [
        np.zeros_like(time)
        if letter == " "
        else np.sin(2 * np.pi * 300 * (1 + LETTERS.index(letter)) * time)
        for letter in words
    ]
    return 0.3 * np.concatenate(tones)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Common Voice in small: five speakers, four sentences each."""
    folder = tmp_path_factory.mktemp("cv")
    (folder / "clips").mkdir()
    generator = np.random.default_rng(0)
    tables = {"train": [], "dev": [], "test": []}
    for speaker, split in SPEAKERS.items():
        for number in range(4):
            words = "".join(generator.permutation(list(LETTERS)))
            words = f"{words[:2]} {words[2:]}"
            suffix = ("wav", "flac", "mp3")[number % 3]
            name = f"{speaker}{number}.{suffix}"
            soundfile.write(folder / "clips" / name, spell(words), RATE)
            tables[split].append(f"{speaker}\t{name}\t{words.capitalize()}.")
    for split, lines in tables.items():
        text = "\n".join(["client_id\tpath\tsentence", *lines])
        (folder / f"{split}.tsv").write_text(text + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def run(corpus, tmp_path):
    """Train; return the Brain. What has arguments of its own is written to the YAML."""

    def run(folder="out", name="fedasr_ctc", weighting="by_examples", **changes):
        base = ROOT / f"recipes/CommonVoice/ASR/hparams/{name}.yaml"
        weighting = f"!name:fed.weighting.{weighting}" if weighting else "null"
        path = tmp_path / "experiment.yaml"
        path.write_text(f"base: {base}\nweighting: {weighting}\n")
        argv = [str(path), "--noprogressbar"]
        settings = {
            "data_folder": corpus,
            "output_folder": tmp_path / folder,
            **SMALL,
            **MODELS[name],
            **changes,
        }
        for key, value in settings.items():
            argv += [f"--{key}", "null" if value is None else str(value)]
        return train.main(argv)

    return run


@pytest.fixture(scope="module")
def uneven(corpus):
    """A manifest in which one client holds less than the others."""
    prepare(corpus, corpus / "manifests")
    lines = (corpus / "manifests/train.csv").read_text(encoding="utf-8").splitlines()
    path = corpus / "uneven.csv"
    path.write_text("\n".join([lines[0], *lines[2:]]), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    """Read a csv file of a run."""

    def table(name, folder="out"):
        with open(tmp_path / folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return table


def final(folder):
    return load(folder / "save" / "federation.pt")["arrays"]


def test_a_federation_leaves_what_the_readme_says(run, table, tmp_path):
    brain = run(rounds=3, validate_clients=True)
    rounds, clients = table("rounds.csv"), table("clients.csv")
    assert {"valid_WER", "valid_CER", "test_WER", "test_CER", "train_valid_WER"} <= set(
        rounds[0]
    )
    assert float(rounds[-1]["train_loss"]) < float(rounds[0]["train_loss"])
    assert {row["client"] for row in clients} == {"ann", "bob", "eve"}
    assert {row["examples"] for row in clients} == {"4"}
    # Of clients that hold equally much, the mean is a plain one.
    last = [float(row["valid_WER"]) for row in clients if row["round"] == "3"]
    assert float(rounds[-1]["train_valid_WER"]) == pytest.approx(sum(last) / 3)
    text = (tmp_path / "out/wer_test.txt").read_text()
    assert text.startswith("%WER")
    assert "dot3" in text
    saved = Tokenizer(12, file=str(tmp_path / "out/save/tokenizer.model"))
    saved.prepare()
    assert saved.digest == brain.modules.tokenizer.digest


@pytest.mark.parametrize(
    ("weighting", "worth"),
    [
        ("by_examples", lambda row: float(row["examples"])),
        ("by_loss", lambda row: math.exp(-float(row["loss"]))),
        (
            "by_word_error_rate",
            lambda row: math.exp(100 - min(100, float(row["valid_WER"]))),
        ),
        (
            "by_metric {key: valid_WER, temperature: -10}",
            lambda row: math.exp(-float(row["valid_WER"]) / 10),
        ),
    ],
)
def test_shares_are_what_the_formula_says(run, table, uneven, weighting, worth):
    run(
        rounds=1,
        weighting=weighting,
        validate_clients="WER" in weighting or "word" in weighting,
        train_csv=uneven,
    )
    clients = table("clients.csv")
    total = sum(map(worth, clients))
    for row in clients:
        assert float(row["weight"]) == pytest.approx(worth(row) / total, rel=1e-4)


def test_the_server_trains_on_its_own_data(run, table, uneven):
    run(folder="without", rounds=1)
    run(
        folder="with",
        rounds=1,
        server_csv=uneven.parent / "manifests/valid.csv",
        server_training="{dataset: server, epochs: 2}",
    )
    (without,), (row,) = (table("rounds.csv", name) for name in ("without", "with"))
    assert row["server_num-examples"] == "8"
    assert row["train_loss"] == without["train_loss"]
    # What the server trains on is the validation data: that loss falls.
    assert float(row["valid_loss"]) < float(without["valid_loss"])


def test_attention_trains_and_transcribes_and_integers_stay_integers(
    run, table, tmp_path
):
    brain = run(name="fedasr", rounds=2)
    first, second = (float(row["train_loss"]) for row in table("rounds.csv"))
    assert second < first
    text = (tmp_path / "out/wer_test.txt").read_text()
    assert " / 8, " in text.splitlines()[0]  # two words of each of four recordings
    arrays = final(tmp_path / "out")
    (counter,) = [name for name in arrays if name.endswith("num_batches_tracked")]
    assert arrays[counter].dtype == "int64"
    assert arrays[counter] == 4  # four examples of each client in batches of two, twice
    content = brain.modules.tokenizer.content
    assert (torch.from_numpy(arrays["tokenizer.content"]) == content).all()


def test_it_trains_centrally_without_any_of_fed(run, table, tmp_path):
    brain = run(federation=None, partition=None, schedule=None, weighting=None)
    assert brain.num_examples == 2 * 12
    assert not (tmp_path / "out/rounds.csv").exists()
    first = (tmp_path / "out/wer_test.txt").read_text().split()[1]
    assert float(first) == pytest.approx(brain.test_stats["WER"], abs=0.01)


def test_a_central_model_starts_a_federation_with_its_tokenizer(run, uneven, tmp_path):
    central = run(folder="central", federation=None, token_type="char")
    brain = run(rounds=1, initial_model=tmp_path / "central")
    assert brain.modules.tokenizer.digest == central.modules.tokenizer.digest
    # A client that has another tokenizer is told.
    Tokenizer(vocab_size=12, text=str(uneven)).prepare(tmp_path)
    with pytest.raises(RuntimeError, match="tokenizer.model .* is not the tokenizer"):
        run(
            folder="other",
            initial_model=tmp_path / "central",
            tokenizer_file=tmp_path / "tokenizer.model",
        )


def test_unusable_utterances_are_counted(run, table, uneven, tmp_path):
    lines = uneven.read_text(encoding="utf-8").splitlines()
    changed = [lines[1].rpartition(",")[0] + ",ÄÖ", *lines[2:]]
    path = tmp_path / "changed.csv"
    path.write_text("\n".join([lines[0], *changed]), encoding="utf-8")
    run(rounds=1, train_csv=path, tokenizer_text=uneven)
    assert float(table("rounds.csv")[0]["skipped"]) == 1


def test_weighting_by_what_nobody_reports_is_named(run):
    with pytest.raises(RuntimeError, match="no metric 'valid_WER'"):
        run(weighting="by_word_error_rate")


CTC = "recipes/CommonVoice/ASR/hparams/fedasr_ctc.yaml"


def of_the_server_and_of_a_node(corpus, folder):
    """Write manifests of two clients; return the keys that hold on each side."""
    manifests = folder / "manifests"
    prepare(corpus, manifests, clients=2)
    text = folder / "text.txt"
    text.write_text("AB CDE\nEDC BA\nDAB EC\n" * 3)
    server = {
        **SMALL,
        **MODELS["fedasr_ctc"],
        "rounds": 1,
        "data_folder": corpus,
        "output_folder": folder / "deployed",
        "prepare": "null",
        "valid_csv": manifests / "valid.csv",
        "test_csv": manifests / "test.csv",
        "train_csv": "null",
        "tokenizer_text": text,
    }
    node = f"train_csv: {manifests}/client{{}}.csv\ntokenizer_text: null"
    return "\n".join(f"{key}: {value}" for key, value in server.items()), node


def test_nodes_train_on_manifests_of_their_own(corpus, table, tmp_path, monkeypatch):
    """The quick form: the apps and their configurations, without Flower's processes."""
    monkeypatch.setattr(Process, "stops_at_fit", False)
    overrides, node = of_the_server_and_of_a_node(corpus, tmp_path)
    run_config = {"script": "", "hparams": CTC, "overrides": overrides, "nodes": 2}
    nodes = [
        {"client": f"client{i}", "overrides": node.replace("{}", str(i))}
        for i in range(2)
    ]
    grid = Nodes(run_config, *nodes)
    serverapp.main(grid, Context(1, 0, {}, RecordDict(), run_config))
    nodes_took_part(table("clients.csv", "deployed"), tmp_path / "deployed")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_supernodes_train_on_manifests_of_their_own(corpus, run, table, tmp_path):
    """Two nodes with two manifests train as the same two clients do in process."""
    overrides, node = of_the_server_and_of_a_node(corpus, tmp_path)
    done = subprocess.run(
        [ROOT / "fed/loopback.sh", CTC, "2"]
        + [text.replace("\n", r"\n") for text in (overrides, node)],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LOGS": str(tmp_path / "logs"),
            "TIMEOUT": "500",
            "PORT": "9740",
        },
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nodes_took_part(table("clients.csv", "deployed"), tmp_path / "deployed")


def nodes_took_part(clients, folder):
    assert [(row["client"], row["status"]) for row in clients] == [
        ("client0", "ok"),
        ("client1", "ok"),
    ]
    assert [row["examples"] for row in clients] == ["8", "4"]
    assert (folder / "wer_test.txt").exists()
