"""Tasks that Flower's servers hand to a process which knows their secret."""

import os
import threading
import time
from contextlib import contextmanager

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient

POLL = 0.2
"""Seconds between two questions whether there is something to do."""


@contextmanager
def connected(address, certificate, *interceptors, **options):
    """Connect to the runtime interface of a SuperLink or a SuperNode on this machine.

    Arguments
    ---------
    address : str
    certificate : bytes or None
        Of the authority that vouches for it; None where it speaks without TLS.
    *interceptors
        Which sign requests.
    **options
        Of Flower's client.
    """
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    client = RuntimeHttpClient.from_server_address(
        address, certificate is None, certificate, [version, *interceptors], **options
    )
    try:
        yield client
    finally:
        client.close()


def tasks(kind, address, certificate, secret, is_alive, is_free=lambda: True):
    """Yield the tokens of tasks of a kind, as long as the server lives.

    Arguments
    ---------
    kind : str
        Of flwr.supercore.constant.TaskType.
    address, certificate
        As of :func:`connected`.
    secret : bytes
        That the server knows as well.
    is_alive : callable
        Asked before each question.
    is_free : callable
        Asked as well: a task has to be begun within seconds, or it is lost.

    Yields
    ------
    str or None
        None: there is nothing to do.
    """
    signed = SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
    )
    question = AcquireTaskRequest(supported_task_types=[kind])
    with connected(address, certificate, signed) as client:
        while is_alive():
            try:
                token = is_free() and client.AcquireTask(question).token or None
            except httpx.TransportError:  # it starts, or it stops
                token = None
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500:  # it knows no such secret
                    raise
                token = None
            yield token
            if token is None:
                time.sleep(POLL)


def end_with(parent):
    """End this process when the one that has started it is gone, whatever it does.

    Flower's own monitor interrupts it as Ctrl-C does, which training survives for as
    long as a client has for its reply; meanwhile the folder of the run stays locked.

    Arguments
    ---------
    parent : int
        Its process.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(POLL)
        os._exit(1)  # what is on the disk is whole at any time

    threading.Thread(target=watch, daemon=True).start()
