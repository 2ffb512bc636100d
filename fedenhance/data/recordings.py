"""Datasets of recordings whose parts nobody knows, for models that adapt to them."""

from pathlib import Path

from speechbrain.utils.logger import get_logger

from fedenhance.data.datasets import (
    evaluation_set,
    load_split,
    manifest_of,
    training_set,
)
from fedenhance.data.estimates import estimate_parts
from fedenhance.data.manifests import assign_clients, load_manifest
from fedenhance.data.tables import read_json

logger = get_logger(__name__)

GROUP = "self-training"
"""Of all examples, see ``fedenhance.training.remixit``."""


def dataio_prepare(hparams):
    """The datasets of an adaptation, as SpeechBrain's recipes prepare theirs.

    Arguments
    ---------
    hparams : dict
        ``manifest_folder``, as ``recipes.BareFolder`` writes it, ``data_folder``,
        ``mixing``, ``partition``, ``federation`` and ``epochs``; ``noise_folder``, of
        noises that every client may use, or null. What is null of
        ``segment``, ``rounds`` and ``local_epoch_p`` becomes what the manifests
        propose. With ``cleanest``, a share, training has the estimates of
        ``start_model``, see ``fedenhance.data.estimates``, kept in ``output_folder``.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``: a DynamicItemDataset each, without those
        whose manifest is null, which this machine does not hold. Examples have
        ``sources (3, time)``: in training the recording, or the estimate of speech,
        silence, and isolated noise where there is some, or an estimate of it; else the
        recording and silence, or its parts where the manifest has its ``speech``: such
        are scored by SI-SDR.
    """
    settle(hparams)
    mixing, sets = hparams["mixing"], {}
    if manifest_of(hparams, "train"):
        rows, shared = training_rows(hparams)
        noises = hparams.get("noise_folder")
        sets["train"] = training_set(rows, mixing, noises, shared)
    for split in ("valid", "test"):
        if not manifest_of(hparams, split):
            continue
        rows = load_split(hparams, split)
        for row in rows.values():
            group = "supervised" if row["speech"] else GROUP
            row |= {"group": group, "n_noises": 1, "noise_class": ""}
        sets[split] = evaluation_set(rows, mixing.sample_rate)
    return sets


def training_rows(hparams):
    """Rows to train on, and noises of all clients; see :func:`dataio_prepare`."""
    own, shared = isolated_noises(hparams)
    rows = {**load_split(hparams, "train"), **own}
    rows = assign_clients(rows, hparams["partition"])
    for row in rows.values():
        row["group"] = GROUP
    if "cleanest" in hparams:
        model, folder = hparams["start_model"], Path(hparams["output_folder"])
        rows = estimate_parts(rows, model, folder / "estimates", hparams["cleanest"])
    return rows, shared


def settle(hparams):
    """Fill what the YAML leaves open with what the manifests propose."""
    path = Path(hparams["manifest_folder"]) / "prepare.json"
    proposal = read_json(path).get("proposal", {}) if path.exists() else {}
    federation, mixing = hparams.get("federation"), hparams["mixing"]
    if hparams["segment"] is None:
        mixing.segment = proposal.get("segment", 4.0)
    if federation and hparams["rounds"] is None:
        federation.rounds = proposal.get("rounds", 10)
    if federation and hparams["local_epoch_p"] is None:
        federation.local_epochs = proposal.get("local_epochs", 1.0)


def isolated_noises(hparams):
    """Noise without speech: of a client, or of all.

    Returns
    -------
    own : dict
        Id -> row, with the client in whose recordings it was found.
    shared : list of Segment
    """
    path = Path(hparams["manifest_folder"]) / "noises.csv"
    if not path.exists():
        return {}, []
    rows = load_manifest(path, hparams["data_folder"])
    own = {key: row for key, row in rows.items() if row["client"]}
    return own, [row["noise"] for key, row in rows.items() if key not in own]
