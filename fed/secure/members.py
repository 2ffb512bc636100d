"""What a client does in secure aggregation.

Between messages a client keeps its seeds in the state that Flower keeps for its node.
It answers each question once, and only such as leave its update hidden.
"""

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fed.arrays import to_record, view
from fed.guard import groups_of
from fed.replies import Checker, client_row, metrics_of
from fed.schema import Schema
from fed.secure import masking

NAME = "secure"
"""Of the record in messages, and in the state that a client keeps."""

ROSTER = ("place", "keys", "ciphers", "threshold")
"""What the server tells of a session's members; nothing else of it is kept."""


def reply_to(message, content):
    """Answer with one record."""
    return Message(RecordDict({NAME: ConfigRecord(content)}), reply_to=message)


def state_of(message, context, *lacks):
    """Return what a client keeps of a session, which must be the message's.

    Raises
    ------
    ValueError
        When it is another, or when it has come further: nothing is answered twice.
    """
    state = context.state.get(NAME, {})
    asked = message.content[NAME]
    if state.get("session") != asked["session"] or any(key in state for key in lacks):
        raise ValueError("this client is not at this point of secure aggregation")
    return state, asked


def send_keys(message, context):
    """Begin a session: make seeds, and send the public halves of two key pairs."""
    seeds = {"key": masking.new_seed(), "own": masking.new_seed()}
    seeds |= {"cipher": masking.new_seed()}
    session = message.content[NAME]["session"]
    context.state[NAME] = ConfigRecord({"session": session, **seeds})
    keys = {name: masking.public_key(seeds[name]) for name in ("key", "cipher")}
    return reply_to(message, keys)


def send_shares(message, context):
    """Deal shares of the seeds to all members."""
    state, asked = state_of(message, context, "place")
    keys, ciphers, place = asked["keys"], asked["ciphers"], asked["place"]
    if keys[place] != masking.public_key(state["key"]) or len({*keys}) != len(keys):
        raise ValueError("the keys are not those of different clients, this one among")
    if not len(keys) / 2 < asked["threshold"] <= len(keys) or len(keys) < 2:
        raise ValueError(f"threshold {asked['threshold']} of {len(keys)} is not safe")
    state.update({name: asked[name] for name in ROSTER})
    dealt = masking.deal(
        *(state[name] for name in ("key", "own", "cipher")),
        place,
        ciphers,
        asked["threshold"],
        asked["session"],
    )
    return reply_to(message, {"shares": dealt})


def mask(site, message, context, call_next):
    """Flower's mod, but for the site: sends what was trained under masks.

    Arguments
    ---------
    site : Site
    message : flwr.app.Message
    context : flwr.app.Context
        Its state has the seeds.
    call_next : callable

    Returns
    -------
    flwr.app.Message
    """
    state, asked = state_of(message, context, "members")
    members = asked["members"]
    needed = max(state["threshold"], site.federation.min_clients)
    known = {*members} <= {*range(len(state["keys"]))}
    if state["place"] not in members or not known or len({*members}) < needed:
        raise ValueError(f"a sum of {len(members)} clients would not hide this one")
    state.update(members=members, dealt=asked["shares"], needed=needed)
    del message.content[NAME]
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    values, names = summands(site, view(message.content["arrays"]), reply)
    vector = masking.mask(
        masking.encode(values, len(state["keys"])),
        state["own"],
        state["key"],
        state["place"],
        {place: state["keys"][place] for place in members},
        state["session"],
    )
    reply.content["arrays"] = to_record({"masked": vector})
    reply.content["metrics"] = MetricRecord()
    reply.content[NAME] = ConfigRecord({"metrics": names})
    return reply


def summands(site, start, reply):
    """List what a client adds to the sum.

    Returns
    -------
    values : numpy.ndarray
        Its update times its weight, the weight, its examples, and its metrics, of which
        those that are no totals are times its examples.
    names : list of str
        Of the metrics.

    Raises
    ------
    ValueError
        When the server would leave the update out if it saw it.
    """
    federation = site.federation
    row = client_row(reply.content["config"]["client"])
    schema = Schema(start, None, federation.totals)
    Checker(federation, schema, start, groups_of(start, site.trained))(reply, row)
    arrays, names = view(reply.content["arrays"]), sorted(metrics_of([row]))
    steps = [np.subtract(arrays[n], a, dtype=float).ravel() for n, a in start.items()]
    examples, weight = row["examples"], row["weight"]
    added = [row[n] * (1 if n in federation.totals else examples) for n in names]
    values = [weight * np.concatenate(steps), [weight, examples], added]
    return np.concatenate(values), names


def send_seeds(message, context):
    """Give the shares by which the sum is unmasked, and forget the session."""
    state, asked = state_of(message, context)
    members, survivors = state["members"], {*asked["survivors"]}
    del context.state[NAME]
    if not survivors <= {*members} or len(survivors) < state["needed"]:
        raise ValueError(f"a sum of {len(survivors)} clients is not unmasked")
    shares = []
    for sender, dealt in zip(members, state["dealt"], strict=True):
        of_key, of_own = masking.receive(
            dealt,
            state["cipher"],
            sender,
            state["place"],
            state["ciphers"][sender],
            state["session"],
        )
        shares.append(of_own if sender in survivors else of_key)
    return reply_to(message, {"shares": shares})


HANDLERS = {"keys": send_keys, "shares": send_shares, "seeds": send_seeds}
"""What the ClientApp answers to queries of these names."""
