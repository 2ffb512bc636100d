"""Reading processes that stay from client to client."""

import torch
from torch.utils.data import IterableDataset, Subset


class KeptLoaders:
    """Loaders with ``persistent_workers``, one for each dataset that clients share.

    The processes of a DataLoader belong to its dataset. So that they can stay, they get
    the examples of all clients, and are asked for those of one by their places.
    """

    def __init__(self):
        self.kept = {}

    def get(self, client_set, options, make):
        """Find or make the loader of one client; it is this client's until the next.

        Arguments
        ---------
        client_set : Dataset
            Of ``fed.experiment.restrict``, or one that no other client shares.
        options : dict
            Of the loader; ``sampler``, if it is there, orders ``client_set``.
        make : callable
            ``(dataset, **options) -> DataLoader``, for the first client.

        Returns
        -------
        DataLoader
        """
        options = dict(options)
        order = options.pop("sampler", None) or range(len(client_set))
        whole = whole_of(client_set)
        kept = self.kept.get(id(whole))
        if kept is None or kept.options != options:
            kept = self.kept[id(whole)] = Kept(whole, options, make)
        kept.choose(client_set, order)
        return kept.loader

    def clear(self):
        """Let all processes end."""
        self.kept.clear()


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
        self.options = dict(options)
        self.sampler = Places()
        self.loader = make(whole, sampler=self.sampler, **options)
        self.started = False
        ids = getattr(whole, "data_ids", ())
        self.place_of = {key: place for place, key in enumerate(ids)}

    def choose(self, client_set, order):
        """Load the examples of one client from now on, in some order."""
        if self.started:
            # A new loader would draw the seed of its processes here; whatever else is
            # random shall not depend on whether there was a client before.
            torch.empty((), dtype=torch.int64).random_()
        self.started = True
        if isinstance(client_set, Subset):
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

    def __iter__(self):
        return (self.places[i] for i in self.order)

    def __len__(self):
        return len(self.order)


def whole_of(dataset):
    """Return the dataset that a client's is a part of; itself, if of none.

    Example
    -------
    >>> whole_of(Subset("abc", [2, 0]))
    'abc'
    """
    if isinstance(dataset, Subset):
        return dataset.dataset
    return getattr(dataset, "part_of", dataset)


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
        and not isinstance(dataset, IterableDataset)
    )
