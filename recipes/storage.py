"""Where training reads the audio from: the corpora, chunks, or one packed array.

Each option takes the rows of a split, which point into the corpora, and gives rows that
point to what it wrote. All are resumed where they were interrupted.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from recipes.audio_files import Skipped, write_json

SAMPLE_RATE = 16000
SIDES = ("speech", "noise")

logger = get_logger(__name__)


def read_at_16k(path):
    """Read a whole file as mono int16 at 16 kHz.

    Arguments
    ---------
    path : str or pathlib.Path
        Any format, rate and number of channels that libsndfile reads; channels are
        averaged.

    Returns
    -------
    numpy.ndarray
        int16, (time,)

    Raises
    ------
    ValueError
        When the file cannot be decoded.
    """
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(f"damaged: {error}") from error
    wave = wave.mean(1)
    if not np.isfinite(wave).all():
        raise ValueError("samples that are not finite")
    if rate != SAMPLE_RATE:
        common = gcd(rate, SAMPLE_RATE)
        wave = resample_poly(wave, SAMPLE_RATE // common, rate // common)
    return np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)


def pack(rows, split, data_folder, folder, root, jobs):
    """Write all audio of a split into two int16 arrays at 16 kHz, made to be mapped.

    Each file is decoded and resampled once, however many rows share it.

    Arguments
    ---------
    rows : list of dict
        Rows of the manifest, with ``_seconds``, the length of a chunk.
    split : str
        Name of the split.
    data_folder : str or pathlib.Path
        Holds the corpora.
    folder : pathlib.Path
        Where the arrays go.
    root : str
        What the folder is called in the manifest, such as "$data_root/packed".
    jobs : int
        Threads.

    Returns
    -------
    rows : list of dict
        They point into the arrays.
    skipped : list of Skipped
        Files that could not be decoded; their rows are left out.
    """
    skipped = []
    for side in SIDES:
        places = _layout(rows, side)
        broken = _pack_side(places, data_folder, folder / f"{split}_{side}.npy", jobs)
        skipped += [Skipped(path, reason) for path, reason in broken.items()]
        rows = [
            _repoint(row, side, places, f"{root}/{split}_{side}.npy")
            for row in rows
            if row[side] not in broken
        ]
    return rows, skipped


def _to_16k(frames, rate):
    return -(-frames * SAMPLE_RATE // rate)


def _layout(rows, side):
    """Place of each file in the packed array: path -> (offset, samples)."""
    needed = {}
    for row in rows:
        stop = _to_16k(row[f"{side}_stop"], row[f"_{side}_rate"])
        needed[row[side]] = max(needed.get(row[side], 0), stop)
    offsets = np.cumsum([0, *needed.values()])
    return {
        path: (int(offset), samples)
        for (path, samples), offset in zip(needed.items(), offsets[:-1], strict=True)
    }


def _pack_side(places, data_folder, target, jobs):
    """Write one array; returns path -> reason for files that cannot be decoded."""
    record = target.with_suffix(".json")
    status = {path: os.stat(_locate(path, data_folder)) for path in places}
    files = [
        [path, *place, status[path].st_size, status[path].st_mtime_ns]
        for path, place in places.items()
    ]
    if target.exists() and record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["files"] == files:
            return known["broken"]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        broken = _fill(partial, places, data_folder, target.stem, jobs)
        record.unlink(missing_ok=True)  # never the old record beside the new array
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    write_json(record, {"files": files, "broken": broken})
    return broken


def _fill(target, places, data_folder, name, jobs):
    """Decode all files to their places in a new array; returns path -> reason."""
    length = sum(samples for _, samples in places.values())
    array = np.lib.format.open_memmap(target, "w+", np.int16, (length,))

    def fill(path):
        offset, samples = places[path]
        try:
            wave = read_at_16k(_locate(path, data_folder))
        except ValueError as error:
            return path, str(error)
        if wave.size < samples:
            return path, "damaged: shorter than its header says"
        array[offset : offset + samples] = wave[:samples]
        return path, None

    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(fill, places)
        results = tqdm(results, name, len(places), unit="file", leave=False)
        broken = {path: reason for path, reason in results if reason}
    array.flush()
    return broken


def _locate(path, data_folder):
    return path.replace("$data_root", str(data_folder), 1)


def _repoint(row, side, places, name):
    offset, samples = places[row[side]]
    rate = row[f"_{side}_rate"]
    start = row[f"{side}_start"] * SAMPLE_RATE // rate
    stop = min(_to_16k(row[f"{side}_stop"], rate), samples)
    return {
        **row,
        side: name,
        f"{side}_start": offset + start,
        f"{side}_stop": offset + stop,
    }


def chunk(rows, split, data_folder, folder, root, jobs):
    """Write the two sides of each row as wav files of exactly one chunk.

    Arguments and returns are those of :func:`pack`.
    """
    by_file = {}
    for row in rows:
        for side in SIDES:
            by_file.setdefault((side, row[side]), []).append(row)

    def write(item):
        (side, path), owners = item
        targets = [_chunk_path(row, split, side) for row in owners]
        if all((folder / target).exists() for target in targets):
            return side, path, None
        try:
            wave = read_at_16k(_locate(path, data_folder))
        except ValueError as error:
            return side, path, str(error)
        for row, target in zip(owners, targets, strict=True):
            start = row[f"{side}_start"] * SAMPLE_RATE // row[f"_{side}_rate"]
            stop = _to_16k(row[f"{side}_stop"], row[f"_{side}_rate"])
            length = round(row["duration"] * SAMPLE_RATE)
            samples = np.zeros(length, np.int16)
            part = wave[start:stop][:length]
            samples[: part.size] = part
            _write_wav(folder / target, samples)
        return side, path, None

    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(write, by_file.items())
        results = tqdm(
            results, f"{split} chunks", len(by_file), unit="file", leave=False
        )
        broken = {(side, path): reason for side, path, reason in results if reason}
    skipped = [Skipped(path, reason) for (_, path), reason in broken.items()]
    kept = [
        _to_chunks(row, split, root)
        for row in rows
        if not any((side, row[side]) in broken for side in SIDES)
    ]
    return kept, skipped


def _chunk_path(row, split, side):
    return f"{split}/{row['spk_id']}/{row['ID']}_{side}.wav"


def _write_wav(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    soundfile.write(partial, samples, SAMPLE_RATE, format="WAV")
    os.replace(partial, path)


def _to_chunks(row, split, root):
    length = round(row["duration"] * SAMPLE_RATE)
    row = dict(row)
    for side in SIDES:
        row[side] = f"{root}/{_chunk_path(row, split, side)}"
        row[f"{side}_start"], row[f"{side}_stop"] = 0, length
    return row


STORAGES = {"files": None, "chunks": chunk, "packed": pack}


def storage_folder(corpus, data_folder, save_folder, chosen=None):
    """Choose where written audio goes, and its name in manifests.

    It goes beside the corpora, where all experiments find it; where they must not be
    written to, into the save folder.

    Arguments
    ---------
    corpus : str
        Name of the corpus that is prepared.
    data_folder, save_folder : pathlib.Path
        Of the preparation.
    chosen : str or pathlib.Path, optional
        The user's own choice.

    Returns
    -------
    pathlib.Path, str
        Folder, and its name in the manifests.
    """
    if chosen is not None:
        return Path(chosen), Path(chosen).resolve().as_posix()
    if os.access(data_folder, os.W_OK):
        return data_folder / corpus, f"$data_root/{corpus}"
    folder = save_folder / "audio"
    logger.info(f"{data_folder} is read-only: audio is written to {folder}.")
    return folder, folder.resolve().as_posix()
