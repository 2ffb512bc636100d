"""Time to quality: what is timed, and what the original's settings change."""

import pytest
import torch

from benchmarks import original, quality
from fed.partition import by_column
from fedenhance.data.datasets import dataio_prepare
from fedenhance.data.mixing import MixtureOfMixtures


def test_copies_are_kept_evenly_until_the_time_is_up():
    ticks = iter([0, 0, 0, 1, 5, 5, 6, 30, 30])  # two looks where a copy is made
    snapshots = quality.Snapshots(seconds=10, points=2, clock=lambda: next(ticks))
    module = torch.nn.Linear(1, 1)
    for _ in range(4):
        snapshots(module)
    with pytest.raises(quality.TimeIsUp):
        snapshots(module)
    assert [seconds for seconds, _ in snapshots.kept] == [0, 5, 30]


def test_a_copy_does_not_change_with_the_network():
    snapshots = quality.Snapshots(seconds=1, points=1, clock=lambda: 0.0)
    module = torch.nn.Linear(1, 1)
    snapshots(module)
    torch.nn.init.constant_(module.weight, 7.0)
    assert snapshots.kept[0][1]["weight"].item() != 7.0


def test_the_original_reads_the_same_recordings_of_the_same_clients(
    tiny_corpus, tmp_path
):
    hparams = {
        "manifest_folder": tiny_corpus,
        "data_folder": tiny_corpus,
        "output_folder": tmp_path,
        "available_speech_percentage": 0.5,
        "partition": lambda rows: by_column(rows, "spk_id"),
        "client_groups": {"supervised": 0.5},
        "p_labelled": 1.0,
        "noise_folder": None,
        "valid_size": 1,
        "test_size": 1,
        "seed": 0,
        "mixing": MixtureOfMixtures(segment=0.5),
    }
    theirs = quality.read_as_the_original(hparams)
    ours = dataio_prepare(hparams)
    assert isinstance(theirs["train"], original.WholeFiles)
    assert theirs["test"].data_ids == ours["test"].data_ids

    def held(dataset):
        rows = [dataset.data[i] for i in dataset.data_ids]
        return sorted((row["client"], row["group"]) for row in rows)

    assert held(theirs["train"]) == held(ours["train"])
