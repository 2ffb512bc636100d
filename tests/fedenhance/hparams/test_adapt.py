"""From a bare folder to a model that is kept, or not: ``hparams/adapt.yaml``."""

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.commands import train
from fedenhance.data.tables import read_json, read_table
from fedenhance.deploy.trained import load_trained

FILES = {
    "three recordings of one person": {
        "long.wav": (16000, 1, 7.3),
        "short.flac": (8000, 1, 2.1),
        "stereo.ogg": (48000, 2, 4.6),
    },
    "two people, many formats": {
        "ann/1.wav": (44100, 2, 2.3),
        "ann/2.flac": (16000, 1, 3.1),
        "ann/3.ogg": (48000, 1, 2.0),
        "ann/4.mp3": (22050, 1, 2.6),
        "bob/1.aiff": (32000, 1, 3.7),
        "bob/2.wav": (8000, 1, 2.2),
        "bob/3.wav": (16000, 6, 2.5),
        "bob/4.flac": (96000, 2, 2.9),
    },
}


def write(folder, files):
    """Write buzzing voices in noise."""
    rng = np.random.default_rng(0)
    for number, (name, (rate, channels, seconds)) in enumerate(files.items()):
        time = np.arange(round(rate * seconds)) / rate
        voice = np.sign(np.sin(2 * np.pi * (100 + 10 * number) * time))
        voice *= 0.1 * (np.sin(2 * np.pi * 2 * time) > 0)
        noise = rng.normal(0, 0.03, (len(time), channels))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, voice[:, None] + noise, rate)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_of_recordings_becomes_a_model(name, tmp_path):
    files, out = FILES[name], tmp_path / "out"
    write(tmp_path / "recordings", files)
    settings = {
        "recordings": tmp_path / "recordings",
        "output_folder": out,
        "rounds": 1,
        "local_epoch_p": 0.5,
        "judge": "null",  # DNSMOS is tested by itself
    }
    words = [f"--{key}={value}" for key, value in settings.items()]
    train.main(["hparams/adapt.yaml", "--noprogressbar", *words])
    rows = [
        row
        for split in ("train", "valid", "test")
        for row in read_table(out / "manifests" / f"{split}.csv")
    ]
    assert {row["source"] for row in rows} == {*files}
    assert len({row["spk_id"] for row in rows}) == len(
        {n[:3] for n in files if "/" in n} or {1}
    )
    seconds = sum(length for *_, length in files.values())
    assert sum(float(row["duration"]) for row in rows) == pytest.approx(
        seconds, abs=0.5
    )
    verdict = read_json(out / "verdict.json")
    assert verdict["sentence"] in (out / "report.html").read_text(encoding="utf-8")
    assert [row["round"] for row in read_table(out / "rounds.csv")] == ["1"]
    model, start = load_trained(out), load_trained("gtcrn")
    same = all(
        torch.equal(weight, start.separator.state_dict()[key])
        for key, weight in model.separator.state_dict().items()
    )
    assert same is not verdict["kept"]
