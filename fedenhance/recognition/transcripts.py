"""Datasets of transcribed speech, from the manifests of recognition."""

from functools import partial

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from fedenhance.data import datasets
from fedenhance.data.audio import read_segment
from fedenhance.data.manifests import check_files, load_rows
from fedenhance.recognition.tokenizer import BLANK

logger = get_logger(__name__)


def load_transcripts(path, data_root):
    """Load a manifest of transcribed speech.

    Arguments
    ---------
    path : str
        CSV with ``ID``, ``duration`` in seconds, ``wav``, ``wrd``, and ``spk_id``.
    data_root : str
        Replaces ``$data_root``.

    Returns
    -------
    dict
        Id -> row. Rows without words are left out, and counted in the log.

    Raises
    ------
    FileNotFoundError, ValueError
        If the manifest is missing, names no audio in a row, or has no words.
    """
    rows = load_rows(path, data_root)
    for key, row in rows.items():
        if not row.get("wav"):
            raise ValueError(f"{path}: {key} names no wav")
    check_files(rows, path, ["wav"])
    spoken = {key: row for key, row in rows.items() if (row.get("wrd") or "").strip()}
    if not spoken:
        raise ValueError(f"{path} has no transcripts in a column wrd")
    if empty := len(rows) - len(spoken):
        logger.warning("%s: %d empty transcripts are left out", path, empty)
    return spoken


def transcribed_set(rows, tokenizer, sample_rate, frame_shift):
    """The dataset of a manifest.

    Arguments
    ---------
    rows : dict
        As :func:`load_transcripts` gives them.
    tokenizer : Tokenizer
        Asked when an item is read: by then it has come with the weights.
    sample_rate : int
        In Hz; files of another rate are resampled.
    frame_shift : float
        Seconds from one output of the network to the next.

    Returns
    -------
    DynamicItemDataset
        ``id``; ``wrd``; ``sig (time,)``, ``None`` for a damaged file; ``tokens
        (label,)`` without unknown ones; ``fault``, why it cannot be trained on, or
        ``None``.
    """
    dataset = DynamicItemDataset(rows)
    dataset.add_dynamic_item(
        datasets.none_if_damaged(partial(read, sample_rate)),
        takes=["wav", "duration"],
        provides="sig",
    )
    dataset.add_dynamic_item(
        partial(encode, tokenizer, frame_shift),
        takes=["wrd", "duration"],
        provides=["tokens", "fault"],
    )
    dataset.set_output_keys(["id", "wrd", "sig", "tokens", "fault"])
    return dataset


def read(sample_rate, wav, duration):
    """Read a recording."""
    samples = max(1, round(duration * sample_rate)) if duration else 0
    return read_segment(wav, 0, 0, sample_rate, samples)


def encode(tokenizer, frame_shift, wrd, duration):
    """Yield the known tokens of a transcript, and what is wrong with it or ``None``."""
    ids = tokenizer.encode(wrd)
    known = [i for i in ids if i != BLANK]
    yield torch.tensor(known, dtype=torch.long)
    if len(known) < len(ids):
        yield f"unknown character {tokenizer.unknown(wrd)!r}"
    elif duration < frames_needed(ids) * frame_shift:
        yield f"{duration} s are too short for {len(ids)} tokens"
    else:
        yield None


def frames_needed(ids):
    """The least number of frames from which CTC can spell a label.

    One for each token, and a blank between two that are alike (Graves et al., 2006,
    section 3.1).

    Example
    -------
    >>> frames_needed([5, 7, 7])
    4
    """
    return len(ids) + sum(a == b for a, b in zip(ids, ids[1:], strict=False))


def collate(examples):
    """Batch for validation and test: all that can be read.

    Arguments
    ---------
    examples : list of dict
        Of :func:`transcribed_set`.

    Returns
    -------
    PaddedBatch or UnreadableBatch
        ``skipped`` lists the ids of those that are left out.
    """
    return datasets.collate(examples, "sig")


def collate_for_training(examples):
    """Batch for training: without utterances that CTC cannot learn from.

    Those with an unknown character, or too short for their transcript, are left out;
    the batch counts them in ``skipped``, and the log says why.
    """
    faulty = [example for example in examples if example["fault"]]
    for example in faulty:
        logger.warning_once(f"{example['id']} is left out: {example['fault']}")
    batch = collate([example for example in examples if not example["fault"]])
    batch.skipped = batch.skipped + [example["id"] for example in faulty]
    return batch


def dataio_prepare(hparams):
    """The datasets of an experiment, as SpeechBrain's recipes prepare theirs.

    Arguments
    ---------
    hparams : dict
        ``train_csv``, ``valid_csv``, ``test_csv`` and ``server_csv``, ``None`` for what
        this machine does not hold; ``data_folder``, ``save_folder``, ``sample_rate``;
        ``hop_length`` in milliseconds, and how many of them, ``time_pooling_size``, the
        encoder makes one; ``modules`` with the ``tokenizer``, which is trained here if
        it is to be.

    Returns
    -------
    dict
        ``train``, ``valid``, ``test``, ``server``: a DynamicItemDataset each.
    """
    tokenizer = hparams["modules"]["tokenizer"]
    tokenizer.prepare(hparams["save_folder"])
    shift = hparams["hop_length"] / 1000 * hparams["time_pooling_size"]
    sets = {}
    for split in ("train", "valid", "test", "server"):
        path = hparams[f"{split}_csv"]
        if path is not None:
            rows = load_transcripts(path, hparams["data_folder"])
            sets[split] = transcribed_set(
                rows, tokenizer, hparams["sample_rate"], shift
            )
    return sets
