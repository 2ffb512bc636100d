"""Prepare LibriSpeech for speech recognition.

From the root of the repository::

    python -m recipes.LibriSpeech.ASR.prepare /data manifests

where /data holds LibriSpeech/, in whose layout the built-in corpus is as well.
"""

import argparse
from pathlib import Path

from recipes import transcribed
from recipes.audio_files import Skipped, list_files
from recipes.LibriFSD50K.corpora import list_speech, utterance_key
from recipes.manifests import prepare_and_tell
from recipes.MiniLibriFSD50K import generate as built_in

SUBSETS = {
    "train": ["train-clean-100"],
    "valid": ["dev-clean"],
    "test": ["test-clean"],
}


def prepare(
    data_folder=None,
    save_folder="manifests",
    built_in_corpus=None,
    train=SUBSETS["train"],
    valid=SUBSETS["valid"],
    test=SUBSETS["test"],
    min_duration=0.3,
    max_duration=None,
    clients=0,
    jobs=None,
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
    min_duration, max_duration : float
        In seconds; utterances beyond are left out. None: no limit.
    clients : int
        Deal the speakers of ``train.csv`` to this many, into ``client0.csv``, ...
    jobs : int, optional
        Threads.

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
    data_folder = find_corpus(data_folder, built_in_corpus)
    subsets = {"train": list(train), "valid": list(valid), "test": list(test)}
    for names in subsets.values():
        for name in names:
            if not (data_folder / "LibriSpeech" / name).is_dir():
                raise FileNotFoundError(
                    f"{data_folder}/LibriSpeech has no {name}: expected "
                    f"{name}/SPEAKER/CHAPTER/*.flac and *.trans.txt"
                )
    files = {}
    for names in subsets.values():
        for name in names:
            suffixes = {".flac", ".wav", ".txt"}
            files |= list_files(data_folder, f"LibriSpeech/{name}", suffixes)
    options = {
        "subsets": subsets,
        "min_duration": min_duration,
        "max_duration": max_duration,
        "case": "upper",
        "accents": True,
        "alphabet": None,
    }

    def listing():
        listed, skipped = {}, []
        for split, names in subsets.items():
            listed[split], odd = list_utterances(data_folder, names)
            skipped += odd
        return listed, skipped

    return transcribed.prepare(
        save_folder, listing, data_folder, options, files, clients, jobs
    )


def find_corpus(data_folder, built_in_corpus):
    """Find the folder that holds LibriSpeech, or make the built-in corpus."""
    folder = built_in.find_or_generate(data_folder, built_in_corpus)
    if not (folder / "LibriSpeech").is_dir():
        raise FileNotFoundError(
            f"There is no {folder}/LibriSpeech: data_folder must hold LibriSpeech/"
        )
    return folder


def list_utterances(data_folder, subsets):
    """List utterances with their transcripts, as recipes.transcribed takes them."""
    audio, skipped = list_speech(data_folder, subsets)
    texts = {}
    for subset in subsets:
        for path in list_files(data_folder, f"LibriSpeech/{subset}", {".txt"}):
            if path.endswith(".trans.txt"):
                texts |= read_transcripts(Path(data_folder) / path)
    rows = []
    for path in audio:
        name = Path(path).stem
        if name not in texts:
            skipped.append(Skipped(path, "no transcript"))
            continue
        rows.append(
            {
                "ID": name,
                "wav": path,
                "spk_id": str(utterance_key(path)[0]),
                "wrd": texts[name],
                "path": path,
            }
        )
    have = {Path(path).stem for path in audio}
    skipped += [Skipped(name, "missing file") for name in texts if name not in have]
    return rows, skipped


def read_transcripts(path):
    """Read a ``.trans.txt``: utterance, space, words."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {name: words for name, _, words in pairs}


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", help="holds LibriSpeech/")
    parser.add_argument("save_folder", help="where the manifests go")
    parser.add_argument("--built_in_corpus", help="make the synthetic corpus there")
    for split, names in SUBSETS.items():
        parser.add_argument(f"--{split}", nargs="+", default=names)
    parser.add_argument("--max_duration", type=float, help="in seconds")
    parser.add_argument(
        "--clients", type=int, default=0, help="also write client0.csv, ..."
    )
    parser.add_argument("--jobs", type=int)
    prepare_and_tell(prepare, vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
