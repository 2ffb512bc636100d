"""Flower's SuperLink with two doors: for nodes, and for who operates it.

SuperLink serves all its interfaces on one port, and whoever reaches the control and the
runtime interface may run code on the server and on the nodes. Here these stay on
127.0.0.1; the port for nodes has the routes of the fleet interface and no others, and
those only for nodes whose keys were registered.

    deploy/certificates /srv/fed server.example.org
    python -m fed.superlink --home /srv/fed --nodes-port 9092
"""

import argparse
import os
import sys
import threading
from pathlib import Path

import uvicorn
from flwr.superlink.cli.flower_superlink import (
    SuperLinkLifespan,
    _parse_superlink_lifespan_config,
)
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet.router import router as fleet

ALWAYS = ("--enable-supernode-auth", "--disable-runtime-dependency-installation")
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
    beside = Path(sys.executable).parent  # where the programs are that SuperLink starts
    os.environ["PATH"] = os.pathsep.join([str(beside), os.environ["PATH"]])
    sys.argv = ["flower-superlink", *kept_in(options.home), *others, *ALWAYS]
    config = _parse_superlink_lifespan_config()
    app = create_app(config, SuperLinkLifespan)
    tls = {"ssl_certfile": config.ssl_certfile, "ssl_keyfile": config.ssl_keyfile}
    tls |= {"access_log": False}
    place = {"host": options.nodes_host, "port": options.nodes_port}
    door = uvicorn.Config(FleetAlone(app), lifespan="off", **place, **tls)
    sockets = [door.bind_socket()]  # ends the program where the port is not free
    threading.Thread(
        target=uvicorn.Server(door).run, args=[sockets], daemon=True
    ).start()
    uvicorn.run(app, host=LOOPBACK, port=config.port, **tls)


if __name__ == "__main__":
    main(sys.argv[1:])
