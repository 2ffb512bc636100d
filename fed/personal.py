"""Models of each client's own: what they reach on its own recordings.

After the last round every client is asked to test the model on what it has kept for
that (the dataset ``own``), and then one that it makes its own: with the weights that it
keeps (``local``), after some more epochs on its data (``epochs``), of some weights
(``train``), held near the model (``proximal_mu``). It stays with the client; only
metrics are sent.

With ``proximal_mu`` this is Ditto's objective (Li, Hu, Beirami and Smith, "Ditto: fair
and robust federated learning through personalization", ICML 2021, equation 1),
minimised once the global model is there. Weights of normalisation that are ``local``
are FedBN (Li, Jiang, Zhang, Kamp and Dou, "FedBN: federated learning on non-IID
features via local batch normalization", ICLR 2021).
"""

import itertools
import math
import shutil
import time
from contextlib import contextmanager
from functools import partial

import torch
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from speechbrain.utils.logger import get_logger

from fed.arrays import get_arrays, matching, set_arrays, to_arrays, to_record
from fed.ledger import Table
from fed.loading import loader_options, restrict
from fed.replies import client_row, collect, require_content
from fed.schema import Schema, line, require_names
from fed.site import Task
from fedenhance.run_folder.files import whole_file
from fedenhance.run_folder.states import file_name

logger = get_logger(__name__)

TABLE = "personal.csv"
FOLDER = "personal"
SETTINGS = {"epochs": 0, "lr": None, "train": None, "proximal_mu": None}
"""Arguments of the federation's ``personal``, and what they are by default."""


def settings_of(personal):
    """Complete the arguments of ``personal``.

    Raises
    ------
    ValueError
        Naming one that is unknown, or cannot be.

    Example
    -------
    >>> settings_of({"epochs": 2})
    {'epochs': 2, 'lr': None, 'train': None, 'proximal_mu': None}
    """
    if not isinstance(personal, dict) or personal.keys() - SETTINGS.keys():
        raise ValueError(f"personal is {personal!r}; its keys are {[*SETTINGS]}.")
    found = {**SETTINGS, **personal}
    for key in ("epochs", "lr", "proximal_mu"):
        number = found[key] is None or isinstance(found[key], (int, float))
        if not number or (found[key] or 0) < 0:
            raise ValueError(
                f"personal: {key} is {found[key]!r}; it must be 0 or more."
            )
    return found


# ----------------------------------------------------------------------- the client's


def answer(site, own_data, message):
    """Test a client's models on its own recordings; reply with what they reach.

    Arguments
    ---------
    site : fed.site.Site
    own_data : bool
        Whether all data here are the client's.
    message : flwr.app.Message
        Of :func:`ask`.

    Returns
    -------
    flwr.app.Message

    Raises
    ------
    ValueError
        When this client's own settings do not have it.
    """
    start, config = time.perf_counter(), message.content["config"]
    client = config["client"]
    if not site.federation.personal:
        raise ValueError("this client's settings have no 'personal': it tells nothing")
    task = Task(config["server-round"], config["client-index"], client, config["run"])
    data = (site.train_set, site.train_options) if own_data else None
    metrics = measured(
        site,
        to_arrays(message.content["arrays"]),
        to_arrays(message.content["numbers"]),
        data or site.client_data(client),
        own_tests(site, None if own_data else client),
        task,
    )
    metrics["seconds"] = time.perf_counter() - start
    content = {"config": ConfigRecord({"client": client})}
    content["metrics"] = MetricRecord(metrics)
    return Message(RecordDict(content), reply_to=message)


def own_tests(site, client=None):
    """Return what a client, or the one that lives here, is tested on.

    Raises
    ------
    ValueError
        When there is nothing.
    """
    dataset = site.datasets.get("own")
    if dataset is None:
        raise ValueError(
            "personal: the datasets have no 'own', the recordings that clients are "
            "tested on (own_share: 0.2 holds them out, in the recipes of fedenhance)"
        )
    if client is None:
        return dataset
    if client not in getattr(dataset, "clients", {}):
        raise ValueError(f"personal: no recordings of client {client} are held out")
    return restrict(dataset, dataset.clients[client])


def measured(site, arrays, numbers, data, tests, task):
    """Test the model, then what a client makes of it, and keep that.

    Arguments
    ---------
    site : fed.site.Site
    arrays, numbers : dict of numpy.ndarray
        The model, and what the recipe counts outside of it.
    data : tuple
        Dataset and options of its loader, to go on training with.
    tests : Dataset
    task : fed.site.Task
        Whose, and after which round.

    Returns
    -------
    dict
        ``global_...``; ``local_...`` with weights that the client keeps;
        ``personal_...`` after training on; ``num-examples`` that were tested.
    """
    brain, found = site.brain, {"num-examples": len(tests)}
    options = loader_options(site.hparams, "test") or site.valid_options

    def test(kind):
        site.seed_all(task.server_round, task.index)
        set_arrays(brain, arrays)
        brain.set_numbers(numbers)
        stats = brain.test(tests, options)
        found.update({f"{kind}_{key}": value for key, value in stats.items()})

    test("global")
    state = site.states.load((task.run, task.client), task.server_round + 1)
    if state.get("arrays"):
        arrays = {**arrays, **state["arrays"]}
        test("local")
    if site.federation.personal["epochs"]:
        arrays = trained_on(site, arrays, numbers, data, task)
        test("personal")
    keep(site, arrays, task.client)
    return found


def trained_on(site, arrays, numbers, data, task):
    """Train a model on one client's data; return it."""
    brain, settings = site.brain, site.federation.personal
    weights = dict(brain.modules.named_parameters())
    chosen = {n for n, w in weights.items() if w.requires_grad}
    if settings["train"]:
        chosen &= matching(weights, settings["train"], "personal, train")
    task = Task(
        task.server_round,
        task.index,
        lr=settings["lr"],
        proximal_mu=settings["proximal_mu"],
    )
    set_arrays(brain, arrays)
    site.seed_all(task.server_round, task.index)
    with training_alone(weights, chosen):
        brain.local_update(
            *data,
            numbers=numbers,
            first_epoch=task.server_round * math.ceil(site.federation.local_epochs) + 1,
            epochs=settings["epochs"],
            sampler_offset=task.index * 1_000_003,
            on_optimizers=partial(site.adjust, numbers, task, {}),
        )
    trained = get_arrays(brain)
    if settings["train"]:  # statistics of layers that do not train stay, too
        return arrays | {name: trained[name] for name in chosen}
    return trained


@contextmanager
def training_alone(weights, chosen):
    """Let some weights train, by name, and no others."""
    before = {name: weight.requires_grad for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.requires_grad_(name in chosen)
        yield
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])


def keep(site, arrays, client):
    """Write a client's model as ``<module>.ckpt`` files, beside the run's YAML."""
    set_arrays(site.brain, arrays)
    folder = site.save_folder / FOLDER / file_name(client)
    for name, module in site.brain.modules.items():
        if state := module.state_dict():
            with whole_file(folder / f"{name}.ckpt") as partial_file:
                torch.save(state, partial_file)
    described = site.output_folder / "hyperparams.yaml"
    if described.exists():
        shutil.copyfile(described, folder / described.name)


# ----------------------------------------------------------------------- the server's


def ask(server):
    """Ask every client for what it reaches; write and return the table's rows.

    The model is the one that is best on validation; where clients keep weights of their
    own it is the newest, which these belong to.

    Arguments
    ---------
    server : fed.server.Server
        That has finished its rounds.

    Returns
    -------
    list of dict
    """
    site, brain, nodes = server.site, server.site.brain, server.grid.get_node_ids()
    best = arrays, numbers = get_arrays(brain), brain.numbers()
    if site.local:
        arrays, numbers = server.arrays, server.numbers
    content = {"arrays": to_record(arrays), "numbers": to_record(numbers)}
    done, nodes = len(server.ledger.rows), itertools.cycle(nodes)
    roster, messages = server.roster(), []
    server.simulated = all(node is None for _, node in roster)
    for index, (client, node) in enumerate(roster):
        config = {"command": server.command, "run": server.ledger.identity}
        config |= {"server-round": done, "client": client, "client-index": index}
        messages.append(
            Message(
                RecordDict({**content, "config": ConfigRecord(config)}),
                message_type=MessageType.EVALUATE,
                dst_node_id=next(nodes) if node is None else node,
                group_id=str(done),
            )
        )
    replies = collect(server.grid, messages, server.patience, server.report_waiting)
    replies = server.progress(replies, desc="own tests", total=len(roster))
    rows = [
        row_of(client, reply)
        for (client, _), reply in zip(roster, replies, strict=True)
    ]
    set_arrays(brain, best[0])
    brain.set_numbers(best[1])
    Table(site.output_folder / TABLE).rewrite(rows)
    tell(rows, server.federation)
    return rows


def row_of(client, reply):
    """Make the row of a client; what is no answer is its status."""
    row = client_row(client)
    row = {key: row[key] for key in ("client", "status", "seconds", "examples")}
    try:
        require_content(reply)
        require_names(reply.content, dict.fromkeys(("config", "metrics")), "records")
        metrics = checked(reply.content, client)
    except ValueError as error:
        logger.warning("Client %s: %s", client, line(error))
        return row | {"status": line(error)}
    return row | {"examples": int(metrics.pop("num-examples"))} | metrics


def checked(content, client):
    """Return the metrics of a reply, which must be numbers of fair names."""
    Schema({}).check_metrics({"loss": 0.0, **content["metrics"]})
    if dict(content["config"]) != {"client": client}:
        raise ValueError("answers for another client")
    return dict(content["metrics"])


def tell(rows, federation):
    """Log how many clients gain, by the metric that the best model is chosen by."""
    name = federation.metric.removeprefix("valid_")
    for kind in ("local", "personal"):
        pairs = [(row.get(f"global_{name}"), row.get(f"{kind}_{name}")) for row in rows]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            better = sum(federation.is_better(after, before) for before, after in pairs)
            before, after = (
                sum(side) / len(pairs) for side in zip(*pairs, strict=True)
            )
            logger.info(
                "Own recordings, %s: %.3f with the global model, %.3f %s; better for "
                "%d of %d clients.",
                *(name, before, after, kind, better, len(pairs)),
            )
