"""Reading processes that stay from client to client."""

import torch
from torch.utils.data import IterableDataset, Subset


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
            Of ``fed.site.restrict``, or one that no other client shares.
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
        order = range(len(client_set)) if order is None else order
        whole = whole_of(client_set)
        found = [k for k in self.kept if k.whole is whole and k.options == options]
        kept = found[0] if found else Kept(whole, options, make)
        others = [k for k in self.kept if k is not kept]
        self.kept = [kept, *others][: self.most]
        kept.choose(client_set, order)
        return kept.loader

    def clear(self):
        """Let all processes end."""
        self.kept = []


class Kept:
    """A loader of a dataset, with a sampler of the examples that it is told to choose.

    Arguments
    ---------
    whole : Dataset
    options : dict
    make : callable
        As for :meth:`KeptLoaders.get`.
    """

    def __init__(self, whole, options, make):
        self.whole, self.options = whole, dict(options)
        self.sampler = Places()
        self.loader = make(whole, sampler=self.sampler, **options)
        ids = getattr(whole, "data_ids", ())
        self.place_of = {key: place for place, key in enumerate(ids)}

    def choose(self, client_set, order):
        """Load the examples of one client from now on, in some order."""
        if type(client_set) is Subset:
            places = client_set.indices
        elif self.place_of:
            places = [self.place_of[key] for key in client_set.data_ids]
        else:
            places = range(len(client_set))
        self.sampler.order, self.sampler.places = order, places


class Places:
    """Yields the places of one client's examples in the dataset that all share.

    Attributes
    ----------
    order : sequence or Sampler of int
        Of the examples within the client.
    places : sequence of int
        Of the client's examples in the dataset.
    """

    order, places = (), ()
    started = False

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
