"""The ServerApp, and the command that starts it; ``docs/real-machines.md`` says how.

python -m fed.deployment --nodes 4 train.py hparams/fedenhance.yaml --rounds 20
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import speechbrain as sb
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from speechbrain.utils.logger import get_logger

from fed import command
from fed.claim import held
from fed.federation import quieten_rounds
from fed.replies import introduced, pull
from fed.schema import line
from fed.server import Server
from fedenhance.run_folder.environment import write_environment

ROOT = Path(__file__).resolve().parents[1]
AGAIN = 60.0
"""Seconds after which a node that does not take part is asked again."""

logger = get_logger(__name__)
server = ServerApp()


@server.main()
def main(grid, context):
    """Train on the SuperNodes that are connected, and those that join later."""
    quieten_rounds()
    context.node_config["overrides"] = context.run_config.get("server", "")
    name = command.deployed(context)
    with held(json.loads(name)):
        site = command.load(name)
        with held(json.loads(name), folder=site.output_folder):
            folder = str(site.output_folder)
            sb.create_experiment_directory(folder, save_env_desc=False)
            write_environment(folder)
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
        self.questions = {}  # id -> message, of those without an answer
        self.refused = {}  # node -> (why, when)

    def __call__(self):
        """List (client, node id) by client, once enough nodes are there."""
        told = None
        while len(clients := self.update()) < self.nodes:
            if len(clients) != told:
                logger.info("%d of %d SuperNodes are there.", len(clients), self.nodes)
                told = len(clients)
            time.sleep(1)
        return clients

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
                self.known[node_id] = introduced(reply)
            except ValueError as error:
                self.note(node_id, line(error))
        nodes = {client: node_id for node_id, client in self.known.items()}
        if len(nodes) < len(self.known):
            logger.warning("SuperNodes with the same client's name: one is left out.")
        return sorted(nodes.items())

    def note(self, node_id, reason):
        """Say why a node does not take part, once; it is asked again after a while."""
        if self.refused.get(node_id, ("",))[0] != reason:
            logger.warning("SuperNode %d: %s", node_id, reason)
        self.refused[node_id] = reason, time.monotonic()

    def ask(self, node_id):
        """Make the message that asks a node for its client's name."""
        content = RecordDict({"config": ConfigRecord()})
        return Message(content, node_id, "query", ttl=self.timeout)


def in_app(file):
    """Name a file as it is called in the app that Flower packs, which has no links.

    Example
    -------
    >>> in_app("train.py")
    'train.py'
    """
    here = [p for p in (Path(file), ROOT / file) if p.exists()]
    if not here or not here[0].resolve().is_relative_to(ROOT):
        sys.exit(f"fed.deployment: {file} is not in {ROOT}, which goes to the nodes.")
    return here[0].resolve().relative_to(ROOT).as_posix()


def start(argv):
    """Submit a run to a SuperLink, follow its log, and say how it ended.

    Arguments
    ---------
    argv : list of str
        ``--nodes``, ``--server``, ``--superlink``, and the command to federate.

    Returns
    -------
    int
        0 if the run was completed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fed.deployment",
        usage="%(prog)s [options] [train.py] train.yaml [--key value ...]",
        description="Trains on SuperNodes. Keys and values hold on the server and must "
        "be agreed to on each node; files are relative to the app.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nodes", type=int, default=2, help="to wait for, before each round")
    add("--server", default="", metavar="YAML", help="keys for the server alone")
    add("--superlink", default="federation", help="its name in Flower's config.toml")
    add("command", nargs=argparse.REMAINDER, help="what to federate")
    options = parser.parse_args(argv)
    words = options.command
    if not words:
        parser.error("which script and YAML file?")
    script = in_app(words.pop(0)) if words[0].endswith(".py") else ""
    config = {"script": script, "hparams": in_app(words[0]), "nodes": options.nodes}
    _, run_options, overrides = sb.parse_arguments(words)
    config |= {"server": options.server, "overrides": overrides}
    config |= {"device": run_options.get("device") or ""}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        # Strings and numbers are written alike in TOML and JSON.
        file.writelines(f"{k} = {json.dumps(v)}\n" for k, v in config.items())
        file.flush()
        flower = ["flwr", "run", ROOT, options.superlink, "--stream"]
        run = subprocess.run([*flower, "--run-config", file.name], check=False)
    if run.returncode:  # Flower has said why
        return run.returncode
    listed = subprocess.run(
        ["flwr", "ls", options.superlink, "--format", "json"],
        check=True,
        stdout=subprocess.PIPE,
    )
    status = json.loads(listed.stdout)["runs"][0]["status"]
    logger.info("The run is %s.", status)
    return 0 if status == "finished:completed" else 1


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
