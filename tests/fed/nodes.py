"""Clients that are elsewhere, in this process."""

from flwr.app import Context
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from fed.command import Process
from fed.runtime import ProcessGrid


class Nodes(ProcessGrid):
    """SuperNodes without their processes: bytes come and go, and nothing is ready made.

    Arguments
    ---------
    run_config : dict
        Empty: it is the workers of Ray that stay as they are.
    *node_configs : dict
        One a node.
    """

    def __init__(self, run_config, *node_configs):
        super().__init__(len(node_configs))
        self.configs = run_config, node_configs

    def context(self, node_id):
        run_config, node_configs = self.configs
        own = dict(node_configs[node_id - 1])
        return Context(1, node_id, own, self.states[node_id], dict(run_config))

    def pull_messages(self, message_ids):
        for key in message_ids:
            self.pushed[key] = as_received(self.pushed[key])
            server, Process.sites = dict(vars(Process)), {}
            (reply,) = super().pull_messages([key])
            Process.sites = server["sites"]
            Process.stops_at_fit = server["stops_at_fit"]
            yield as_received(reply)


def as_received(message):
    return message_from_proto(ProtoMessage.FromString(as_bytes(message)))


def as_bytes(message):
    return message_to_proto(message).SerializeToString()
