"""Prepare the UDASE task: CHiME-5's homes to adapt to, and what a model is judged on.

From the root of the repository::

    python -m fedenhance.recipes.UDASE.prepare /data manifests

S. Leglaive et al., "The CHiME-7 UDASE task: unsupervised domain adaptation for
conversational speech enhancement", CHiME workshop, 2023.
"""

from pathlib import Path

from fedenhance.data.folders import Skipped, find_files
from fedenhance.recipes import preparation
from fedenhance.recipes.audio_files import read_headers
from fedenhance.recipes.LibriFSD50K.corpora import check_layout
from fedenhance.recipes.UDASE import librichime, segments

VERSION = 1
COLUMNS = [
    *("ID", "duration", "spk_id", "client"),
    *(
        f"{name}{end}"
        for name in ("noisy", "speech")
        for end in ("", "_start", "_stop")
    ),
]
LAYOUT = """expected
  CHiME5/audio/{train,dev,eval}/S??_P??.wav (your copy, see chimechallenge.org), and
  UDASE-CHiME-5/json_files/ (git clone https://github.com/UDASE-CHiME2023/CHiME-5 \\
    UDASE-CHiME-5), or UDASE/CHiME-5/ with what its script has cut;
  UDASE-reverberant-LibriCHiME-5/metadata/{dev,eval}.json (git clone \\
    https://github.com/UDASE-CHiME2023/reverberant-LibriCHiME-5 \\
    UDASE-reverberant-LibriCHiME-5), LibriSpeech/{dev-clean,test-clean}/ and
  voiceHome/audio/rirs/ (zenodo.org/record/1314196), or UDASE/reverberant-LibriCHiME-5/
    with what its script has made"""


def prepare(data_folder, save_folder="manifests", vad=False, jobs: int = None):
    """Write ``train.csv``, ``valid.csv``, ``test.csv`` and two of real recordings.

    Training has chunks of CHiME-5, noisy as they are, of 14 sessions, each of them in a
    home of its own: a client. ``valid.csv`` and ``test.csv`` have reverberant
    LibriCHiME-5, whose speech is known; ``real_valid.csv`` and ``real_test.csv`` the
    segments of development and evaluation in which at most one speaks at once, which
    the task judges by DNSMOS. What has to be cut or mixed is, once, beside the corpora.

    Arguments
    ---------
    data_folder : str
        Holds the corpora, see ``LAYOUT``.
    save_folder : str
        Where the manifests go.
    vad : bool
        Train only where the task's voice detector has found speech.
    jobs : int, optional
        Threads; as many as cores by default.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps.

    Raises
    ------
    LayoutError
        When something is missing.
    ValueError
        For files that are not as they must be, or splits that share a home.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    audio = make_audio(data_folder, vad, jobs)
    files, skipped = {}, []
    for split, folder in audio.items():
        files[split], left_out = find_files(data_folder, folder)
        skipped += left_out
    fingerprint = preparation.fingerprint_of(VERSION, vad, files, skipped)
    record = preparation.finished(save_folder, fingerprint)
    if record:
        return record
    paths = [path for found in files.values() for path in found]
    headers, damaged = read_headers(data_folder, paths, jobs)
    skipped += damaged
    tables = {
        split: mixture_rows(found, headers, skipped)
        if split in ("valid", "test")
        else segment_rows(found, headers)
        for split, found in files.items()
    }
    homes = {split: tables[split] for split in ("train", "valid", "test")}
    preparation.check_tables(tables, skipped)
    preparation.check_tables(homes, skipped, ("ID", "client"))
    return preparation.write_manifests(
        save_folder,
        tables,
        COLUMNS,
        skipped,
        count,
        options={"vad": vad},
        fingerprint=fingerprint,
    )


def make_audio(data_folder, vad, jobs):
    """See that all audio is there; return the folder of each split."""
    mixtures = librichime.FOLDER
    audio = {
        "train": f"{segments.FOLDER}/{segments.training_folder(vad)}",
        "valid": f"{mixtures}/dev",
        "test": f"{mixtures}/eval",
        "real_valid": f"{segments.FOLDER}/dev/1",
        "real_test": f"{segments.FOLDER}/eval/1",
    }
    raw = (f"{segments.SOURCE}/audio", segments.TABLES)
    cut = [audio[split] for split in ("train", "real_valid", "real_test")]
    check_layout(data_folder, [f"{p} or {c}" for c in cut for p in raw], LAYOUT)
    mixed = f"{mixtures}/eval"
    parts = (librichime.TABLES, f"{librichime.ROOMS}/audio/rirs", "LibriSpeech")
    check_layout(data_folder, [f"{part} or {mixed}" for part in parts], LAYOUT)
    if not all((data_folder / folder).exists() for folder in cut):
        segments.cut(data_folder, vad, jobs)
    librichime.make(data_folder, jobs)
    return audio


def segment_rows(paths, headers):
    """Rows of recordings as they are, named ``S03_P09_...``."""
    return [row_of(path, headers[path]) for path in paths if path in headers]


def mixture_rows(paths, headers, skipped):
    """Rows of mixtures with their speech; those without are added to ``skipped``."""
    rows = []
    for path in (p for p in paths if p.endswith("_mix.wav") and p in headers):
        speech = path.replace("_mix.wav", "_speech.wav")
        if headers.get(speech) != headers[path]:
            skipped.append(Skipped(path, "no speech file, or another length"))
            continue
        row = row_of(path, headers[path])
        place = {"speech_start": 0, "speech_stop": headers[path].frames}
        row["ID"] = row["ID"].removesuffix("_mix")
        rows.append({**row, "speech": f"$data_root/{speech}", **place})
    return rows


def row_of(path, header):
    """Row of a recording; its session, which is a home, is the client.

    Example
    -------
    >>> from fedenhance.data.opening import Header
    >>> row = row_of("UDASE/CHiME-5/dev/1/S02_P05_7.wav", Header(48000, 16000, 1))
    >>> row["ID"], row["client"], row["spk_id"], row["duration"]
    ('S02_P05_7', 'S02', 'S02_P05', 3.0)
    """
    name = Path(path).stem
    session, wearer, *_ = name.split("_")
    return {
        "ID": name,
        "duration": header.frames / header.sample_rate,
        "spk_id": f"{session}_{wearer}",
        "client": session,
        "noisy": f"$data_root/{path}",
        "noisy_start": 0,
        "noisy_stop": header.frames,
    }


def count(rows):
    """Count what a split holds."""
    return {
        "recordings": len(rows),
        "hours": preparation.hours_of(rows),
        "homes": len({row["client"] for row in rows}),
    }


def no_more():
    """Say that there are no further options."""


if __name__ == "__main__":
    preparation.main(prepare, no_more)
