"""The ServerApp, and the process that runs it for ``fed.superlink``."""

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from queue import Queue

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import mirror_output_to_queue, restore_output
from flwr.serverapp import ServerApp
from speechbrain.utils.logger import get_logger

from fed import command
from fed.federation import quieten_rounds
from fed.installed import ROOT, digests, require_same
from fed.packing import PackingGrid
from fed.replies import introduced, pull
from fed.schema import line
from fed.server import Server
from fed.tasks import end_with

PATIENCE = 3600.0
"""Seconds to wait for enough nodes, by default."""

AGAIN = 60.0
"""Seconds after which a node that does not take part is asked again."""

logger = get_logger(__name__)
server = ServerApp()


@server.main()
def main(grid, context):
    """Train on the SuperNodes that are connected, and those that join later."""
    quieten_rounds()
    config = context.run_config
    context.node_config["overrides"] = config.get("server", "")
    name, packing = command.deployed(context), PackingGrid(grid)
    patience = float(config.get("patience", PATIENCE))
    roster = Roster(packing, int(config["nodes"]), patience=patience)
    command.serve(
        name, lambda site: Server(site.federation, site, name, roster, packing).run()
    )


class Roster:
    """Lists which client lives on which SuperNode, and keeps the list up to date.

    Arguments
    ---------
    grid : flwr.serverapp.Grid
    nodes : int
        SuperNodes to wait for before a round.
    timeout : float
        Seconds that a node may take to say who it is.
    patience : float
        Seconds to wait for enough nodes.
    """

    def __init__(self, grid, nodes, timeout=300.0, patience=PATIENCE):
        self.grid = grid
        self.nodes = nodes
        self.timeout = timeout
        self.patience = patience
        self.known = {}
        self.questions = {}  # id -> message, of those without an answer
        self.refused = {}  # node -> (why, when)

    def __call__(self):
        """List (client, node id) by client, once enough nodes are there.

        Raises
        ------
        RuntimeError
            When they do not come, naming those that have, and what others answer.
        """
        told, start = None, time.monotonic()
        while len(clients := self.update()) < self.nodes:
            if (waited := self.waited_for(clients)) != told:
                logger.info("%s", waited)
                told = waited
            if time.monotonic() - start >= self.patience:
                raise RuntimeError(
                    f"After {self.patience:.0f} s: {waited}. Start those that are "
                    "missing (their logs say what is wrong), or give fewer --nodes or "
                    "more --patience; the same command goes on from here"
                )
            time.sleep(1)
        return clients

    def waited_for(self, clients):
        """Say who is there, and what of those who are not."""
        names = ", ".join(name for name, _ in clients) or "none"
        parts = [f"{len(clients)} of {self.nodes} SuperNodes are there ({names})"]
        silent = {q.metadata.dst_node_id for q in self.questions.values()}
        parts += [f"{node} does not say yet who it is" for node in sorted(silent)]
        parts += [f"{node} refuses: {why}" for node, (why, _) in self.refused.items()]
        return "; ".join(parts)

    def update(self):
        """Ask new nodes who they are, hear their answers; forget those that are gone.

        Nobody waits for an answer: a node that is slow to join takes part later.
        """
        present = set(self.grid.get_node_ids())
        self.known = {n: c for n, c in self.known.items() if n in present}
        recent = time.monotonic() - AGAIN
        no = {node for node, (_, when) in self.refused.items() if when > recent}
        asked = {q.metadata.dst_node_id for q in self.questions.values()}
        new = sorted(present - self.known.keys() - no - asked)
        questions = [self.ask(node_id) for node_id in new]
        keys = self.grid.push_messages(questions)
        self.questions |= zip(keys, questions, strict=True)
        for key, question in list(self.questions.items()):
            if (reply := pull(self.grid, question, key)) is None:
                continue
            del self.questions[key]
            node_id = question.metadata.dst_node_id
            try:
                client = introduced(reply)
                if first := [n for n, known in self.known.items() if known == client]:
                    raise ValueError(
                        f"says that it is {client}, as {first[0]} did first"
                    )
                self.known[node_id] = client
            except ValueError as error:
                self.note(node_id, line(error))
        return sorted((client, node_id) for node_id, client in self.known.items())

    def note(self, node_id, reason):
        """Say why a node does not take part, once; it is asked again after a while."""
        if self.refused.get(node_id, ("",))[0] != reason:
            logger.warning("SuperNode %d: %s", node_id, reason)
        self.refused[node_id] = reason, time.monotonic()

    def ask(self, node_id):
        """Make the message that asks a node for its client's name."""
        content = RecordDict({"config": ConfigRecord()})
        return Message(content, node_id, "query", ttl=self.timeout)


def serve(address, certificate, parent, ready):
    """Run one ServerApp, whose token comes by standard input; end this process.

    Flower's own program would run the code that was submitted. This one runs what is
    installed here, if it is the same.

    Arguments
    ---------
    address : str
        Of the SuperLink, on this machine.
    certificate : str
        File of the authority that vouches for it.
    parent : str
        Process with which this one ends.
    ready : str
        Number of the file to write to when a token is welcome.
    """
    flower = import_module("flwr.superlink.runtime.run_serverapp")

    def run(grid, server_app_dir, server_app_attr, context):
        files = (context.run_config[key] for key in ("script", "hparams"))
        require_same(submitted.get(), digests(ROOT / file for file in files if file))
        server(grid=grid, context=context)
        return context

    submitted = Queue()
    flower.install_from_fab = lambda app, skip_prompt: submitted.put(app)
    flower.get_project_dir = lambda *names: ROOT
    flower.run_ = run
    os.write(int(ready), b".")
    token, log = sys.stdin.readline().strip(), Queue()
    if not token:  # nothing was to be run
        return
    mirror_output_to_queue(log)
    end_with(int(parent))
    try:
        certificates = Path(certificate).read_bytes()
        flower.run_serverapp(address, log, token, False, certificates, None, False)
    finally:
        restore_output()


if __name__ == "__main__":
    serve(*sys.argv[1:])
