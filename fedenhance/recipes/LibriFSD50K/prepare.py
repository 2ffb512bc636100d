"""Prepare LibriFSD50K: pair LibriSpeech with FSD50K, client by client.

As in E. Tzinis, J. Casebeer, Z. Wang and P. Smaragdis, "Separate but together:
unsupervised federated learning for speech enhancement from non-IID data", WASPAA 2021.
From the root of the repository::

    python -m fedenhance.recipes.LibriFSD50K.prepare /data manifests --storage packed
"""

import sys
from pathlib import Path

from speechbrain.utils.logger import get_logger

from fedenhance.recipes import preparation
from fedenhance.recipes.audio_files import hash_order, read_headers
from fedenhance.recipes.chunks import checked_options, chunk_rows, write_chunks
from fedenhance.recipes.LibriFSD50K import corpora
from fedenhance.recipes.MiniLibriFSD50K import generate as built_in

VERSION = 1
SMALL_CORPUS = 10_000
"""FSD50K has 40,966 clips for development: with fewer than this, noises come again."""

logger = get_logger(__name__)


def prepare(
    data_folder: str = None,
    save_folder="manifests",
    built_in_corpus="data/MiniLibriFSD50K",
    seed=1234,
    reuse_noises: bool = None,
    train_share=0.9,
    jobs: int = None,
    **options,
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
    reuse_noises : bool, optional
        When there are more utterances than noises, go through the noises again, in
        another order. Otherwise the remaining utterances are left out, as in the
        paper. By default, true for corpora of less than 10,000 clips.
    train_share : float
        Share of the development noises that are for training; the rest validates.
    jobs : int, optional
        Threads.
    **options
        Of :func:`fedenhance.recipes.chunks.checked_options`: storage, storage_folder,
        loop_noise, chunk_seconds.

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
    options = checked_options(**options)
    options |= {"seed": seed, "reuse_noises": reuse_noises, "train_share": train_share}
    if not 0 < train_share < 1:
        raise ValueError(f"train_share must lie in (0, 1): {train_share}")
    corpora.check_layout(data_folder)
    files, labels, skipped, human = _list_files(data_folder, seed, train_share)
    fingerprint = preparation.fingerprint_of(VERSION, options, files, labels, skipped)
    record = preparation.finished(save_folder, fingerprint)
    if record:
        return record
    if reuse_noises is None:
        noises = (files[split]["noise"] for split in ("train", "valid"))
        reuse_noises = human["dev"] + sum(map(len, noises)) < SMALL_CORPUS
    paths = [p for sides in files.values() for side in sides.values() for p in side]
    headers, damaged = read_headers(data_folder, paths, jobs)
    pairs = {
        split: _pair(split, sides, labels, headers, seed, reuse_noises)
        for split, sides in files.items()
    }
    tables = {s: chunk_rows(found, headers, options) for s, found in pairs.items()}
    skipped += damaged
    preparation.check_tables(tables, skipped, ("ID", "spk_id", "noise_id"))
    return write_chunks(
        "LibriFSD50K",
        tables,
        skipped,
        (data_folder, save_folder),
        options,
        jobs,
        fingerprint=fingerprint,
        human_voice=sum(human.values()),
        unpaired_utterances={
            split: sum(path in headers for path in sides["speech"]) - len(pairs[split])
            for split, sides in files.items()
        },
    )


def _list_files(data_folder, seed, train_share):
    """List the files of both corpora.

    Returns
    -------
    files : dict
        Split -> "speech" and "noise" -> path -> (bytes, modification time).
    labels : dict
        Path of a noise -> labels.
    skipped : list of Skipped
        Files that cannot be used.
    human : dict
        "dev" and "eval" -> number of clips with human voices.
    """
    speech, noise, labels, skipped, human = {}, {}, {}, [], {}
    for split, subsets in corpora.SPEECH_SUBSETS.items():
        speech[split], misnamed = corpora.list_speech(data_folder, subsets)
        skipped += misnamed
    for part in ("dev", "eval"):
        noise[part], named, odd, voices = corpora.list_noises(data_folder, part)
        labels |= named
        skipped += odd
        human[part] = len(voices)
    order = hash_order(noise["dev"], seed, "split")
    first = int(len(order) * train_share)
    noise["train"] = {path: noise["dev"][path] for path in order[:first]}
    noise["valid"] = {path: noise["dev"][path] for path in order[first:]}
    noise["test"] = noise["eval"]
    files = {s: {"speech": speech[s], "noise": noise[s]} for s in speech}
    return files, labels, skipped, human


def _pair(split, sides, labels, headers, seed, reuse):
    """Pair the utterances of a split with its noises, as chunk_rows takes them."""
    speech, noises = ([p for p in files if p in headers] for files in sides.values())
    if not (speech and noises):
        what = "noise" if speech else "speech"
        raise ValueError(f"The corpora have no usable {what} for {split}.")
    # Not strict: without reuse, noises come to an end before utterances do.
    pairs = zip(speech, _noise_sequence(noises, seed, split, reuse), strict=False)
    found = [
        (
            path,
            noise,
            {
                "spk_id": str(corpora.utterance_key(path)[0]),
                "noise_class": labels[noise][0],
            },
        )
        for path, noise in pairs
    ]
    if len(found) < len(speech):
        logger.info(
            f"{split}: {len(speech) - len(found)} utterances have no noise and are "
            "left out; reuse_noises would take them in."
        )
    return found


def _noise_sequence(noises, seed, split, reuse):
    """Noises in the order in which utterances take them."""
    turn = 0
    while True:
        yield from hash_order(noises, seed, "pair", split, turn)
        turn += 1
        if not reuse:
            return


def main(argv=None):
    """Run from the command line; returns the exit status."""
    parser = preparation.parser_of(prepare, checked_options)
    parser.add_argument(
        "--verify", action="store_true", help="then read and check every chunk"
    )
    arguments = vars(parser.parse_args(argv))
    verify = arguments.pop("verify")
    preparation.tell(prepare, arguments)
    if verify:
        from fedenhance.recipes.LibriFSD50K.verify import main as verify_main

        return verify_main([arguments["data_folder"], arguments["save_folder"]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
