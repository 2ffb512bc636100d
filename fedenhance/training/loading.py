"""Reading processes that stay from one part of a dataset to the next."""

import torch
from speechbrain import Brain, Stage
from speechbrain.dataio.dataloader import make_dataloader
from torch.utils.data import Subset


class KeepsProcesses(Brain):
    """A base of Brains that are fitted to one part of a dataset after the other.

    With ``persistent_workers`` among the options of a training loader, its processes
    serve all parts. Results are the same, unless examples depend on random numbers of
    the processes, or on what changes in this one without them (as in any DataLoader
    whose workers persist from epoch to epoch).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loaders = KeptLoaders()

    def make_dataloader(self, dataset, stage, ckpt_prefix="dataloader-", **options):
        """Make a loader, or take one whose processes are there."""
        if stage != Stage.TRAIN or not stays(dataset, options):
            return super().make_dataloader(dataset, stage, ckpt_prefix, **options)
        options = self._train_loader_specifics(dataset, options)
        return self.loaders.get(dataset, options, make_dataloader)

    def end_processes(self):
        """Let the processes end."""
        self.loaders.clear()


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
            A ``Subset``, or a view that has the whole as ``part_of``.
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
    >>> options = {"num_workers": 2, "persistent_workers": True}
    >>> stays(Subset("abc", [2, 0]), options), stays("abc", options)
    (True, False)
    """
    return bool(
        options.get("persistent_workers")
        and options.get("batch_sampler") is None
        and options.get("looped_nominal_epoch") is None
        and whole_of(dataset) is not dataset
    )
