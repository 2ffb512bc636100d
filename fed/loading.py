"""Loaders of what one client holds, made as the recipe makes those of all data."""

import copy

import torch
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


class KeptLoaders:
    """Loaders with ``persistent_workers``, of datasets that clients share.

    The processes of a DataLoader belong to its dataset. So that they can stay, they get
    the examples of all clients, and are asked for those of one by their places. They
    end with :meth:`clear`, or when loaders of ``most`` other datasets are made.

    Arguments
    ---------
    most : int
        Loaders that are kept: one of the clients, one of the server's own training.
    """

    def __init__(self, most=2):
        self.most = most
        self.kept = []

    def get(self, client_set, options, make):
        """Find or make the loader of one client; it is this client's until the next.

        Arguments
        ---------
        client_set : Dataset
            Of :func:`restrict`, or one that no other client shares.
        options : dict
            Of the loader; ``sampler``, if it is there, orders ``client_set``.
        make : callable
            ``(dataset, **options) -> DataLoader``, for the first client.

        Returns
        -------
        DataLoader
        """
        options = dict(options)
        order = options.pop("sampler", None)
        whole = whole_of(client_set)
        same = [k for k in self.kept if k[0] is whole and k[1] == options]
        if not same:
            places = Places(whole)
            same = [(whole, options, make(whole, sampler=places, **options), places)]
        others = [k for k in self.kept if k is not same[0]]
        self.kept = [same[0], *others][: self.most]
        _, _, loader, places = same[0]
        places.choose(client_set, order)
        return loader

    def clear(self):
        """Let all processes end."""
        self.kept = []


class Places:
    """Yields the places of one client's examples in the dataset that all share.

    Arguments
    ---------
    whole : Dataset
    """

    def __init__(self, whole):
        ids = getattr(whole, "data_ids", ())
        self.place_of = {key: place for place, key in enumerate(ids)}
        self.started = False

    def choose(self, client_set, order=None):
        """Yield the examples of one client from now on, in some order."""
        self.order = range(len(client_set)) if order is None else order
        if type(client_set) is Subset:
            self.places = client_set.indices
        elif self.place_of:
            self.places = [self.place_of[key] for key in client_set.data_ids]
        else:
            self.places = range(len(client_set))

    def __iter__(self):
        if self.started:
            # A new loader draws a seed for its processes. Whatever else is random
            # shall not depend on whether this one is new.
            torch.empty((), dtype=torch.int64).random_()
        self.started = True
        for i in self.order:
            yield self.places[i]

    def __len__(self):
        return len(self.order)


def whole_of(dataset):
    """Return the dataset that a client's is a part of; itself, if of none.

    Example
    -------
    >>> whole_of(Subset("abc", [2, 0]))
    'abc'
    """
    if type(dataset) is Subset:
        return dataset.dataset
    while hasattr(dataset, "part_of"):
        dataset = dataset.part_of
    return dataset


def stays(dataset, options):
    """Tell whether a loader's options ask for processes that stay, and they can.

    Example
    -------
    >>> stays("abc", {"num_workers": 2, "persistent_workers": True})
    True
    """
    return bool(
        options.get("persistent_workers")
        and options.get("batch_sampler") is None
        and options.get("looped_nominal_epoch") is None
        and not isinstance(dataset, IterableDataset)
    )
