"""Where training reads the audio from: the corpora as they are, or packed arrays."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fedenhance.data.audio import PACKED_RATE
from fedenhance.data.folders import Skipped
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import whole_file, write_json
from fedenhance.recipes.audio_files import read_mono

SIDES = ("speech", "noise")

logger = get_logger(__name__)


def read_at_16k(path):
    """Read a whole file as mono int16 at 16 kHz.

    Arguments
    ---------
    path : str or pathlib.Path
        Any format, rate and number of channels; channels are averaged.

    Returns
    -------
    numpy.ndarray
        int16, (time,)

    Raises
    ------
    DamagedAudioError
        When the file cannot be decoded.
    """
    wave = read_mono(path, PACKED_RATE)
    return np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)


def leave(corpus, tables, folders, chosen=None, jobs=None):
    """Leave the audio in the corpora; arguments and returns of :func:`pack`."""
    return tables, [], None


def pack(corpus, tables, folders, chosen=None, jobs=None):
    """Write all audio into int16 arrays at 16 kHz, made to be mapped into memory.

    There are two for each split, one of speech and one of noise. Each file is decoded
    and resampled once, however many rows share it. What was interrupted is resumed.

    Arguments
    ---------
    corpus : str
        Names the folder of the arrays.
    tables : dict
        Split -> rows of :func:`fedenhance.recipes.chunks.chunk_rows`.
    folders : (pathlib.Path, pathlib.Path)
        The data folder and the save folder.
    chosen : str, optional
        Where the arrays go; by default beside the corpora, where all experiments find
        them, or into the save folder where the corpora are read-only.
    jobs : int, optional
        Threads; as many as cores by default.

    Returns
    -------
    tables : dict
        Split -> rows that point into the arrays.
    skipped : list of Skipped
        Files that could not be decoded; their rows are left out.
    folder : pathlib.Path
        Where the arrays are.
    """
    data_folder, save_folder = folders
    folder, root = _place(corpus, data_folder, save_folder, chosen)
    # One place for each set of rows: changed options never mix with old audio.
    content = json.dumps(list(tables.values()), sort_keys=True).encode()
    name = f"packed-{hashlib.sha256(content).hexdigest()[:12]}"
    packed, skipped = {}, []
    for split, rows in tables.items():
        for side in SIDES:
            places = _layout(rows, side)
            array = f"{name}/{split}_{side}.npy"
            broken = _pack_side(places, data_folder, folder / array, jobs)
            skipped += [
                Skipped(path.removeprefix("$data_root/"), reason)
                for path, reason in broken.items()
            ]
            rows = [
                _repoint(row, side, places, f"{root}/{array}")
                for row in rows
                if row[side] not in broken
            ]
        packed[split] = rows
    return packed, skipped, folder / name


def _place(corpus, data_folder, save_folder, chosen):
    """Folder of the arrays, and its name in manifests."""
    if chosen is not None:
        return Path(chosen), Path(chosen).resolve().as_posix()
    if os.access(data_folder, os.W_OK):
        return data_folder / corpus, f"$data_root/{corpus}"
    folder = save_folder / "audio"
    logger.info(f"{data_folder} is read-only: audio is written to {folder}.")
    return folder, folder.resolve().as_posix()


def _to_16k(frames, rate):
    return -(-frames * PACKED_RATE // rate)


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
    record.unlink(missing_ok=True)  # never an old record beside a new array
    with whole_file(target) as partial:
        broken = _fill(partial, places, data_folder, target.stem, jobs)
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
        except DamagedAudioError as error:
            return path, error.reason
        if wave.size < samples:
            return path, "cut short: since its header was read"
        array[offset : offset + samples] = wave[:samples]
        return path, None

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        results = pool.map(fill, places)
        results = tqdm(
            results, name, len(places), unit="file", leave=False, disable=None
        )
        broken = {path: reason for path, reason in results if reason}
    array.flush()
    return broken


def _locate(path, data_folder):
    return path.replace("$data_root", str(data_folder), 1)


def _repoint(row, side, places, name):
    offset, samples = places[row[side]]
    rate = row[f"_{side}_rate"]
    start = row[f"{side}_start"] * PACKED_RATE // rate
    stop = min(_to_16k(row[f"{side}_stop"], rate), samples)
    return {
        **row,
        side: name,
        f"{side}_start": offset + start,
        f"{side}_stop": offset + stop,
    }


STORAGES = {"files": leave, "packed": pack}
