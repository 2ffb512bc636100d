"""Prepare LibriFSD50K: pair LibriSpeech with FSD50K, client by client.

As in E. Tzinis, J. Casebeer, Z. Wang and P. Smaragdis, "Separate but together:
unsupervised federated learning for speech enhancement from non-IID data", WASPAA 2021.
From the root of the repository::

    python -m recipes.LibriFSD50K.prepare /data manifests --storage packed
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from speechbrain.utils.logger import get_logger

from recipes import manifests
from recipes.audio_files import hash_order, read_headers
from recipes.LibriFSD50K import corpora
from recipes.MiniLibriFSD50K import generate as built_in
from recipes.storage import STORAGES

VERSION = 1
SMALL_CORPUS = 10_000
"""FSD50K has 40,966 clips for development: with fewer than this, noises come again."""

logger = get_logger(__name__)


def prepare(
    data_folder=None,
    save_folder="manifests",
    built_in_corpus="data/MiniLibriFSD50K",
    seed=1234,
    storage="files",
    storage_folder=None,
    loop_noise=False,
    reuse_noises=None,
    chunk_seconds=4.0,
    train_share=0.9,
    jobs=None,
):
    """Write ``train.csv``, ``valid.csv`` and ``test.csv``.

    One row is a chunk of an utterance with a chunk of a noise. Each utterance has one
    clip of noise; both count as one chunk long at least, and there are as many rows
    as the shorter has whole chunks. A row's positions are frames of the named file;
    where the file ends before the chunk does, the column ``padded`` names the side, and
    the reader pads or repeats. ``skipped.csv`` names the files that were left out, and
    why. Nothing is done when the same files were prepared with the same options.

    Arguments
    ---------
    data_folder : str, optional
        Holds ``LibriSpeech/`` and ``FSD50K/``. None, or the same as `built_in_corpus`:
        the synthetic corpus, which is made on first use.
    save_folder : str
        Where the manifests go.
    built_in_corpus : str
        Where the synthetic corpus is or will be.
    seed : int
        Decides which noises are for validation, and which utterance has which noise.
    storage : str
        "files": rows point into the corpora, nothing is copied. "chunks": each chunk
        becomes a wav file. "packed": int16 arrays at 16 kHz, mapped into memory.
    storage_folder : str, optional
        Where "chunks" and "packed" write; ``data_folder/LibriFSD50K`` by default, or
        the save folder where the data are read-only.
    loop_noise : bool
        Noises shorter than their utterance are used from the start again, instead of
        limiting the number of chunks.
    reuse_noises : bool, optional
        When there are more utterances than noises, go through the noises again, in
        another order. Otherwise the remaining utterances are left out, as in the
        paper. By default, true for corpora of less than 10,000 clips.
    chunk_seconds : float
        Length of a chunk in seconds.
    train_share : float
        Share of the development noises that are for training; the rest validates.
    jobs : int, optional
        Threads.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps: options, counts, digests.

    Raises
    ------
    LayoutError
        When the data folder is missing or not laid out as the corpora are.
    ValueError
        When a split would be empty, or share a speaker or a clip with another.
    """
    save_folder = Path(save_folder)
    data_folder = built_in.find_or_generate(data_folder, built_in_corpus)
    options = {
        "seed": seed,
        "storage": storage,
        "storage_folder": None if storage_folder is None else str(storage_folder),
        "loop_noise": loop_noise,
        "reuse_noises": reuse_noises,
        "chunk_seconds": chunk_seconds,
        "train_share": train_share,
    }
    manifests.check_options(options)
    if not 0 < train_share < 1:
        raise ValueError(f"train_share must lie in (0, 1): {train_share}")
    corpora.check_layout(data_folder)
    inventory = _Inventory(data_folder, seed, train_share)
    fingerprint = inventory.fingerprint(options)
    record = manifests.finished(save_folder, fingerprint)
    if record:
        logger.info(f"{save_folder} is prepared already.")
        return record
    headers, damaged = read_headers(data_folder, inventory.paths(), jobs)
    inventory.keep(headers)
    skipped = inventory.skipped + damaged
    tables = {
        split: _rows(inventory, split, headers, options) for split in inventory.speech
    }
    manifests.check_tables(tables)
    tables, broken, stored_in = manifests.store(
        "LibriFSD50K", tables, data_folder, save_folder, options, jobs
    )
    return manifests.write_manifests(
        save_folder,
        tables,
        skipped + broken,
        options,
        fingerprint,
        stored_in,
        human_voice=inventory.human,
        unpaired_utterances=_unpaired(inventory, tables),
    )


def _unpaired(inventory, tables):
    """Count the utterances of each split that have no noise, and say so."""
    unpaired = {
        split: len(inventory.speech[split])
        - len({row["ID"].rsplit("_", 1)[0] for row in rows})
        for split, rows in tables.items()
    }
    for split, number in unpaired.items():
        if number:
            logger.info(
                f"{split}: {number} utterances have no noise and are left out; "
                "reuse_noises would take them in."
            )
    return unpaired


class _Inventory:
    """The usable files of both corpora, by split.

    Attributes: ``speech`` and ``noise``, split -> {path: (bytes, mtime)}; ``labels``,
    path -> labels; ``skipped``; ``human``, the number of clips with human voices.
    """

    def __init__(self, data_folder, seed, train_share):
        self.data_folder, self.skipped, self.speech = data_folder, [], {}
        for split, subsets in corpora.SPEECH_SUBSETS.items():
            self.speech[split], skipped = corpora.list_speech(data_folder, subsets)
            self.skipped += skipped
        dev, labels, skipped, human = corpora.list_noises(data_folder, "dev")
        test, test_labels, test_skipped, test_human = corpora.list_noises(
            data_folder, "eval"
        )
        self.labels = labels | test_labels
        self.skipped += skipped + test_skipped
        self.human = len(human) + len(test_human)
        self.clips = len(dev) + len(human)
        order = hash_order(dev, seed, "split")
        first = int(len(order) * train_share)
        self.noise = {
            "train": {path: dev[path] for path in order[:first]},
            "valid": {path: dev[path] for path in order[first:]},
            "test": test,
        }

    def paths(self):
        """All usable files."""
        sides = (*self.speech.values(), *self.noise.values())
        return [path for files in sides for path in files]

    def keep(self, headers):
        """Forget the files that have no header."""
        for side in (self.speech, self.noise):
            for split, files in side.items():
                side[split] = {p: s for p, s in files.items() if p in headers}

    def fingerprint(self, options):
        """Digest of the options and of the names, sizes and times of all files."""
        digest = hashlib.sha256(json.dumps([VERSION, options]).encode())
        for side in (self.speech, self.noise):
            for split, files in side.items():
                digest.update(json.dumps([split, sorted(files.items())]).encode())
        digest.update(json.dumps(sorted(self.labels.items())).encode())
        digest.update(json.dumps(sorted(self.skipped)).encode())
        return digest.hexdigest()


def _noise_sequence(noises, seed, split, reuse):
    """Noises in the order in which utterances take them."""
    turn = 0
    while True:
        yield from hash_order(noises, seed, "pair", split, turn)
        turn += 1
        if not reuse:
            return


def _rows(inventory, split, headers, options):
    """Pair the utterances of a split with its noises; rows of the manifest."""
    noises = list(inventory.noise[split])
    if not noises or not inventory.speech[split]:
        what = "noise" if inventory.speech[split] else "speech"
        raise ValueError(f"{inventory.data_folder} has no usable {what} for {split}.")
    reuse = options["reuse_noises"]
    reuse = inventory.clips < SMALL_CORPUS if reuse is None else reuse
    sequence = _noise_sequence(noises, options["seed"], split, reuse)
    rows = []
    # Not strict: without reuse, the utterances for which no noise is left have no rows.
    for speech, noise in zip(inventory.speech[split], sequence, strict=False):
        common = {
            "spk_id": str(corpora.utterance_key(speech)[0]),
            "noise_class": inventory.labels[noise][0],
            "noise_id": Path(noise).stem,
        }
        rows += manifests.chunk_rows(speech, noise, headers, common, options)
    return rows


def parse_arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help="holds LibriSpeech/ and FSD50K/")
    parser.add_argument("save_folder", help="where the manifests go")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--storage", choices=list(STORAGES), default="files")
    parser.add_argument(
        "--materialize",
        dest="storage",
        action="store_const",
        const="chunks",
        help="the same as --storage chunks",
    )
    parser.add_argument("--storage_folder")
    parser.add_argument("--loop_noise", action="store_true")
    parser.add_argument(
        "--reuse_noises", action=argparse.BooleanOptionalAction, default=None
    )
    parser.add_argument("--chunk_seconds", type=float, default=4.0)
    parser.add_argument("--train_share", type=float, default=0.9)
    parser.add_argument("--jobs", type=int)
    parser.add_argument(
        "--verify", action="store_true", help="then read and check every chunk"
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Run from the command line; returns the exit status."""
    arguments = vars(parse_arguments(argv))
    verify = arguments.pop("verify")
    manifests.prepare_and_tell(prepare, {"built_in_corpus": None, **arguments})
    if verify:
        from recipes.LibriFSD50K.verify import main as verify_main

        return verify_main([arguments["data_folder"], arguments["save_folder"]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
