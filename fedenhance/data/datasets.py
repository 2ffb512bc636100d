"""From a manifest to the datasets and batches of one client."""

from pathlib import Path

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from fedenhance.data.audio import DamagedAudioError, noise_files
from fedenhance.data.manifests import (
    assign_clients,
    assign_groups,
    group_by,
    is_isolated_noise,
    load_manifest,
    save_manifest,
    take_isolated_noises,
)
from fedenhance.data.mixing import fixed_mixtures, read_fixed_mixture

logger = get_logger(__name__)

EVALUATION_SEED = 0
"""Every run is scored on the same mixtures, whatever its own seed."""


def training_set(rows, mixing, noise_folder=None):
    """The dataset of all clients; federation and sampling take subsets of it.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``client`` and ``group``.
    mixing : fedenhance.data.mixing.MixtureOfMixtures
    noise_folder : str or None
        Noises that every client may draw, beside its own.

    Returns
    -------
    DynamicItemDataset
        One item a noisy recording: ``id``, ``group``, ``sources (3, time)``.

    Raises
    ------
    ValueError
        If a client has no noisy recording, or no noise to add.
    """
    recordings = {k: row for k, row in rows.items() if not is_isolated_noise(row)}
    shared = noise_files(noise_folder)
    pools = {client: list(shared) for client in group_by(rows, "client")}
    for row in filter(is_isolated_noise, rows.values()):
        pools[row["client"]].append(row["noise"])
    holders = group_by(recordings, "client")
    for client, pool in pools.items():
        if client not in holders:
            raise ValueError(
                f"client {client} has no noisy recordings; use fewer clients, or a "
                "larger available_speech_percentage"
            )
        mixes = any(
            recordings[key]["group"] == "unsupervised" for key in holders[client]
        )
        if mixes and not pool:
            raise ValueError(
                f"client {client} has no isolated noise recordings; use fewer clients, "
                "a smaller available_speech_percentage, or a noise_folder"
            )

    def draw(example_id, client, speech, noise, noisy):
        return _or_none(mixing, example_id, speech, noise, noisy, pools[client])

    dataset = DynamicItemDataset(recordings)
    dataset.add_dynamic_item(
        draw, takes=["id", "client", "speech", "noise", "noisy"], provides="sources"
    )
    dataset.set_output_keys(["id", "group", "sources"])
    return dataset


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

    def read(example_id):
        row = mixtures[example_id]
        num_samples = round(float(row["duration"]) * sample_rate)
        return _or_none(
            read_fixed_mixture,
            row,
            loop_noise=loop_noise,
            sample_rate=sample_rate,
            num_samples=num_samples,
        )

    dataset = DynamicItemDataset(mixtures)
    dataset.add_dynamic_item(read, takes=["id"], provides="sources")
    dataset.set_output_keys(
        ["id", "group", "n_noises", "spk_id", "noise_class", "sources"]
    )
    return dataset


def _or_none(read, *arguments, **options):
    """The signals, or ``None`` (see :func:`collate`) where a file is damaged."""
    try:
        return read(*arguments, **options)
    except DamagedAudioError as error:
        logger.warning("a recording is left out: %s", error)
        return None


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
    PaddedBatch or UnreadableBatch
        Of the readable examples; its ``skipped`` lists the ids of the others.
    """
    readable = [example for example in examples if example[signal] is not None]
    skipped = [example["id"] for example in examples if example[signal] is None]
    batch = PaddedBatch(readable) if readable else UnreadableBatch(skipped)
    batch.skipped = skipped
    return batch


def dataio_prepare(hparams):
    """The datasets of an experiment, as SpeechBrain's recipes prepare theirs.

    Arguments
    ---------
    hparams : dict
        The experiment: ``manifest_folder`` with ``train.csv``, ``valid.csv`` and
        ``test.csv``, ``data_folder``, ``mixing``, ``partition``, ``client_groups``,
        ``p_labelled``, ``available_speech_percentage``, ``noise_folder``,
        ``valid_size``, ``test_size``, ``output_folder`` and ``seed``. The mixtures of
        ``valid`` and ``test`` are written to ``output_folder``, so that others can
        score the same ones.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``: a DynamicItemDataset each.
    """
    seed, mixing = hparams["seed"], hparams["mixing"]
    rows = load_manifest(
        Path(hparams["manifest_folder"]) / "train.csv", hparams["data_folder"]
    )
    take_isolated_noises(rows, hparams["available_speech_percentage"])
    partition = hparams["partition"]
    assign_clients(rows, partition)
    assign_groups(
        rows,
        "client" if partition else "spk_id",
        hparams["client_groups"],
        seed,
        hparams["p_labelled"],
    )
    sets = {"train": training_set(rows, mixing, hparams["noise_folder"])}
    for split in ("valid", "test"):
        mixtures = split_mixtures(hparams, split)
        path = Path(hparams["output_folder"]) / f"{split}_mixtures.csv"
        save_manifest(path, mixtures, hparams["data_folder"])
        sets[split] = evaluation_set(mixtures, mixing.sample_rate, mixing.loop_noise)
    return sets


def split_mixtures(hparams, split):
    """The fixed mixtures of one split of an experiment, see ``fixed_mixtures``."""
    mixing = hparams["mixing"]
    rows = load_manifest(
        Path(hparams["manifest_folder"]) / f"{split}.csv", hparams["data_folder"]
    )
    duration = max(float(row["duration"]) for row in rows.values())
    return fixed_mixtures(
        take_isolated_noises(rows, 0.5),
        EVALUATION_SEED,
        size=hparams[f"{split}_size"],
        snr_range=mixing.snr_range,
        noises=noise_files(hparams["noise_folder"]),
        loop_noise=mixing.loop_noise,
        sample_rate=mixing.sample_rate,
        num_samples=round(duration * mixing.sample_rate),
    )
