"""Loaders of what one client holds, made as the recipe makes those of all data."""

import copy

from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
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
OPTIONS_OF = (
    "{}_dataloader_opts",
    "{}_dataloader_options",
    "dataloader_options",
    "dataloader_opts",
)
"""Names that YAML gives to the options of a dataset's loader."""


def loader_options(hparams, key):
    """Finds the options of a dataset's loader in YAML, by SpeechBrain's usual names."""
    names = [pattern.format(key) for pattern in OPTIONS_OF]
    return next((dict(hparams[name]) for name in names if name in hparams), {})


def as_dict(datasets):
    """Names the datasets that a recipe returns: a dict, or a tuple in usual order.

    Validation data may be called ``dev`` as well.
    """
    if not isinstance(datasets, dict):
        sets = datasets if isinstance(datasets, (tuple, list)) else [datasets]
        if isinstance(sets[0], dict):  # (datasets, label_encoder)
            return as_dict(sets[0])
        sets = [s for s in sets if isinstance(s, (Dataset, dict))]
        datasets = dict(zip(("train", "valid", "test"), sets, strict=False))
    return {"valid" if name == "dev" else name: s for name, s in datasets.items()}


def rows_of(dataset):
    """Lists the rows of a dataset by id.

    Of any torch Dataset they are its numbers; of a webdataset, its shards.
    """
    if hasattr(dataset, "data_ids"):
        return {i: dataset.data[i] for i in dataset.data_ids}
    return {i: {} for i in shards(dataset) or range(len(dataset))}


def shards(dataset):
    """Lists the addresses of a webdataset's shards; of other data, none.

    Its first stage, which lists them, has them in ``urls``.
    """
    stages = getattr(dataset, "pipeline", None)
    first = stages[0] if isinstance(stages, list) and stages else None
    return list(getattr(first, "urls", []))


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
        if isinstance(data.dataset, IterableDataset):
            options |= {"batch_size": data.batch_size, "drop_last": data.drop_last}
        elif data.batch_sampler is None:  # the dataset makes the batches
            options["batch_size"] = None
        elif type(data.batch_sampler) is BatchSampler:
            options["batch_size"] = data.batch_size
            options["drop_last"] = data.drop_last
            options["sampler"] = data.sampler
        else:
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
    endless = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    if endless and not shards(data):
        raise ValueError(
            f"A {type(data).__name__} has no rows to deal to clients: only datasets of "
            "known length, or webdatasets of several shards, can be federated."
        )
    return data, options


def holders(brain, given, whole):
    """Find the attributes of a Brain that are the training data of all.

    Recipes with a ``fit()`` within ``fit()`` keep them there. Whoever trains has its
    own data in their place.

    Arguments
    ---------
    brain : Brain
    given : Dataset or DataLoader
        What ``fit()`` was called with.
    whole : Dataset
        Of it.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        When it is a loader, which is not made anew.
    """
    if whole is None:
        return []
    kept = [name for name, value in vars(brain).items() if value is given]
    if kept and given is not whole:
        raise ValueError(
            f"{type(brain).__name__}.{kept[0]} is the loader of all training data, "
            "which no client may see; keep the dataset there."
        )
    return [name for name, value in vars(brain).items() if value is whole]


def restrict(dataset, ids):
    """Makes a view of some rows; it shares rows and pipeline, and costs nothing."""
    if not (hasattr(dataset, "data_ids") or shards(dataset)):
        return Subset(dataset, ids)
    view = copy.copy(dataset)
    if shards(dataset):
        source, *stages = dataset.pipeline
        source = copy.copy(source)
        source.urls, view.pipeline = ids, [source, *stages]
        return view
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
    if own := shards(part):  # a process without a shard would fail
        options["num_workers"] = min(options.get("num_workers", 0), len(own))
    if options.get("batch_sampler") is not None:
        sampler = options["batch_sampler"] = copy.copy(options["batch_sampler"])
        lengths = sampler._ex_lengths
        sampler._dataset = part
        sampler._ex_lengths = {str(i): lengths[str(p)] for i, p in enumerate(places)}
        sampler._generate_batches()
    return options
