"""What clients hold in the federation without references, and what is told of it."""

import json

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import self_training
from fedenhance.based_yaml import load_hparams
from fedenhance.data.audio import Segment, read_segment
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.data.tables import read_table
from fedenhance.deploy.trained import Trained
from fedenhance.networks.gtcrn_authors import to_theirs


@pytest.fixture
def rows(tmp_path):
    """Three recordings of one client, and a noise of its own."""
    draws, found = np.random.default_rng(0), {}
    for name, scale in (("speech", 0.1), ("noise", 0.3)):
        soundfile.write(
            tmp_path / f"{name}.wav", scale * draws.standard_normal(4000), 16000
        )
    speech, noise = (
        Segment(str(tmp_path / f"{n}.wav"), 0, 1600) for n in ("speech", "noise")
    )
    row = {"duration": 0.1, "client": "0", "noisy": None, "noise": noise}
    for key in "abc":
        found[key] = {**row, "speech": speech}
    found["a"]["noise"] = Segment(noise.path, 1600, 3200)
    found["alone"] = {**row, "speech": None}
    return found


def test_clients_hold_sums_and_no_parts(rows, tmp_path):
    held = self_training.recorded(rows, tmp_path / "held")
    assert held.pop("alone") == rows["alone"]
    assert all(not (row["speech"] or row["noise"]) for row in held.values())
    for key, row in held.items():
        speech, noise, sum_ = (
            read_segment(*part, 16000, 1600).numpy()
            for part in (rows[key]["speech"], rows[key]["noise"], row["noisy"])
        )
        parts = np.stack([speech, noise, np.ones_like(speech)], axis=1)
        gains, rest, *_ = np.linalg.lstsq(parts, sum_, rcond=None)
        ratio = np.var(gains[0] * speech) / np.var(gains[1] * noise)
        assert rest.sum() / np.square(sum_).sum() < 1e-5
        assert -5.01 < 10 * np.log10(ratio) < 10.01


def test_recordings_are_made_once_and_others_with_other_parts(rows, tmp_path):
    first = self_training.recorded(rows, tmp_path / "held")
    path = first["a"]["noisy"].path
    soundfile.write(path, np.zeros(1600), 16000)
    again = self_training.recorded(rows, tmp_path / "held")
    assert again == first and not soundfile.read(path)[0].any()
    rows["a"]["noise"] = rows["b"]["noise"]
    assert self_training.recorded(rows, tmp_path / "held")["a"] != first["a"]


class Half(torch.nn.Module):
    """Half of the mixture is speech."""

    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, mixture):
        return torch.stack([self.share * mixture, (1 - self.share) * mixture], dim=1)


def test_training_has_estimates_unless_it_may_have_the_truth(
    rows, tmp_path, monkeypatch
):
    rows = {key: {**row, "group": "supervised"} for key, row in rows.items()}
    module = self_training.datasets
    monkeypatch.setattr(module, "dataio_prepare", lambda _: {"train": 1, "valid": 2})
    monkeypatch.setattr(module, "client_rows", lambda _: rows)
    hparams = {"references": False, "cleanest": 1.0, "work": str(tmp_path)}
    hparams |= {"start_model": Trained(Half(), None, 16000, {})}
    hparams |= {"mixing": MixtureOfMixtures(segment=0.1)}
    sets = self_training.dataio_prepare(hparams)
    assert sets["valid"] == 2 and list(sets["train"].data_ids) == ["a", "b", "c"]
    held = self_training.recorded(rows, tmp_path / "recordings")
    for number, key in enumerate("abc"):
        recording = read_segment(*held[key]["noisy"], 16000, 1600)
        speech, own, extra = sets["train"][number]["sources"]
        half = (recording - recording.mean()) / 2
        assert torch.allclose(speech, half, atol=1e-3)
        assert extra.any() and not own.any()
    assert self_training.dataio_prepare({"references": True})["train"] == 1


def test_its_yaml_starts_from_a_published_checkpoint(tmp_path):
    settings = {"data_folder": str(tmp_path), "work": str(tmp_path)}
    separator = load_hparams(
        "hparams/fedenhance.yaml", "models: !include:models/gtcrn.yaml"
    )
    theirs = to_theirs(separator["modules"]["separator"].state_dict())
    torch.save({"model": theirs}, tmp_path / "theirs.tar")
    start = self_training.write_start(tmp_path / "theirs.tar", tmp_path / "weights")
    hparams = load_hparams(
        self_training.YAML, json.dumps({**settings, "initial_model": str(start)})
    )
    waves = torch.randn(1, 1600)
    expected = separator["modules"]["separator"].eval()(waves)
    assert torch.allclose(hparams["start_model"](waves), expected, atol=1e-5)
    assert hparams["federation"].initial_model == str(start)


def test_the_recordings_of_the_peers_are_among_those_of_the_test():
    rows = [
        {"id": f"{i:02d}-1-{n}", "n_noises": n, "si_sdri": i + n}
        for i in range(40)
        for n in (1, 2)
    ]
    test, peers = self_training.by_part(rows)
    assert test == {"part": "test", "si_sdri_1": 20.5, "si_sdri_2": 21.5}
    assert peers == {"part": "peers", "si_sdri_1": 20.0, "si_sdri_2": 21.0}


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    runs, scores = [], {"si_sdri_1": "7", "si_sdri_2": "8"}
    monkeypatch.setattr(self_training.measuring, "begin", lambda args: None)
    monkeypatch.setattr(self_training, "write_start", lambda *_: None)

    def found(gains, **row):
        for part, gain in zip(("valid", "valid", "test", "peers"), gains, strict=True):
            better = {key: float(value) + gain for key, value in scores.items()}
            yield {"round": 50, "part": part, **better}

    monkeypatch.setattr(self_training, "found_of_start", lambda *_: found([0] * 4))
    monkeypatch.setattr(self_training, "found_by", lambda _: found([1, 0.75, 0.5, 2]))
    monkeypatch.setattr(self_training, "run", lambda *words: runs.append(words))
    words = ["--out", tmp_path / "a.csv", "--work", tmp_path, "--checkpoint", "x"]
    words += ["--methods", "estimates", "--seeds", "1", "2"]
    for _ in range(2):
        self_training.main([str(word) for word in words])
    assert [words[2] for words in runs] == [1, 2]
    assert "| estimates | 2 | 7.50" in (told := capsys.readouterr().out)
    assert "| 0.50 ± 0.00 | 0.50 | 0.25 | 0 |" in told
    assert len(read_table(tmp_path / "a.csv")) == 12
