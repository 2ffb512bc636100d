"""From a manifest to the datasets and batches of one client."""

import functools
from pathlib import Path

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from fedenhance.data.audio import noise_files
from fedenhance.data.manifests import (
    SIGNALS,
    assign_clients,
    assign_groups,
    check_files,
    group_by,
    hold_out,
    is_isolated_noise,
    load_manifest,
    save_manifest,
    take_isolated_noises,
)
from fedenhance.data.mixing import fixed_mixtures, read_fixed_mixture
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import grouped

logger = get_logger(__name__)


def none_if_damaged(read):
    """Let a function return ``None``, see :func:`collate`, where a file is damaged."""
    return functools.partial(read_or_none, read)


def read_or_none(read, *arguments):
    """Call a function that reads; say which file is damaged."""
    try:
        return read(*arguments)
    except DamagedAudioError as error:
        logger.warning_once(f"a recording is left out: {error}")
        return None


def training_set(rows, mixing, noise_folder=None, shared=()):
    """The dataset of all clients; federation and sampling take subsets of it.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``client`` and ``group``.
    mixing : fedenhance.data.mixing.MixtureOfMixtures
    noise_folder : str or None
        Noises that every client may draw, beside its own.
    shared : iterable of Segment
        More of those.

    Returns
    -------
    DynamicItemDataset
        One item a noisy recording: ``id``, ``group``, ``sources (3, time)``. Its
        attribute ``clients`` says whose they are: client -> ids.

    Raises
    ------
    ValueError
        If a client has no noisy recording, or no noise to add.
    """
    recordings = {k: row for k, row in rows.items() if not is_isolated_noise(row)}
    clients = group_by(recordings, "client")
    shared, pools = [*noise_files(noise_folder), *shared], {}
    for client, keys in group_by(rows, "client").items():
        alone = (rows[key] for key in keys if key not in recordings)
        pools[client] = shared + [row["noise"] for row in alone]
        if client not in clients:
            raise ValueError(
                f"client {client} has no noisy recordings; use fewer clients, or a "
                "larger available_speech_percentage"
            )
        groups = {recordings[key]["group"] for key in clients[client]}
        if "unsupervised" in groups and not pools[client]:
            raise ValueError(
                f"client {client} has no isolated noise recordings; use fewer clients, "
                "a smaller available_speech_percentage, or a noise_folder"
            )
    dataset = DynamicItemDataset(recordings)
    dataset.add_dynamic_item(
        none_if_damaged(functools.partial(draw, mixing, pools)),
        takes=["id", "client", "speech", "noise", "noisy"],
        provides="sources",
    )
    dataset.set_output_keys(["id", "group", "sources"])
    dataset.clients = clients
    return dataset


def draw(mixing, pools, example_id, client, *segments):
    """Draw an example of a client; reading processes of any kind can be told this."""
    return mixing(example_id, *segments, pools[client])


def evaluation_set(mixtures, sample_rate, loop_noise=False):
    """The dataset of fixed mixtures that a model is validated or tested on.

    Arguments
    ---------
    mixtures : dict
        Id -> row, as ``fedenhance.data.mixing.fixed_mixtures`` makes them.
    sample_rate : int
        In Hz.
    loop_noise : bool

    Returns
    -------
    DynamicItemDataset
        One item a mixture: ``id``, ``group``, ``n_noises``, ``spk_id``,
        ``noise_class``, ``sources (3, time)``.
    """
    read = functools.partial(read_one_of, mixtures, sample_rate, loop_noise)
    dataset = DynamicItemDataset(mixtures)
    dataset.add_dynamic_item(none_if_damaged(read), takes=["id"], provides="sources")
    dataset.set_output_keys(
        ["id", "group", "n_noises", "spk_id", "noise_class", "sources"]
    )
    return dataset


def read_one_of(mixtures, sample_rate, loop_noise, example_id):
    """Read a fixed mixture by its id."""
    return read_fixed_mixture(mixtures[example_id], sample_rate, loop_noise)


class UnreadableBatch:
    """Stands for a batch of which nothing could be read.

    Attributes
    ----------
    id : list
        Empty.
    skipped : list of str
        Ids of the damaged recordings.
    """

    def __init__(self, skipped):
        self.id = []
        self.skipped = skipped

    def __len__(self):
        return 0

    def to(self, *args, **kwargs):
        """Hold nothing that could move."""
        return self


class UnequalBatch:
    """Examples of several lengths, to be evaluated without padding.

    Attributes
    ----------
    id : list of str
    parts : list of PaddedBatch
        The examples of each length.
    skipped : list of str
        Ids of the damaged recordings.
    """

    def __init__(self, parts):
        self.parts = parts
        self.id = [key for part in parts for key in part.id]

    def __len__(self):
        return len(self.id)

    def to(self, *args, **kwargs):
        """Move all parts."""
        self.parts = [part.to(*args, **kwargs) for part in self.parts]
        return self


def collate(examples, signal="sources"):
    """Batch the examples that could be read.

    Arguments
    ---------
    examples : list of dict
        As the datasets here give them.
    signal : str
        What is ``None`` in a damaged recording.

    Returns
    -------
    PaddedBatch, UnequalBatch or UnreadableBatch
        Of the readable examples; its ``skipped`` lists the ids of the others.
    """
    readable = [example for example in examples if example[signal] is not None]
    skipped = [example["id"] for example in examples if example[signal] is None]
    # Waveforms alone are padded; sources beside each other cannot be.
    alike = grouped(readable, lambda example: example[signal].shape[1:])
    parts = [PaddedBatch(part) for part in alike.values()]
    if len(parts) > 1:
        batch = UnequalBatch(parts)
    else:
        batch = parts[0] if parts else UnreadableBatch(skipped)
    batch.skipped = skipped
    return batch


def dataio_prepare(hparams):
    """The datasets of an experiment, as SpeechBrain's recipes prepare theirs.

    Arguments
    ---------
    hparams : dict
        The experiment: ``train_csv``, ``valid_csv`` and ``test_csv``, ``None`` for what
        this machine does not hold; ``data_folder``, ``mixing``, ``partition``,
        ``client_groups``, ``p_labelled``, ``available_speech_percentage``,
        ``noise_folder``, ``valid_size``, ``test_size``, ``output_folder`` and ``seed``.
        The mixtures of ``valid`` and ``test`` are written to ``output_folder``, so that
        others can score the same ones.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``: a DynamicItemDataset each. With an
        ``own_share``, that of each client's recordings is not trained on, and becomes
        ``own``, whose attribute ``clients`` says whose they are.

    Raises
    ------
    ValueError
        If ``maximize`` is an SI-SDR, and validation has no clean references.
    """
    mixing, sets = hparams["mixing"], {}
    if manifest_of(hparams, "train"):
        rows = client_rows(hparams)
        if share := hparams.get("own_share"):
            rows, held_out = hold_out(rows, share)
            sets["own"] = own_set(held_out, mixing)
        sets["train"] = training_set(rows, mixing, hparams["noise_folder"])
    for split in ("valid", "test"):
        if not manifest_of(hparams, split):
            continue
        mixtures = split_mixtures(hparams, split)
        if split == "valid":
            check_references(mixtures, hparams.get("maximize"))
        path = Path(hparams["output_folder"]) / f"{split}_mixtures.csv"
        save_manifest(path, mixtures, hparams["data_folder"])
        sets[split] = evaluation_set(mixtures, mixing.sample_rate, mixing.loop_noise)
    return sets


def check_references(mixtures, maximize):
    """Raise ValueError if the best model cannot be chosen, before there is any."""
    key = (maximize or "").removeprefix("valid_")
    if key.startswith("si_sdr") and not any(row["speech"] for row in mixtures.values()):
        raise ValueError(
            f"maximize is {key}, which needs clean speech, and no validation recording "
            "has it: --maximize null chooses the best model by the loss"
        )


def own_set(rows, mixing):
    """The dataset of fixed mixtures that each client is tested on by itself.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``client``, noisy recordings and isolated noises.
    mixing : fedenhance.data.mixing.MixtureOfMixtures

    Returns
    -------
    DynamicItemDataset
        As :func:`evaluation_set`; ``clients`` maps a client to its ids.
    """
    mixtures, clients = {}, {}
    for client, keys in group_by(rows, "client").items():
        own = fixed_mixtures({key: rows[key] for key in keys}, mixing)
        clients[client] = list(own)
        mixtures |= own
    dataset = evaluation_set(mixtures, mixing.sample_rate, mixing.loop_noise)
    dataset.clients = clients
    return dataset


def client_rows(hparams):
    """Load the rows to train on; say whose they are, and who has clean references."""
    partition = hparams["partition"]
    rows = load_split(hparams, "train")
    take_isolated_noises(rows, hparams["available_speech_percentage"])
    rows = assign_clients(rows, partition)
    assign_groups(
        rows,
        "client" if partition else "spk_id",
        hparams["client_groups"],
        hparams["seed"],
        hparams["p_labelled"],
    )
    return rows


def manifest_of(hparams, split):
    """Find the manifest of one split; runs of older versions name the folder alone."""
    folder = Path(hparams.get("manifest_folder") or ".")
    return hparams.get(f"{split}_csv", folder / f"{split}.csv")


def load_split(hparams, split):
    """Load the rows of one split of an experiment, see ``load_manifest``."""
    path = manifest_of(hparams, split)
    rows = load_manifest(path, hparams["data_folder"])
    check_files(rows, path, SIGNALS)
    return rows


def split_mixtures(hparams, split):
    """The fixed mixtures of one split of an experiment, see ``fixed_mixtures``.

    Every run is scored on the same ones, whatever its own seed.
    """
    return fixed_mixtures(
        take_isolated_noises(load_split(hparams, split), 0.5),
        hparams["mixing"],
        size=hparams[f"{split}_size"],
        noises=noise_files(hparams["noise_folder"]),
    )
