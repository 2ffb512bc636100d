"""A SpeechBrain Brain as Flower's NumPyClient, as its tutorials write one."""

import torch
from flwr.client import NumPyClient
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.server import Server
from flwr.server.strategy import FedAvg


class Client(NumPyClient):
    """Trains the Brain on the data of one client.

    Arguments
    ---------
    brain : speechbrain.Brain
    train_set : Dataset
        Of this client.
    loader_options : dict
    """

    def __init__(self, brain, train_set, loader_options):
        self.brain = brain
        self.train_set = train_set
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
        options = dict(self.loader_options)
        self.brain.fit(
            range(1), self.train_set, progressbar=False, train_loader_kwargs=options
        )
        return self.get_parameters(config), len(self.train_set), {}


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

    def get_parameters(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.get_parameters(ins)

    def fit(self, ins, timeout, group_id):
        """Pass the call on."""
        return self.client.fit(ins)

    def evaluate(self, *_):
        """The server is told to evaluate nobody."""
        raise NotImplementedError

    get_properties = reconnect = evaluate


def serve(brain, train_sets, loader_options, fraction, rounds, note):
    """Let Flower's server average what clients train, one after the other.

    Arguments
    ---------
    brain : speechbrain.Brain
        Of all clients.
    train_sets : list of Dataset
        One a client.
    loader_options : dict
    fraction : float
        Of the clients in each round.
    rounds : int
    note : callable
        Called at the start of each round.
    """
    manager = SimpleClientManager()
    for number, train_set in enumerate(train_sets):
        client = Client(brain, train_set, loader_options)
        manager.register(Proxy(str(number), client.to_client()))
    strategy = FedAvg(
        fraction_fit=fraction,
        fraction_evaluate=0.0,
        min_fit_clients=1,
        min_available_clients=len(train_sets),
        on_fit_config_fn=lambda _: note() or {},
    )
    server = Server(client_manager=manager, strategy=strategy)
    server.set_max_workers(1)
    server.fit(rounds, timeout=None)
