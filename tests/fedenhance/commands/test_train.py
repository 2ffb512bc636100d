"""The main job, end to end, on a corpus of a few seconds."""

import csv
import json
import re
import subprocess
import sys

import pytest
import soundfile
import torch

from benchmarks.kills import MODEL
from fedenhance.__main__ import start
from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import train
from fedenhance.data.datasets import dataio_prepare
from fedenhance.deploy.trained import find_best
from fedenhance.reports.runs import Run
from fedenhance.run_folder.record import as_server
from tests.conftest import RATE
from tests.fedenhance.recipes.conftest import make_corpus

ROOT = PACKAGE.parent


@pytest.fixture
def arguments(tiny_corpus, tmp_path):
    """Overrides that make an experiment take a second."""

    def make(name="fedenhance", folder="out", **changes):
        (tmp_path / "model.yaml").write_text(MODEL)
        settings = {
            "output_folder": tmp_path / folder,
            "prepare": "null",
            "data_folder": tiny_corpus,
            "manifest_folder": tiny_corpus,
            "sample_rate": RATE,
            "segment": 0.5,
            "models": f"!include:{tmp_path}/model.yaml",
            **changes,
        }
        if name == "fedenhance":
            settings = {
                "n_clients": 4,
                "p_available_users": 0.5,
                "rounds": 2,
                **settings,
            }
        argv = [str(ROOT / f"hparams/{name}.yaml"), "--noprogressbar"]
        for key, value in settings.items():
            argv += [f"--{key}", str(value)]
        return argv

    return make


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_federation_leaves_what_the_readme_says(arguments, tmp_path):
    train.main(arguments(p_supervised=0.5))
    out = tmp_path / "out"
    rounds = table(out / "rounds.csv")
    assert [row["round"] for row in rounds] == ["1", "2"]
    assert {
        *("round", "seconds", "clients", "failures", "examples", "hours"),
        *("train_loss", "valid_si_sdri_1", "valid_si_sdri_2"),
        *("test_si_sdri_1", "test_si_sdri_2"),
    } <= set(rounds[0])
    assert rounds[0]["clients"] == "2"
    scores = table(out / "test_metrics.csv")
    columns = ["id", "n_noises", "si_sdr_in", "si_sdr", "si_sdri"]
    assert list(scores[0])[:5] == columns
    assert [row["n_noises"] for row in scores] == ["1", "2"] * 2
    for row in scores:
        difference = float(row["si_sdr"]) - float(row["si_sdr_in"])
        assert float(row["si_sdri"]) == pytest.approx(difference, abs=1e-4)
    assert (out / "figures/convergence.png").stat().st_size > 1000
    for kind in ("noisy", "enhanced", "clean"):
        signal, rate = soundfile.read(out / f"audio/f0-1_{kind}.wav")
        assert (len(signal), rate) == (RATE // 2, RATE)
    for name in ("train_log.txt", "save", "test_mixtures.csv", "hyperparams.yaml"):
        assert (out / name).exists()


def test_the_same_seed_gives_the_same_losses(arguments, tmp_path):
    losses = []
    for folder in ("a", "b"):
        train.main(arguments(folder=folder, p_supervised=0.5, results="[]"))
        rows = table(tmp_path / folder / "rounds.csv")
        losses.append([{k: v for k, v in r.items() if k != "seconds"} for r in rows])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("name", "start"), [("fedenhance", "spawn"), ("centralized", "forkserver")]
)
def test_processes_of_any_kind_can_read(arguments, name, start, tmp_path):
    """Python forks no more by default: not on macOS, and nowhere since 3.14."""
    options = (
        f"num_workers: 1, persistent_workers: True, multiprocessing_context: {start}"
    )
    logs, short = [], {"epochs": 1, "results": "[]"}
    for folder, workers in (("here", "{}"), ("there", f"{{{options}}}")):
        train.main(arguments(name, folder, train_dataloader_opts=workers, **short))
        log = (tmp_path / folder / "train_log.txt").read_text().splitlines()
        logs.append([re.sub("seconds: [^,]*", "", line) for line in log])
    assert logs[0] == logs[1]


def test_torchrun_is_refused_in_a_line(arguments, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert "torchrun" in refusal(arguments(p_supervised=0.5))
    assert not (tmp_path / "out").exists()


def refusal(words):
    """Run the command; return the one line in which it ends."""
    with pytest.raises(SystemExit) as end:
        start("train", [str(word) for word in words])
    assert len(end.value.code.splitlines()) == 1
    return end.value.code


@pytest.mark.parametrize(
    "federated", [{"name": "fedenhance", "federation": "null"}, {"name": "centralized"}]
)
def test_the_same_yaml_trains_centrally(arguments, federated, tmp_path):
    brain = train.main(arguments(**federated, epochs=2, p_supervised=0.5))
    assert len(table(tmp_path / "out/test_metrics.csv")) == 4
    assert not (tmp_path / "out/rounds.csv").exists()
    assert brain.num_examples == 2 * 8


@pytest.mark.parametrize("name", ["fedenhance", "centralized"])
def test_datasets_are_made_once(arguments, name, monkeypatch):
    made = []

    def counted(hparams):
        made.append(dataio_prepare(hparams))
        return made[-1]

    monkeypatch.setattr("fedenhance.data.datasets.dataio_prepare", counted)
    length = {"rounds": 1} if name == "fedenhance" else {"epochs": 1}
    train.main(arguments(name, results="[]", **length))
    assert len(made) == 1


def test_real_clients_train_without_any_reference(arguments, tiny_corpus, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for split, speakers in {"train": "abcd", "valid": "e", "test": "f"}.items():
        lines = ["ID,duration,spk_id,noisy"]
        lines += [
            f"{s}{i},0.5,{s},$data_root/{s}{i}_speech.wav"
            for s in speakers
            for i in range(2)
        ]
        (folder / f"{split}.csv").write_text("\n".join(lines), encoding="utf-8")
    noises = tmp_path / "noises"
    noises.mkdir()
    (noises / "n.wav").write_bytes((tiny_corpus / "a0_noise.wav").read_bytes())
    train.main(arguments(manifest_folder=folder, noise_folder=noises, maximize="null"))
    rounds = table(tmp_path / "out/rounds.csv")
    assert float(rounds[-1]["valid_loss"]) < 0
    assert "valid_si_sdri" not in rounds[0]


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"data_folder": "/none", "manifest_folder": "/none"}, "/none/train.csv"),
        ({"p_supervized": 0.5}, "p_supervized; did you mean p_supervised"),
        ({"n_clients": 5}, "5 clients"),
        ({"available_speech_percentage": 1.0}, "no isolated noise"),
        ({"p_supervised": 1.5}, "p_supervised"),
    ],
)
def test_bad_input_names_the_culprit(arguments, changes, culprit):
    with pytest.raises((ValueError, FileNotFoundError), match=culprit):
        train.main(arguments(**changes))


def test_bad_input_ends_in_one_line(arguments):
    done = subprocess.run(
        [sys.executable, "train.py", *map(str, arguments(n_clients=5))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "5 clients" in done.stderr.strip().splitlines()[-1]
    for word in ("Traceback", "torchvision", "Run option"):
        assert word not in done.stderr


def test_a_federation_of_which_every_client_fails_ends_in_one_line(arguments):
    """Here by an accumulation of gradients that is longer than an epoch."""
    said = refusal(arguments(max_grad_norm=1) + ["--grad_accumulation_factor=64"])
    assert said.startswith("fedenhance train: Round 1 failed 4 times.")
    assert "grad_accumulation_factor is 64, and the epoch had" in said


def test_changed_data_are_refused_before_anything_is_prepared(arguments, tmp_path):
    root = make_corpus(tmp_path / "data")
    prepare = (
        "!name:fedenhance.recipes.LibriFSD50K.prepare.prepare "
        f"{{data_folder: {root}, save_folder: {tmp_path}/manifests}}"
    )
    words = arguments(
        prepare=prepare,
        data_folder=root,
        manifest_folder=tmp_path / "manifests",
        sample_rate=16000,
        n_clients=2,
        rounds=1,
        results="[]",
    )
    train.main(words)
    train.main(words)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    extra = root / "LibriSpeech/train-clean-100/19/7/19-7-0009.flac"
    extra.write_bytes((extra.parent / "19-7-0000.flac").read_bytes())
    with pytest.raises(ValueError, match="manifests was prepared from other files"):
        train.main(words)
    extra.unlink()
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {p for p in after if before.get(p) != after[p]} <= {
        tmp_path / "out/log.txt",
        tmp_path / "out/env.log",
        tmp_path / "out/hyperparams.yaml",
        tmp_path / "out/.lock",
    }
    assert json.loads(after[tmp_path / "out/run.json"])["finished"]


def test_a_used_folder_is_refused_and_left_as_it_is(arguments, tmp_path):
    train.main(arguments(rounds=1, p_supervised=0, results="[]"))
    out = tmp_path / "out"
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="n_clients is 4 there, not 2; p_supervised"):
        train.main(arguments(rounds=1, p_supervised=1, n_clients=2, results="[]"))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_debugging_tries_the_results_too(arguments, tmp_path):
    for _ in range(2):
        train.main([*arguments("centralized"), "--debug"])
        written = (tmp_path / "out/debug/train_log.txt").read_text()
        assert written.count("epoch: 1") == 1
    assert (tmp_path / "out/debug/package").is_dir()
    assert not (tmp_path / "out/save").exists()


def test_debugging_leaves_no_trace_in_a_real_run(arguments, tmp_path, capsys):
    train.main([*arguments(rounds=1, results="[]"), "--debug"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"debug"}
    train.main(arguments(rounds=1, folder="alone", results="[]"))
    train.main(arguments(rounds=1, results="[]"))
    tables = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in table(path)]
        for path in (tmp_path / "out/rounds.csv", tmp_path / "alone/rounds.csv")
    ]
    assert tables[0] == tables[1]
    assert re.search(
        r"^round   1 \| +\d+\.\d s \|  2 cl", capsys.readouterr().out, re.M
    )


def test_a_missing_experiment_is_named():
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        train.main(["none.yaml"])


@pytest.mark.parametrize(
    ("maximize", "key", "sign"),
    [("valid_si_sdri", "valid_si_sdri", 1), ("null", "valid_loss", -1)],
)
def test_the_model_tested_is_the_best_by_what_was_asked(
    arguments, tmp_path, maximize, key, sign
):
    """Of central training that gets worse; what others load is the same model."""
    changes = {"maximize": maximize, "learning_rate": 0.1, "epochs": 4}
    brain = train.main(arguments("centralized", results="[]", **changes))
    values = Run(tmp_path / "out").epochs[key] * sign
    assert values.argmax() < 3
    best = find_best(tmp_path / "out/save")
    assert best.meta[key.removeprefix("valid_")] * sign == pytest.approx(
        values.max(), rel=1e-2
    )
    kept = torch.load(best.paramfiles["separator"], weights_only=True)
    for name, weight in brain.modules.separator.state_dict().items():
        assert torch.equal(weight, kept[name])


def test_a_metric_that_validation_lacks_is_named(arguments):
    with pytest.raises(ValueError, match="chosen by 'nonsense', but validation repor"):
        train.main(arguments("centralized", maximize="nonsense", epochs=1))


@pytest.mark.parametrize(
    ("words", "number"), [([], "24.0"), (["--clean_above", "9"], "9")]
)
def test_what_a_start_says_holds_unless_the_command_line_does(
    words, number, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(train, "run", lambda command, claim: seen.append(command))
    folders = ["--recordings", tmp_path, "--output_folder", tmp_path / "out"]
    train.main(["hparams/adapt.yaml", *map(str, folders), *words])
    said = re.findall(r"^(clean_above|sample_rate): (.*)", seen[0].overrides, re.M)
    assert dict(said) == {"clean_above": number, "sample_rate": "16000"}
    assert len(said) == 2


def test_a_server_without_test_data_says_how_to_test(arguments, tmp_path):
    with as_server():
        train.main(arguments(test_csv="null", rounds=1))
    assert "evaluate.py" in (tmp_path / "out/log.txt").read_text()
    assert list((tmp_path / "out/save").glob("CKPT+*"))
    assert not (tmp_path / "out/test_metrics.csv").exists()
