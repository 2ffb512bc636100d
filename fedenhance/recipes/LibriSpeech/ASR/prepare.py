"""Prepare LibriSpeech for speech recognition.

From the root of the repository::

    python -m fedenhance.recipes.LibriSpeech.ASR.prepare /data manifests

where /data holds LibriSpeech/, in whose layout the built-in corpus is as well.
"""

import functools
from pathlib import Path

from fedenhance.data.folders import Skipped, find_files
from fedenhance.recipes import preparation, transcribed
from fedenhance.recipes.LibriFSD50K.corpora import (
    check_layout,
    list_speech,
    utterance_key,
)
from fedenhance.recipes.MiniLibriFSD50K import generate as built_in


def prepare(
    data_folder: str = None,
    save_folder="manifests",
    built_in_corpus: str = None,
    train=("train-clean-100",),
    valid=("dev-clean",),
    test=("test-clean",),
    **options,
):
    """Write ``train.csv``, ``valid.csv`` and ``test.csv``: ID,duration,wav,spk_id,wrd.

    ``skipped.csv`` names what was left out, and why. Nothing is done when the same
    files were prepared with the same options.

    Arguments
    ---------
    data_folder : str, optional
        Holds ``LibriSpeech/``. None, or the same as `built_in_corpus`: the
        synthetic corpus, which is made on first use.
    save_folder : str
        Where the manifests go.
    built_in_corpus : str, optional
        Where the synthetic corpus is or will be.
    train, valid, test : list of str
        Subsets, such as ``train-clean-360``.
    **options
        Of :func:`fedenhance.recipes.transcribed.prepare`, such as ``max_duration``.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps.

    Raises
    ------
    FileNotFoundError
        When the folder is not laid out as LibriSpeech is.
    ValueError
        When a split would be empty.
    """
    data_folder = built_in.find_or_generate(data_folder, built_in_corpus)
    subsets = {"train": list(train), "valid": list(valid), "test": list(test)}
    folders = [f"LibriSpeech/{name}" for names in subsets.values() for name in names]
    layout = "expected SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt"
    check_layout(data_folder, folders, layout)
    files = {}
    for folder in folders:
        files |= find_files(data_folder, folder, {".txt"})[0]
    listing = functools.partial(list_utterances, data_folder, subsets)
    return transcribed.prepare(
        save_folder, listing, data_folder, files, {"subsets": subsets}, **options
    )


def list_utterances(data_folder, subsets):
    """List utterances with their transcripts by split.

    Returns
    -------
    dict of list of dict
        As recipes.transcribed takes them.
    list of Skipped
    """
    listed, skipped = {}, []
    for split, names in subsets.items():
        audio, misnamed = list_speech(data_folder, names)
        texts = read_transcripts(data_folder, names)
        stems = {path: Path(path).stem for path in audio}
        listed[split] = [
            {
                "ID": name,
                "wav": path,
                "spk_id": str(utterance_key(path)[0]),
                "wrd": texts[name],
                "path": path,
            }
            for path, name in stems.items()
            if name in texts
        ]
        skipped += misnamed
        skipped += [
            Skipped(path, "no transcript")
            for path, name in stems.items()
            if name not in texts
        ]
        lost = texts.keys() - stems.values()
        skipped += [Skipped(name, "missing file") for name in lost]
    return listed, skipped


def read_transcripts(data_folder, subsets):
    """Read all ``.trans.txt`` of subsets, with "utterance words" on each line."""
    texts = {}
    for subset in subsets:
        for path in find_files(data_folder, f"LibriSpeech/{subset}", {".txt"})[0]:
            if path.endswith(".trans.txt"):
                lines = (data_folder / path).read_text(encoding="utf-8").splitlines()
                pairs = (line.partition(" ") for line in lines if line.strip())
                texts |= {name: words for name, _, words in pairs}
    return texts


if __name__ == "__main__":
    preparation.main(prepare, transcribed.prepare)
