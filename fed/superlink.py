"""Flower's SuperLink with two doors: for nodes, and for who operates it.

SuperLink serves all its interfaces on one port, and whoever reaches the control and the
runtime interface may run code on the server and on the nodes. Here these stay on
127.0.0.1; the port for nodes has the routes of the fleet interface and no others, and
those only for nodes whose keys were registered. What runs on the server is what is
installed there, whatever was submitted.

    deploy/certificates /srv/fed server.example.org
    python -m fed.superlink --home /srv/fed --nodes-port 9092
"""

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import uvicorn
from flwr.supercore.constant import TaskType
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.routers.fleet.router import router as fleet

from fed.tasks import tasks

ALWAYS = ("--enable-supernode-auth", "--isolation", "process")
LOOPBACK = "127.0.0.1"


class FleetAlone:
    """Lets requests to the fleet interface through, and answers 404 to all others.

    Arguments
    ---------
    app : callable
        SuperLink's ASGI application.
    """

    def __init__(self, app):
        self.app = app
        self.paths = {route.path for route in fleet.routes}

    async def __call__(self, scope, receive, send):
        """Serve one request, as ASGI has it."""
        if scope["type"] == "http" and scope["path"] in self.paths:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:  # there are no web sockets here
            await send({"type": "websocket.close"})


def for_itself(authenticate):
    """Make a node answer, and for itself alone.

    Flower looks at who sends a request, and not at whom the messages in it name: a node
    could send others messages as if they were the server's, and answers in their place.

    Arguments
    ---------
    authenticate : callable
        Of Flower: takes a request, and raises if its signature is not the node's.

    Returns
    -------
    callable
        The same; answers 403 to messages that are not its own answers.
    """

    def check(request):
        authenticate(request)
        asked = request.state.protobuf_request
        for message in getattr(asked, "messages_list", ()):
            told = message.metadata
            if told.src_node_id != asked.node.node_id or not told.reply_to_message_id:
                raise node_auth.HTTPException(403, "A node sends answers of its own")

    return check


def kept_in(home):
    """Name the files of a folder, as options of ``flower-superlink``."""
    files = {
        "--ssl-ca-certfile": "ca.crt",
        "--ssl-certfile": "server.crt",
        "--ssl-keyfile": "server.key",
        "--database": "superlink.db",
    }
    return [
        word for option, name in files.items() for word in (option, f"{home / name}")
    ]


class ServerApps:
    """Runs the server's side of each run in a process of its own.

    Each is started before it is needed, and gets its task when it is ready: it has
    PyTorch to load, which may take longer than a task waits.

    Arguments
    ---------
    words : list of str
        Arguments of ``fed.serverapp``.
    """

    LATER = 60.0
    """Seconds for which a run has the machine's cores before the next is prepared."""

    def __init__(self, words):
        self.words, self.running = words, []
        self.start()

    def start(self):
        """Start a process that says when it is ready, and waits for a token then."""
        told, tells = os.pipe()
        os.set_blocking(told, False)
        command = [sys.executable, "-m", "fed.serverapp", *self.words, str(tells)]
        options = {"stdin": subprocess.PIPE, "pass_fds": [tells], "text": True}
        self.next, self.told = subprocess.Popen(command, **options), open(told, "rb", 0)
        os.close(tells)
        self.ready, self.begun = False, time.monotonic()

    def is_free(self):
        """Tell whether a process is ready; see that there is one, now or later."""
        self.running = [p for p in self.running if p.poll() is None]
        if self.next is not None and self.next.poll() is None:
            self.ready = self.ready or bool(self.told.read(1))
            return self.ready
        idle = self.next is None and not self.running
        if idle or time.monotonic() - self.begun > self.LATER:
            self.start()
        return False

    def serve(self, tokens):
        """Give each token to the process that is ready."""
        for token in filter(None, tokens):
            with suppress(BrokenPipeError):  # it died: the run fails, others do not
                print(token, file=self.next.stdin, flush=True)
            self.running.append(self.next)
            self.next, self.begun = None, time.monotonic()


def main(argv):
    """Serve until a signal ends it.

    Arguments
    ---------
    argv : list of str
        ``--home``, ``--nodes-host``, ``--nodes-port``; options of ``flower-superlink``.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fed.superlink",
        description="A SuperLink that strangers cannot use.",
        epilog="All other options are those of flower-superlink, for its door on "
        f"{LOOPBACK}: --port, --database, --log-file, ...",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--home", required=True, type=Path, help="where deploy/certificates put them"
    )
    parser.add_argument("--nodes-host", default="0.0.0.0", help="where nodes connect")
    parser.add_argument("--nodes-port", type=int, default=9092)
    options, others = parser.parse_known_args(argv)
    if refused := [o for o in others if o.split("=")[0] in ("--host", "--insecure")]:
        parser.error(f"{refused[0]}: control stays on {LOOPBACK}, and TLS on")
    os.environ["FLWR_HOME"] = str(options.home.resolve())
    secret = secrets.token_bytes(32)
    with tempfile.NamedTemporaryFile() as file:
        file.write(secret)
        file.flush()
        known = ["--superexec-auth-secret-file", file.name]
        sys.argv = ["flower-superlink", *kept_in(options.home), *others]
        sys.argv += [*ALWAYS, *known]
        config = _parse_superlink_lifespan_config()
    node_auth.authenticate_node = for_itself(node_auth.authenticate_node)
    app = create_app(config, SuperLinkLifespan)
    tls = {"ssl_certfile": config.ssl_certfile, "ssl_keyfile": config.ssl_keyfile}
    tls |= {"access_log": False}
    place = {"host": options.nodes_host, "port": options.nodes_port}
    door = uvicorn.Config(FleetAlone(app), lifespan="off", **place, **tls)
    sockets = [door.bind_socket()]  # ends the program where the port is not free
    address, authority = f"{LOOPBACK}:{config.port}", config.ssl_ca_certfile
    certificate = Path(authority).read_bytes()
    apps = ServerApps([address, authority, str(os.getpid())])
    kind, place = TaskType.SERVER_APP, (address, certificate, secret)
    tokens = tasks(kind, *place, lambda: True, apps.is_free)
    background(uvicorn.Server(door).run, sockets)
    background(apps.serve, tokens)
    uvicorn.run(app, host=LOOPBACK, port=config.port, **tls)


def background(function, argument):
    """Call a function in a thread that ends with the program, and the program with it.

    Half a SuperLink, without its door or its ServerApps, would seem to be one.
    """

    def run():
        try:
            function(argument)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
