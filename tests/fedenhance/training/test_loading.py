"""Reading processes that stay from client to client."""

import multiprocessing
import os

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import Subset

from fed.arrays import get_arrays, set_arrays
from fed.loading import restrict
from fedenhance.training.loading import (
    KeepsProcesses,
    KeptLoaders,
    stays,
    whole_of,
)
from tests.fed import recipe
from tests.fed.conftest import joined

KEPT = {"batch_size": 4, "shuffle": True, "num_workers": 2, "persistent_workers": True}


class Keeping(KeepsProcesses, recipe.Regression):
    """Fits targets, with processes that stay."""


@pytest.fixture
def brain():
    return joined(Keeping)


@pytest.fixture
def data():
    return recipe.datasets({"train_size": 16})["train"]


class Processes(torch.utils.data.Dataset):
    """Gives its indices, and which process reads them."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 9:
            raise OSError("disk")
        return index, os.getpid()


def read(loaders, client_set, **options):
    options = {"num_workers": 1, "persistent_workers": True, **options}
    loader = loaders.get(client_set, options, torch.utils.data.DataLoader)
    indices, processes = zip(*loader, strict=True)
    return torch.cat(indices).tolist(), set(torch.cat(processes).tolist())


def test_processes_stay_and_read_what_the_client_holds():
    loaders, whole = KeptLoaders(), Processes()
    first, process = read(loaders, Subset(whole, [3, 1, 2]))
    second, same = read(loaders, Subset(whole, [8, 3]), sampler=[1, 0])
    third, again = read(loaders, whole, sampler=[0, 5])
    assert (first, second, third) == ([3, 1, 2], [3, 8], [0, 5])
    assert process == same == again
    assert os.getpid() not in process


def test_other_options_and_other_data_have_processes_of_their_own():
    loaders, whole = KeptLoaders(), Processes()
    _, process = read(loaders, Subset(whole, [0]))
    _, other_options = read(loaders, Subset(whole, [0]), batch_size=2)
    _, other_data = read(loaders, Subset(Processes(), [0]))
    assert len(process | other_options | other_data) == 3
    left = {child.pid for child in multiprocessing.active_children()}
    assert left & (process | other_options | other_data) == other_options | other_data


def test_views_of_a_dataset_are_found_by_their_ids():
    rows = {name: {"value": i} for i, name in enumerate("abcd")}
    whole = DynamicItemDataset(rows, output_keys=["id", "value"])
    loaders, options = KeptLoaders(), {"batch_size": None}
    for ids in (["c", "a"], ["d"]):
        loader = loaders.get(restrict(whole, ids), options, torch.utils.data.DataLoader)
        assert [item["id"] for item in loader] == ids
        assert len(loader) == len(ids)


def test_results_are_those_of_fresh_processes(brain, data):
    arrays = []
    start = get_arrays(brain)
    for options in (KEPT, {**KEPT, "persistent_workers": False}):
        set_arrays(brain, start)
        torch.manual_seed(0)
        for ids in (data.data_ids[:8], data.data_ids[4:]):
            brain.local_update(restrict(data, ids), options, 1, 2)
        arrays.append((get_arrays(brain), torch.rand(1)))
    (kept, drawn), (fresh, drawn_fresh) = arrays
    assert all((kept[name] == fresh[name]).all() for name in start)
    assert drawn == drawn_fresh


def test_a_failure_does_not_keep_its_processes(brain):
    options = {"num_workers": 1, "persistent_workers": True}
    with pytest.raises(OSError, match="disk"):
        brain.local_update(Subset(Processes(), [9]), options, 1, 1)
    assert not brain.loaders.kept


@pytest.mark.parametrize("epochs", [1, 0.5])
def test_an_epoch_that_is_left_early_does_not_keep_its_processes(brain, data, epochs):
    part = restrict(data, data.data_ids[:8])
    brain.local_update(part, {**KEPT, "batch_size": 2}, 1, epochs)
    assert len(brain.loaders.kept) == (1 if epochs == 1 else 0)


def test_parts_of_parts_share_the_whole():
    rows = {name: {"value": i} for i, name in enumerate("abcd")}
    whole = DynamicItemDataset(rows, output_keys=["id", "value"])
    assert whole_of(restrict(restrict(whole, ["a", "c"]), ["c"])) is whole


def test_what_a_recipe_does_to_a_subset_is_done():
    class Doubled(Subset):
        def __getitem__(self, index):
            number, process = super().__getitem__(index)
            return 2 * number, process

        def __getitems__(self, indices):
            return [self[index] for index in indices]

    loaders = KeptLoaders()
    assert read(loaders, Doubled(Processes(), [3, 1]))[0] == [6, 2]


def test_what_cannot_be_asked_by_place_is_loaded_anew():
    options = {"num_workers": 1, "persistent_workers": True}
    part = Subset([1, 2], [0])
    assert stays(part, options)
    assert not stays(part, {**options, "batch_sampler": [[0]]})
    assert not stays(part, {**options, "looped_nominal_epoch": 2})
    assert not stays(part, {"num_workers": 1})
    assert not stays(part.dataset, options)
