"""Damage at random, all the way through: named, counted, and never the end of a run.

``FUZZ=1000 pytest tests/fedenhance/test_fuzz.py`` tries more than sixty of each.
"""

import os
import re

import numpy as np
import pytest

from benchmarks.kills import MODEL
from fedenhance.commands import enhance, evaluate, train
from fedenhance.data.audio import read_segment
from fedenhance.data.datasets import logger
from fedenhance.data.manifests import load_manifest
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import read_table, write_table
from fedenhance.recipes.CommonVoice.ASR import prepare as common_voice
from tests import damage
from tests.damage import RATE
from tests.fedenhance.commands.test_train import ROOT

NUMBER = int(os.environ.get("FUZZ", "60"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of every kind, most of them damaged at random, in clips/."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "clips").mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUMBER):
        damage.write_random(root / "clips" / f"{number:04d}", rng)
    damage.save(root / "clips" / "sound.wav")
    damage.write(root / "clips", damage.DAMAGED | damage.ARRAYS)
    return root


@pytest.fixture(scope="module")
def damaged(folder):
    """The names of those that cannot be read, whole."""
    found = set()
    for path in sorted((folder / "clips").iterdir()):
        try:
            signal = read_segment(path, 0, 0, RATE, 16000)
            assert signal.shape == (16000,) and signal.isfinite().all()
        except DamagedAudioError as error:
            assert str(error).startswith(f"{path}: ")
            found.add(path.name)
    assert NUMBER / 4 < len(found) < len(list((folder / "clips").iterdir()))
    return found


@pytest.fixture(scope="module")
def run(folder, damaged, tmp_path_factory):
    """A federation of two clients that was trained on all of it, for a round."""
    root = tmp_path_factory.mktemp("run")
    names = sorted(path.name for path in (folder / "clips").iterdir())
    rows = [
        {"ID": name, "spk_id": f"p{i % 2}", "noisy": f"$data_root/clips/{name}"}
        for i, name in enumerate(names)
    ]
    for split in ("train", "valid", "test"):
        write_table(root / f"{split}.csv", rows)
    (root / "model.yaml").write_text(MODEL)
    options = {
        "output_folder": root / "run",
        "prepare": "null",
        "data_folder": folder,
        "manifest_folder": root,
        "noise_folder": folder,
        "models": f"!include:{root}/model.yaml",
        "n_clients": 2,
        "p_available_users": 1,
        "local_epoch_p": 1,
        "rounds": 1,
        "maximize": "null",
        "batch_size": 8,
        "snr_range": "[0, 5]",
        "results": "[!name:fedenhance.reports.results.write_test_metrics ]",
    }
    words = [word for key in options for word in (f"--{key}", str(options[key]))]
    train.main([str(ROOT / "hparams/fedenhance.yaml"), "--noprogressbar", *words])
    return root / "run"


def test_training_names_and_counts_all(folder, damaged, run):
    (row,) = read_table(run / "rounds.csv")
    number = len(list((folder / "clips").iterdir()))
    assert (row["clients"], row["failures"]) == ("2", "0")
    skipped = float(row["skipped"])
    assert len(damaged) <= skipped < number
    assert float(row["examples"]) + skipped == number
    assert np.isfinite([float(row["train_loss"]), float(row["valid_loss"])]).all()
    said = (run / "log.txt").read_text(errors="replace")
    for name in damaged:
        assert f"a recording is left out: {folder}/clips/{name}: " in said, name
    for stage in ("valid", "test"):
        assert re.search(rf"{stage}: \d+ of \d+ examples are left out", said)


def test_evaluation_names_and_counts_all(
    folder, damaged, run, tmp_path, capsys, caplog
):
    names = sorted(path.name for path in (folder / "clips").iterdir())
    noise = "$data_root/clips/sound.wav"
    rows = [
        {"ID": name, "speech": f"$data_root/clips/{name}", "noise": noise}
        for name in names
    ]
    write_table(tmp_path / "mixtures.csv", rows)
    logger.warning_once.cache_clear()  # training has named them already
    words = ["--test_mixtures", str(tmp_path / "mixtures.csv"), "--processes", "1"]
    evaluate.main([str(run), *words])
    scored = {row["id"] for row in read_table(run / "evaluation/utterances.csv")}
    assert scored | damaged == {*names} and not scored & damaged
    told = f"{len(damaged)} of {len(names)} mixtures are damaged and left out"
    assert told in capsys.readouterr().out
    for name in damaged:
        assert f"a recording is left out: {folder}/clips/{name}: " in caplog.text


def test_enhance_names_and_counts_all(folder, run, tmp_path, capsys):
    out = tmp_path / "out"
    number = enhance.main([str(run), str(folder / "clips"), "--out", str(out)])
    printed = capsys.readouterr()
    written = {path.name for path in out.rglob("*") if path.is_file()}
    for path in (folder / "clips").iterdir():
        done = path.name in written or path.suffix == ".npy" or path.is_dir()
        assert done or str(path) in printed.err, path
    assert f"{len(written)} enhanced, 0 there already, {number} damaged" in printed.out


def test_preparation_names_and_counts_all(folder, damaged, tmp_path):
    names = sorted(path.name for path in (folder / "clips").iterdir())
    (folder / "all.tsv").write_text(
        "client_id\tpath\tsentence\n" + "".join(f"p\t{name}\tFox\n" for name in names)
    )
    record = common_voice.prepare(
        folder, tmp_path, "all.tsv", None, None, held_out=0, min_duration=0
    )
    kept = read_table(tmp_path / "train.csv")
    skipped = read_table(tmp_path / "skipped.csv")
    assert record["counts"]["train"]["utterances"] == len(kept)
    assert len(kept) + len(skipped) == len(names)
    assert "None" not in {row["reason"] for row in skipped}


def test_manifests_load_or_are_named(tmp_path):
    rng = np.random.default_rng(0)
    loaded = 0
    for i in range(4):
        damage.save(tmp_path / f"s{i}.wav")
        damage.save(tmp_path / f"n{i}.wav")
    for _ in range(NUMBER):
        path = damage.write_random_manifest(tmp_path / "m.csv", rng)
        try:
            rows = load_manifest(path, tmp_path)
            assert all(row["noise"] or row["noisy"] for row in rows.values())
            loaded += 1
        except ValueError as error:
            assert str(error).startswith(str(path))
    assert 0 < loaded < NUMBER
