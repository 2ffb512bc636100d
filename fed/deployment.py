"""The ServerApp that ``flwr run`` starts; ``docs/real-machines.md`` says how."""

import json
import time

import speechbrain as sb
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from speechbrain.utils.logger import get_logger

from fed import command
from fed.claim import held
from fed.federation import quieten_rounds
from fed.server import Server

logger = get_logger(__name__)
server = ServerApp()


@server.main()
def main(grid, context):
    """Train on the SuperNodes that are connected, and those that join later."""
    quieten_rounds()
    name = command.deployed(context)
    with held(json.loads(name)):
        site = command.load(name)
        with held(json.loads(name), folder=site.output_folder):
            sb.create_experiment_directory(str(site.output_folder))
            roster = Roster(grid, int(context.run_config["nodes"]))
            Server(site.federation, site, name, roster, grid).run()


class Roster:
    """Lists which client lives on which SuperNode, and keeps the list up to date.

    Arguments
    ---------
    grid : flwr.serverapp.Grid
    nodes : int
        SuperNodes to wait for before a round.
    timeout : float
        Seconds that a node may take to say who it is.
    """

    def __init__(self, grid, nodes, timeout=300.0):
        self.grid = grid
        self.nodes = nodes
        self.timeout = timeout
        self.known = {}

    def __call__(self):
        """List (client, node id) by client, once enough nodes are there."""
        while len(clients := self.update()) < self.nodes:
            logger.info("%d of %d SuperNodes are there.", len(clients), self.nodes)
            time.sleep(3)
        return clients

    def update(self):
        """Ask new nodes who they are; forget those that are gone."""
        present = set(self.grid.get_node_ids())
        self.known = {n: c for n, c in self.known.items() if n in present}
        questions = [
            Message(
                RecordDict({"config": ConfigRecord()}),
                message_type="query",
                dst_node_id=node_id,
            )
            for node_id in sorted(present - self.known.keys())
        ]
        for reply in self.grid.send_and_receive(questions, timeout=self.timeout):
            node_id = reply.metadata.src_node_id
            if reply.has_error():
                logger.warning("SuperNode %d: %s", node_id, reply.error.reason)
            else:
                self.known[node_id] = reply.content["config"]["client"]
        nodes = {client: node_id for node_id, client in self.known.items()}
        if len(nodes) < len(self.known):
            logger.warning("SuperNodes with the same client's name: one is left out.")
        return sorted(nodes.items())
