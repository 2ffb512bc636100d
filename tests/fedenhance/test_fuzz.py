"""Damage at random, all the way through: named, counted, and never the end of a run.

``FUZZ=1000 pytest tests/fedenhance/test_fuzz.py`` tries more than sixty of each.
"""

import os

import numpy as np
import pytest
import torch

from fedenhance.commands import enhance, evaluate
from fedenhance.data.audio import read_segment
from fedenhance.data.datasets import collate, dataio_prepare
from fedenhance.data.manifests import load_manifest
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import read_table, write_table
from fedenhance.recipes.CommonVoice.ASR import prepare as common_voice
from fedenhance.training.separation import Separation
from tests import damage
from tests.damage import RATE
from tests.fedenhance.commands.test_evaluate import save_run
from tests.fedenhance.training.test_separation import TinySeparator

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


def test_enhance_names_and_counts_all(folder, tmp_path, capsys):
    run = save_run(tmp_path / "run", tmp_path, "LowPass")
    out = tmp_path / "out"
    number = enhance.main([str(run), str(folder / "clips"), "--out", str(out)])
    printed = capsys.readouterr()
    written = {path.name for path in out.rglob("*") if path.is_file()}
    for path in (folder / "clips").iterdir():
        done = path.name in written or path.suffix == ".npy" or path.is_dir()
        assert done or str(path) in printed.err, path
    assert f"{len(written)} enhanced, 0 there already, {number} damaged" in printed.out


def test_training_and_evaluation_skip_and_count(folder, damaged, hparams, tmp_path):
    names = sorted(path.name for path in (folder / "clips").iterdir())
    rows = [
        {"ID": name, "spk_id": f"p{i % 2}", "noisy": f"$data_root/clips/{name}"}
        for i, name in enumerate(names)
    ]
    for split in ("train", "valid", "test"):
        write_table(tmp_path / f"{split}.csv", rows)
    hparams |= {
        "data_folder": str(folder),
        "manifest_folder": str(tmp_path),
        "noise_folder": str(folder),
        "mixing": MixtureOfMixtures(sample_rate=RATE, segment=1.0, snr_range=(0, 5)),
    }
    datasets = dataio_prepare(hparams)
    brain = Separation(
        modules={"separator": TinySeparator()},
        opt_class=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
    )
    options = {"batch_size": 8, "collate_fn": collate}
    loaders = {"train_loader_kwargs": options, "valid_loader_kwargs": options}
    brain.fit([1], datasets["train"], datasets["valid"], **loaders)
    line = hparams["train_logger"].lines[0]
    assert line["train"]["skipped"] >= len(damaged)
    assert brain.num_examples + line["train"]["skipped"] == len(names)
    assert np.isfinite(line["train"]["loss"]) and np.isfinite(line["valid"]["loss"])
    run = save_run(tmp_path / "run", folder)
    mixtures = str(tmp_path / "test_mixtures.csv")
    evaluate.main([str(run), "--test_mixtures", mixtures, "--processes", "1"])


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
