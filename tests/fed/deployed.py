"""A SuperLink and nodes in processes of their own, for tests."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

ROOT = Path(__file__).resolve().parents[2]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Deployed:
    """A SuperLink in a process of its own, and nodes."""

    @property
    def ready(self):
        return f"running on https://127.0.0.1:{self.control}"

    def command(self):
        words = ["-m", "fed.superlink", "--home", self.home]
        return [*words, "--port", str(self.control), "--nodes-port", str(self.nodes)]

    def __init__(self, home):
        self.home, self.ca = home, home / "ca.crt"
        self.control, self.nodes = free_ports(2)
        self.others = []
        environment = {**os.environ, "CONTROL_PORT": str(self.control)}
        words = [ROOT / "deploy" / "certificates", home, "localhost"]
        subprocess.run(words, check=True, timeout=60, env=environment)
        self.log = open(home / "log", "w")
        self.process = subprocess.Popen(
            [sys.executable, *self.command()],
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 250
        while self.ready not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def said(self):
        return (self.home / "log").read_text()

    def admit(self, name):
        """Make a node's key, and register it; return the file."""
        key = self.home / name
        words = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key]
        subprocess.run(words, check=True, timeout=60)
        public = load_ssh_public_key(Path(f"{key}.pub").read_bytes())
        request = RegisterNodeRequest(public_key=public_key_to_bytes(public))
        with self.operator() as operator:
            operator.RegisterNode(request)
        return key

    def start_node(self, name, port, *words):
        """Start a node's process, with the key of its name."""
        with open(self.home / f"{name}.log", "w") as log:
            address = f"127.0.0.1:{self.nodes}"
            self.others += [
                subprocess.Popen(
                    [sys.executable, "-m", "fed.node", "--superlink", address]
                    + ["--root-certificates", self.ca, "--key", self.admit(name)]
                    + ["--port", str(port), *words],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            ]

    def stop(self):
        for process in self.others:
            process.terminate()
        for process in self.others:
            process.wait(timeout=60)
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()

    def operator(self, port=None):
        """Connect as the operator does, if need be at the wrong door."""
        address = f"127.0.0.1:{port or self.control}"
        return ControlHttpClient.from_server_address(
            address, False, self.ca.read_bytes(), interceptors=[]
        )

    def node(self, keys):
        """Connect as a node with a pair of keys does."""
        address = f"127.0.0.1:{self.nodes}"
        return FleetHttpClient.from_server_address(
            address,
            False,
            self.ca.read_bytes(),
            interceptors=[NodeAuthHttpInterceptor(*keys)],
        )
