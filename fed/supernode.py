"""Flower's SuperNode, as ``fed.node`` runs it: a process without PyTorch.

It asks for messages each second, not each three, comes back by itself where the
SuperLink does not take it yet, and forgets a message whose run has ended.
"""

import os
import time
from importlib import import_module
from logging import WARNING
from types import SimpleNamespace

import httpx
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.supercore import log
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

PATIENCE = 180.0
"""Seconds to be taken in; a SuperLink misses a dead node after 60 at most."""

ABSENCE = 5.0
"""Seconds in which a server that waits for a reply notices that a node is gone."""


def persistent(activate, patience=PATIENCE, sleep=time.sleep, now=time.monotonic):
    """Make a SuperNode that is refused when it joins ask again.

    What the dead one was asked gets no reply. So that the server does not wait for it,
    the node leaves once more before it comes back for good.

    Arguments
    ---------
    activate : callable
        Of Flower's client: asks the SuperLink to count on this node.
    patience : float
        Seconds for which to ask.
    sleep, now : callable
        The clock.

    Returns
    -------
    callable
        The same; any other error, and the last refusal, are raised.
    """

    def ask(client, request):
        start, pause, refused = now(), 1.0, False
        while True:
            try:
                taken = activate(client, request)
                if not refused:
                    return taken
                client.DeactivateNode(DeactivateNodeRequest(node_id=taken.node_id))
                sleep(ABSENCE)
                refused = False
                continue
            except httpx.HTTPStatusError as error:
                if not is_refusal(error) or now() - start + pause > patience:
                    raise
            if pause == 1.0:
                log(
                    WARNING,
                    "The SuperLink does not take this node yet: it still counts on one "
                    "with this key, which has died within the last minute or runs "
                    "elsewhere, or the key is not admitted. Trying again for %.0f s.",
                    patience,
                )
            refused = True
            sleep(pause)
            pause = min(2 * pause, 10.0)

    return ask


def is_refusal(error):
    """Tell whether the SuperLink has understood a node, and does not count on it."""
    known = FlowerError.from_json(error.response.text)
    return bool(known) and known.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED


def dropping(pull):
    """Make a run that ends while its message is received a fault like any other.

    Flower's loop forgets the message after those; after this one it would leave it
    without content, for which an app waits for hours.

    Arguments
    ---------
    pull : callable
        Of Flower: receives what a message contains.

    Returns
    -------
    callable
        The same; raises RuntimeError then.
    """

    def receive(*args, **options):
        try:
            return pull(*args, **options)
        except RunNotRunningException as error:
            raise RuntimeError("its run has ended") from error

    return receive


def main():
    """Run until a signal ends it, or the process that has started it is gone."""
    loop = import_module("flwr.supernode.start_client_internal")
    loop.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 1)))
    loop.pull_objects = dropping(loop.pull_objects)
    FleetHttpClient.ActivateNode = persistent(FleetHttpClient.ActivateNode)
    start_parent_process_monitor(os.getppid())
    flower_supernode()


if __name__ == "__main__":
    main()
