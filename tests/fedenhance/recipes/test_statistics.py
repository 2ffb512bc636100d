"""Laws of the statistics of a prepared corpus."""

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.data.audio import Segment
from fedenhance.data.mixing import input_snr
from fedenhance.data.tables import read_table
from fedenhance.recipes.LibriFSD50K import prepare, statistics


def test_snr_of_known_levels(tmp_path):
    for name, amplitude in (("speech", 0.4), ("quiet", 0.04), ("loud", 0.16)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(64000, amplitude), 16000)
    rows = {
        noise: {
            "spk_id": "1",
            "duration": 4.0,
            "speech": Segment(str(tmp_path / "speech.wav"), 0, 64000),
            "noise": Segment(str(tmp_path / f"{noise}.wav"), 0, 64000),
        }
        for noise in ("quiet", "loud")
    }
    ratios = statistics.input_snrs(rows)
    # 0.4 to 0.04 is 20 dB, 0.4 to 0.16 is 7.96 dB, 0.4 to 0.2 is 6.02 dB
    assert ratios[1] == pytest.approx([20.0, 7.959], abs=0.01)
    assert ratios[2] == pytest.approx([6.021, 6.021], abs=0.01)


def test_silence_is_infinite_and_left_out_of_quartiles():
    assert input_snr(torch.ones(4), torch.zeros(4)) == np.inf
    assert list(statistics.quartiles(np.array([1.0, 1.0, np.inf]))) == [1.0, 1.0, 1.0]


def test_tables_and_figure(shared_corpus, tmp_path):
    record = prepare.prepare(shared_corpus, tmp_path / "m", built_in_corpus=None)
    statistics.main([str(shared_corpus), str(tmp_path / "m"), str(tmp_path / "s")])
    sizes = read_table(tmp_path / "s" / "statistics.csv")
    table = {row["split"]: row for row in sizes}
    for split, counts in record["counts"].items():
        for column in ("chunks", "speakers", "noises", "noise_classes"):
            assert int(table[split][column]) == counts[column]
    classes = read_table(tmp_path / "s" / "noise_classes.csv")
    total = sum(counts["chunks"] for counts in record["counts"].values())
    assert sum(int(row["chunks"]) for row in classes) == total
    assert (tmp_path / "s" / "input_snr.png").read_bytes().startswith(b"\x89PNG")
