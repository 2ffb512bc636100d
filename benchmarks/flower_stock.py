"""A SpeechBrain Brain as Flower's NumPyClient, as its tutorials write one."""

import torch
from flwr.client import NumPyClient
from flwr.server.client_proxy import ClientProxy

from fed.site import restrict


class Client(NumPyClient):
    """Trains the Brain on some rows of a dataset.

    Arguments
    ---------
    brain : speechbrain.Brain
    train_set : Dataset
    ids : list
        Rows of this client.
    loader_options : dict
    """

    def __init__(self, brain, train_set, ids, loader_options):
        self.brain = brain
        self.train_set = train_set
        self.ids = ids
        self.loader_options = loader_options

    def get_parameters(self, config):
        """Return all weights and buffers, in their order."""
        state = self.brain.modules.state_dict()
        return [weight.numpy(force=True) for weight in state.values()]

    def fit(self, parameters, config):
        """Load the weights, train for an epoch, return the weights."""
        names = self.brain.modules.state_dict()
        weights = map(torch.from_numpy, parameters)
        self.brain.modules.load_state_dict(dict(zip(names, weights, strict=True)))
        view = restrict(self.train_set, self.ids)
        options = dict(self.loader_options)
        self.brain.fit(range(1), view, progressbar=False, train_loader_kwargs=options)
        return self.get_parameters(config), len(view), {}


class Proxy(ClientProxy):
    """Calls a client in this process.

    Arguments
    ---------
    cid : str
    client : flwr.client.Client
    """

    def __init__(self, cid, client):
        super().__init__(cid)
        self.client = client

    def get_properties(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.get_properties(ins)

    def get_parameters(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.get_parameters(ins)

    def fit(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.fit(ins)

    def evaluate(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.evaluate(ins)

    def reconnect(self, ins, timeout, group_id):
        """There is no connection."""
        raise NotImplementedError
