"""Prepare WHAM! in the per-speaker form that federated pre-training needs.

The speech is WSJ0, from the user's own copy, or LibriSpeech, as in LibriMix. From the
root of the repository::

    python -m fedenhance.recipes.WHAM.prepare /data manifests --speech wsj0
    python -m fedenhance.recipes.WHAM.prepare /data manifests --speech librispeech

G. Wichern et al., "WHAM!: extending speech separation to noisy environments",
Interspeech 2019; J. Cosentino et al., "LibriMix: an open-source dataset for
generalizable speech separation", 2020.
"""

from pathlib import Path

from fedenhance.data.folders import Skipped, find_files
from fedenhance.recipes import preparation
from fedenhance.recipes.audio_files import hash_order, read_headers
from fedenhance.recipes.chunks import checked_options, chunk_rows, write_chunks
from fedenhance.recipes.LibriFSD50K.corpora import (
    SPEECH_SUBSETS,
    check_layout,
    list_speech,
    utterance_key,
)

VERSION = 1
FOLDERS = {"train": "tr", "valid": "cv", "test": "tt"}
NOISE_CLASS = "Ambient"
LAYOUT = """expected
  wham_noise/{tr,cv,tt}/*.wav (recipes/WHAM/download.py fetches it), and
  wsj0/**/<utterance>.wav, such as wsj0/si_tr_s/40n/40na010x.wav, for --speech wsj0, or
  LibriSpeech/{train-clean-100,train-clean-360,dev-clean,test-clean}/ for librispeech"""


def prepare(
    data_folder,
    save_folder,
    speech="wsj0",
    seed=1234,
    jobs: int = None,
    **options,
):
    """Write ``train.csv``, ``valid.csv`` and ``test.csv`` in LibriFSD50K's columns.

    Each noise of WHAM! is named after the mixture it belongs to, which begins with the
    first speaker's utterance: with WSJ0, speech and noise are paired as in the task
    "enh_single" of WHAM! at its full length ("max") and 16 kHz. With LibriSpeech, each
    utterance has one noise of the same split, in an order drawn from the seed. Files
    keep their own levels; WHAM! draws the SNR from -6 to 3 dB, which
    ``snr_range: [-6, 3]`` of an experiment does at load time.

    Arguments
    ---------
    data_folder : str
        Holds ``wham_noise/`` and ``wsj0/`` or ``LibriSpeech/``.
    save_folder : str
        Where the manifests go.
    speech : str
        "wsj0" or "librispeech".
    seed : int
        Of the pairing with LibriSpeech.
    jobs : int, optional
        Threads.
    **options
        Of :func:`fedenhance.recipes.chunks.checked_options`.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps.

    Raises
    ------
    LayoutError
        When a corpus is missing.
    ValueError
        For options that cannot be, a split without rows, or splits that share
        speakers.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    options = {**checked_options(**options), "speech": speech, "seed": seed}
    if speech not in SPEECH:
        raise ValueError(f"speech must be one of {', '.join(SPEECH)}: {speech!r}")
    corpus, list_utterances, pair = SPEECH[speech]
    places = [f"wham_noise/{folder}" for folder in FOLDERS.values()]
    check_layout(data_folder, [*places, corpus], LAYOUT)
    utterances, left_out = list_utterances(data_folder)
    noises = {}
    for split, folder in FOLDERS.items():
        noises[split], others = find_files(data_folder, f"wham_noise/{folder}")
        left_out += others
    facts = options, noises, utterances, left_out
    fingerprint = preparation.fingerprint_of(VERSION, "WHAM", *facts)
    record = preparation.finished(save_folder, fingerprint)
    if record:
        return record
    pairs, skipped = pair(utterances, noises, seed)
    wanted = dict.fromkeys(
        path for found in pairs.values() for files in found for path in files[:2]
    )
    headers, damaged = read_headers(data_folder, list(wanted), jobs)
    skipped += damaged + left_out
    tables = {
        split: chunk_rows(found, headers, options) for split, found in pairs.items()
    }
    if speech == "wsj0":  # its validation set is of the training speakers
        preparation.check_tables(tables, skipped, ("ID", "noise_id"))
        tested = {split: tables[split] for split in ("train", "test")}
        preparation.check_tables(tested, skipped, ("spk_id",))
    else:
        preparation.check_tables(tables, skipped, ("ID", "spk_id", "noise_id"))
    folders = (data_folder, save_folder)
    return write_chunks(
        "WHAM", tables, skipped, folders, options, jobs, fingerprint=fingerprint
    )


def _pair(speech, noise, speaker):
    """A pair as :func:`fedenhance.recipes.chunks.chunk_rows` takes it."""
    return speech, noise, {"spk_id": speaker, "noise_class": NOISE_CLASS}


def _list_wsj0(data_folder):
    return find_files(data_folder, "wsj0")


def _list_librispeech(data_folder):
    utterances, left_out = {}, []
    for split, subsets in SPEECH_SUBSETS.items():
        utterances[split], others = list_speech(data_folder, subsets)
        left_out += others
    return utterances, left_out


def pair_wsj0(utterances, noises, _seed):
    """Pair noises with the first utterance in their names.

    Example
    -------
    >>> speech = {"wsj0/si_tr_s/40n/40na010x.wav": (1, 2)}
    >>> noise = {"train": ["wham_noise/tr/40na010x_1.9857_01xo031a_-1.9857.wav"]}
    >>> pairs, skipped = pair_wsj0(speech, noise, 0)
    >>> pairs["train"][0][0], pairs["train"][0][2]["spk_id"], skipped
    ('wsj0/si_tr_s/40n/40na010x.wav', '40n', [])
    """
    by_name = {}
    for path in utterances:
        by_name.setdefault(Path(path).stem.lower(), path)
    pairs, skipped = {}, []
    for split, paths in noises.items():
        found = []
        for noise in paths:
            name = Path(noise).stem.split("_")[0].lower()
            if name in by_name:
                found.append((by_name[name], noise, name[:3]))
            else:
                skipped.append(Skipped(noise, f"no utterance {name} in wsj0"))
        found.sort(key=lambda pair: (pair[2], pair[0], pair[1]))
        pairs[split] = [_pair(*pair) for pair in found]
    return pairs, skipped


def pair_librispeech(utterances, noises, seed):
    """Pair each utterance with a noise of its split, as long as there are noises."""
    pairs = {
        split: [
            _pair(speech, noise, str(utterance_key(speech)[0]))
            for speech, noise in zip(
                utterances[split], hash_order(paths, seed, "WHAM", split), strict=False
            )
        ]
        for split, paths in noises.items()
    }
    return pairs, []


SPEECH = {
    "wsj0": ("wsj0", _list_wsj0, pair_wsj0),
    "librispeech": ("LibriSpeech", _list_librispeech, pair_librispeech),
}


if __name__ == "__main__":
    preparation.main(prepare, checked_options)
