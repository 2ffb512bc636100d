"""Loaders of what one client holds, made as the recipe makes those of all data."""

import copy

from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

LOADERS = (DataLoader, LoopedLoader)
OPTIONS = (
    "num_workers collate_fn pin_memory timeout worker_init_fn prefetch_factor "
    "persistent_workers multiprocessing_context generator"
).split()
"""Attributes of a loader that its constructor takes."""


def take_apart(data, options):
    """Finds the dataset of a loader, and the options that make such loaders.

    Arguments
    ---------
    data : Dataset, DataLoader or LoopedLoader
        What a recipe gives to ``fit()``.
    options : dict
        What it gives as options of the loader.

    Returns
    -------
    Dataset
    dict

    Raises
    ------
    ValueError
        When no loader of a client can be made like it.
    """
    options = dict(options or {})
    if data is None:
        return data, options
    if isinstance(data, LoopedLoader):
        options["looped_nominal_epoch"] = data.epoch_length
        data = data.loader
    if isinstance(data, DataLoader):
        options |= {name: getattr(data, name) for name in OPTIONS}
        if type(data.batch_sampler) is BatchSampler:
            options["batch_size"] = data.batch_size
            options["drop_last"] = data.drop_last
            options["sampler"] = data.sampler
        elif data.batch_sampler is not None:
            options["batch_sampler"] = data.batch_sampler
        data = data.dataset
    sampler = options.get("sampler")
    if isinstance(sampler, (RandomSampler, ReproducibleRandomSampler)):
        options["shuffle"] = True
    elif not (sampler is None or type(sampler) is SequentialSampler):
        raise ValueError(f"No {type(sampler).__name__} of a client's data can be made.")
    options.pop("sampler", None)
    sampler = options.get("batch_sampler")
    if not (sampler is None or isinstance(sampler, DynamicBatchSampler)):
        raise ValueError(f"No {type(sampler).__name__} of a client's data can be made.")
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        raise ValueError(
            f"A {type(data).__name__} has no rows to deal to clients: only datasets of "
            "known length can be federated."
        )
    return data, options


def restrict(dataset, ids):
    """Makes a view of some rows; it shares rows and pipeline, and costs nothing."""
    if not hasattr(dataset, "data_ids"):
        return Subset(dataset, ids)
    view = copy.copy(dataset)
    view.data_ids, view.part_of = ids, dataset
    return view


def options_of_part(options, part, places):
    """Make the options of a client's loader.

    Arguments
    ---------
    options : dict
        Of the loader of all data.
    part : Dataset
        What the client holds.
    places : list of int
        Of it in the whole.

    Returns
    -------
    dict
    """
    options = dict(options)
    if options.get("batch_sampler") is not None:
        sampler = options["batch_sampler"] = copy.copy(options["batch_sampler"])
        lengths = sampler._ex_lengths
        sampler._dataset = part
        sampler._ex_lengths = {str(i): lengths[str(p)] for i, p in enumerate(places)}
        sampler._generate_batches()
    return options
