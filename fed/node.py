"""A client's machine: it trains with the code and the command that are installed on it.

A SuperNode of Flower runs the code that the server sends. This one, with the options of
``flower-supernode`` that it needs, runs what its own operator typed, and refuses a run
of other code, of another experiment, or with settings that were not agreed to.

    python -m fed.node --superlink server.example.org:9092 \
        --root-certificates ca.crt --key node --client clinic-a \
        train.py hparams/fedenhance.yaml --data_folder /data/a

Brain and data are made once, and stay from message to message.
"""

import argparse
import json
import logging
import reprlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import yaml
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from fed.client import app
from fed.command import flags
from fed.federation import quieten_rounds
from fed.installed import ROOT, digests, require_same
from fed.runtime import in_a_line
from fed.tasks import connected, tasks
from fedenhance.run_folder.commands import grouped

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
"""What words of the server may be made of: neither paths nor YAML."""

logger = logging.getLogger(__name__)


class Terms:
    """What a node agrees to run.

    Arguments
    ---------
    words : list of str
        Its command: a script, if there is one, a YAML file, and options.
    accepted : list of str
        Keys that a run may set.

    Raises
    ------
    FileNotFoundError
        Naming a file of the command that is not there.
    """

    def __init__(self, words, accepted=()):
        files = [word for word in words[:2] if word.endswith((".py", ".yaml", ".yml"))]
        self.files = [Path(file).resolve(strict=True) for file in files]
        self.options = grouped(words[len(files) :])
        self.accepted = set(accepted)
        self.code = digests(self.files)

    def command(self, fab, run_config):
        """Make the command by which this node takes part in a run.

        Arguments
        ---------
        fab : bytes
            The app of the run, as Flower packs it, which says what its code is.
        run_config : dict
            Of the run: ``script``, ``hparams``, ``overrides``.

        Returns
        -------
        str
            As :func:`fed.command.load` takes it.

        Raises
        ------
        ValueError
            Saying what this node does not agree to.
        """
        asked = [run_config.get(key) for key in ("script", "hparams")]
        if [(ROOT / str(file)).resolve() for file in asked if file] != self.files:
            raise ValueError(
                f"the run is of {' '.join(str(file) for file in asked if file)}; this "
                f"node takes part in {' '.join(map(str, self.files))}"
            )
        require_same(fab, self.code)
        agreed = self.agreed(run_config.get("overrides", ""))
        words = flags(yaml.safe_dump(agreed)) if agreed else []
        own = [word for group in self.options.values() for word in group]
        return json.dumps([*map(str, self.files), *words, *own])

    def agreed(self, overrides):
        """Read what a run sets here; this node's own settings come first."""
        try:
            asked = yaml.safe_load(overrides) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"overrides that are not plain YAML: {error}") from error
        if not isinstance(asked, dict):
            shown = reprlib.repr(asked)
            raise ValueError(f"overrides that are not keys and values: {shown}")
        asked = {k: v for k, v in asked.items() if k not in self.options}
        if others := sorted(str(k) for k in asked.keys() - self.accepted):
            raise ValueError(
                f"the run sets {', '.join(others)}; this node's operator may agree, by "
                "--accept with each key, or set it in the node's own command"
            )
        if odd := [key for key, value in asked.items() if not is_plain(value)]:
            shown = reprlib.repr(asked[odd[0]])  # YAML may repeat without end
            raise ValueError(f"{odd[0]} is {shown}: no number or plain word")
        return asked


def is_plain(value):
    """Tell whether a value is a number, a word, or a list of these.

    Example
    -------
    >>> is_plain(0.5), is_plain([1, "adam"]), is_plain("!apply:os.system")
    (True, True, False)
    >>> is_plain("/etc/passwd"), is_plain({"a": 1})
    (False, False)
    """
    if isinstance(value, list):
        return all(not isinstance(v, list) and is_plain(v) for v in value)
    if isinstance(value, str):
        return set(value) <= PLAIN
    return value is None or isinstance(value, bool | int | float)


class Node:
    """Answers the messages that a SuperNode receives.

    Arguments
    ---------
    terms : Terms
    config : dict
        ``client`` or ``partition-id``, as in a SuperNode's ``--node-config``.
    address : str
        Of the SuperNode, on this machine.
    secret : bytes
        That the SuperNode knows as well.
    """

    def __init__(self, terms, config, address, secret):
        self.terms, self.config = terms, config
        self.address, self.secret = address, secret

    def serve(self, is_alive):
        """Answer one message after the other, as long as the SuperNode lives.

        Of one that is gone, as its run has ended, the SuperNode tells the server.
        """
        for token in tasks(
            TaskType.CLIENT_APP, self.address, None, self.secret, is_alive
        ):
            try:
                if token:
                    self.answer(token)
            except (Exception, RunNotRunningException) as error:  # whatever was sent
                logger.debug("No reply", exc_info=error)
                logger.warning("A message gets no reply: %s", in_a_line(error))

    def answer(self, token):
        """Take the message of a task, and reply; an error is a reply as well."""
        with connected(
            self.address,
            None,
            RuntimeTokenHttpInterceptor(token),
            retry_invoker=make_simple_http_retry_invoker(),
        ) as client:
            heartbeat = HeartbeatSender(partial(beat, client))
            heartbeat.start()
            try:
                message, context, run, fab = pull_task_input(client)
                reply = self.reply(message, context, fab.content)
                try:
                    push_message(client, reply, context)
                except httpx.HTTPError:
                    raise
                except Exception as error:  # nothing that Flower could send
                    logger.error("The reply cannot be sent", exc_info=error)
                    push_message(client, failure(message, error), context)
                push_task_output(client, context, SubStatus.COMPLETED, "")
            finally:
                heartbeat.stop()

    def reply(self, message, context, fab):
        """Make the reply to a message."""
        kind, start = message.metadata.message_type, time.perf_counter()
        try:
            command = self.terms.command(fab, context.run_config)
            context.node_config = {**self.config, "command": command}
            reply = app(message, context)
        except (Exception, SystemExit) as error:  # the server's datum, and our log's
            known = isinstance(error, ValueError)
            told = kind, in_a_line(error)
            logger.error("%s: %s", *told, exc_info=None if known else error)
            return failure(message, error)
        seconds = time.perf_counter() - start
        logger.info("%s: answered in %.1f s", kind, seconds)
        return reply


def beat(client):
    """Tell the SuperNode that a task is worked on; whether it has heard that.

    Flower's own heart would interrupt this process where the task is no more.
    """
    try:
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    except httpx.TransportError:
        return False
    except httpx.HTTPStatusError as error:
        return error.response.status_code < 500
    return True


def failure(message, error):
    """Make an error the reply to a message."""
    code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    return Message(Error(code, in_a_line(error)), reply_to=message)


@contextmanager
def supernode(words):
    """Run a SuperNode, which ends with the block, and with this process if it dies.

    Yields
    ------
    subprocess.Popen
    """
    process = subprocess.Popen([sys.executable, "-m", "fed.supernode", *words])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def parse(argv):
    """Parse the command line of a node.

    Returns
    -------
    argparse.Namespace
    """
    parser = argparse.ArgumentParser(
        prog="python -m fed.node",
        usage="%(prog)s [options] [train.py] train.yaml [--key value ...]",
        description="Takes part in a federation with this machine's own code and data.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--superlink", required=True, metavar="HOST:PORT", help="the server")
    add("--root-certificates", required=True, metavar="FILE", help="of the server")
    add("--key", required=True, metavar="FILE", help="private; the server knows .pub")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--client", help="its name: all training data here are its own")
    who.add_argument(
        "--partition-id", type=int, help="which client of data that all nodes have"
    )
    add("--accept", action="append", default=[], help="a key that a run may set")
    add("--port", type=int, default=9094, help="of the SuperNode, on this machine")
    add("command", nargs=argparse.REMAINDER, help="the experiment, as trained here")
    options = parser.parse_args(argv)
    if not options.command:
        parser.error("which script and YAML file?")
    return options


def main(argv):
    """Take part until a signal ends it; end with the SuperNode's exit status."""
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    quieten_rounds()
    terms = Terms(options.command, options.accept)
    config = {"client": options.client, "partition-id": options.partition_id}
    config = {key: value for key, value in config.items() if value is not None}
    secret = secrets.token_bytes(32)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.NamedTemporaryFile() as file:
        file.write(secret)
        file.flush()
        words = ["--isolation", "process", "--superexec-auth-secret-file", file.name]
        words += ["--superlink", options.superlink, "--port", str(options.port)]
        words += ["--root-certificates", str(Path(options.root_certificates).resolve())]
        words += ["--auth-supernode-private-key", str(Path(options.key).resolve())]
        node = Node(terms, config, f"127.0.0.1:{options.port}", secret)
        with supernode(words) as process:
            try:
                node.serve(lambda: process.poll() is None)
            except KeyboardInterrupt:
                return 0
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
