"""Loaders of one client's data, as the recipe makes those of all."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain.dataio.dataloader import LoopedLoader, SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from torch.utils.data import DataLoader, WeightedRandomSampler

from fed.loading import options_of_part, restrict, rows_of, take_apart


def rows(count=8):
    data = {f"r{i}": {"duration": float(i + 1)} for i in range(count)}
    return DynamicItemDataset(data, output_keys=["id", "duration"])


def test_a_ready_loader_is_taken_apart():
    whole = rows()
    loader = SaveableDataLoader(whole, batch_size=3, shuffle=True, drop_last=True)
    dataset, options = take_apart(loader, None)
    assert dataset is whole
    assert (options["batch_size"], options["drop_last"]) == (3, True)
    assert options["shuffle"]
    assert "sampler" not in options


def test_a_loop_keeps_its_length():
    whole = rows()
    dataset, options = take_apart(LoopedLoader(DataLoader(whole, batch_size=2), 5), {})
    assert dataset is whole
    assert options["looped_nominal_epoch"] == 5


def test_a_dynamic_batch_sampler_is_made_anew_of_the_clients_lengths():
    whole = rows()
    sampler = DynamicBatchSampler(whole, max_batch_length=9, num_buckets=2)
    _, options = take_apart(whole, {"batch_sampler": sampler})
    part = restrict(whole, ["r1", "r7", "r4"])
    own = options_of_part(options, part, [1, 7, 4])["batch_sampler"]
    assert sorted(sum(own, [])) == [0, 1, 2]
    assert own.get_durations([0, 1, 2]) == [2.0, 8.0, 5.0]
    assert sorted(sum(sampler, [])) == list(range(8))


@pytest.mark.parametrize("how", ["sampler", "batch_sampler"])
def test_other_samplers_are_refused_by_name(how):
    class Odd(WeightedRandomSampler):
        pass

    with pytest.raises(ValueError, match="Odd"):
        take_apart(rows(), {how: Odd([1.0, 1.0], 2)})


class Stream(torch.utils.data.IterableDataset):
    """A pipeline of stages, as a webdataset has it; shards here are words."""

    def __init__(self, *stages):
        self.pipeline = list(stages)

    def __iter__(self):
        for url in self.pipeline[0].urls:
            yield from url


def test_data_without_rows_are_refused_by_name():
    with pytest.raises(ValueError, match="Stream has no rows"):
        take_apart(Stream(), {})


def test_clients_of_a_webdataset_hold_shards():
    whole = Stream(SimpleNamespace(urls=["ab", "cd", "ef"]), "decode")
    loader = LoopedLoader(DataLoader(whole, batch_size=None, num_workers=4), 7)
    data, options = take_apart(loader, {})
    assert list(rows_of(data)) == ["ab", "cd", "ef"]
    part = restrict(data, ["ab", "ef"])
    assert "".join(part) == "abef"
    assert part.pipeline[1:] == ["decode"]
    own = options_of_part(options, part, [0, 2])
    # No reading process is without a shard.
    assert (own["num_workers"], own["batch_size"]) == (2, None)
    assert own["looped_nominal_epoch"] == 7
    assert "".join(whole) == "abcdef"
