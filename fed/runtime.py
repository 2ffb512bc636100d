"""Three ways to run the same ServerApp and ClientApp."""

import os
from collections import defaultdict
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity
from speechbrain.utils.logger import get_logger

from fed.client import app as client_app

logger = get_logger(__name__)

# Flower and Ray call home unless told not to.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class ProcessGrid(Grid):
    """Calls the ClientApp in this process, one message after the other.

    Replies are made when they are asked for, so that only one is in memory.

    Arguments
    ---------
    num_nodes : int
        Nodes have the ids 1, 2, ...
    """

    def __init__(self, num_nodes):
        self.num_nodes = num_nodes
        self.pushed = {}
        self.states = defaultdict(RecordDict)  # what nodes keep between messages
        # A Message needs to know its sender, which Flower sets in its own processes.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    def set_run(self, run):
        """Do nothing: there is one run."""

    @property
    def run(self):
        """There is no record of the run."""
        return None

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        """Make a message; deprecated by Flower."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        """Return the ids of all nodes."""
        return range(1, self.num_nodes + 1)

    def context(self, node_id):
        """Return what a node knows when it gets a message."""
        return Context(1, node_id, {}, self.states[node_id], {})

    def push_messages(self, messages):
        """Give each message an id, by which its reply can be pulled."""
        for message in messages:
            key = message.metadata.__dict__["_message_id"] = str(uuid4())
            self.pushed[key] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids):
        """Yield the replies, made now."""
        for key in message_ids:
            message = self.pushed.pop(key)
            try:
                reply = client_app(message, self.context(message.metadata.dst_node_id))
            except Exception as error:  # a client's fault is the server's datum
                logger.debug("Client failed", exc_info=error)
                code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
                reply = Message(Error(code, in_a_line(error)), reply_to=message)
            yield reply

    def send_and_receive(self, messages, *, timeout=None):
        """Yield the reply to each message."""
        return self.pull_messages(self.push_messages(list(messages)))


def in_a_line(error):
    r"""Describe an error; of several lines, as from another process, the ends.

    Example
    -------
    >>> in_a_line(OSError("Caught in worker 0.\nTraceback ...\nOSError: disk"))
    'OSError: Caught in worker 0. ... OSError: disk'
    """
    first, *others = str(error).strip().splitlines() or [""]
    rest = f" ... {others[-1].strip()}" if others else ""
    return f"{type(error).__name__}: {first}{rest}"


def process(serve, num_sampled):
    """Runs everything in this process (the default).

    Arguments
    ---------
    serve : callable
        Takes a Grid; the server's whole work.
    num_sampled : int
        Clients in a round.
    """
    serve(ProcessGrid(num_sampled))


def ray(serve, num_sampled, num_cpus=1, num_gpus=0.0, **init_args):
    """Runs clients side by side on Ray.

    Arguments
    ---------
    serve : callable
        Takes a Grid; the server's whole work.
    num_sampled : int
        Clients in a round; as many nodes are simulated.
    num_cpus : float
        That a client needs.
    num_gpus : float
        That a client needs; 0.25 puts four clients on a GPU.
    **init_args : dict
        Of ``ray.init``, for instance ``address: auto`` for an existing cluster.
    """
    os.environ.update(QUIET)
    from flwr.simulation import run_simulation

    server_app = ServerApp()

    @server_app.main()
    def main(grid, context):
        serve(grid)

    run_simulation(
        server_app,
        client_app,
        num_supernodes=num_sampled,
        backend_config={
            "client_resources": {"num_cpus": num_cpus, "num_gpus": num_gpus},
            "init_args": {"include_dashboard": False, **init_args},
        },
    )


def deployment(serve, num_sampled):
    """Refuses: real nodes are started by Flower, not from here."""
    raise ValueError(
        "runtime: deployment is started with python -m fed.deployment (see "
        "docs/real-machines.md)."
    )


RUNTIMES = {"process": process, "ray": ray, "deployment": deployment}
