"""Audio files of corpora: in a random order that is fixed, and read."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from scipy.signal import resample_poly
from tqdm import tqdm

from fedenhance.data.audio import rate_ratio
from fedenhance.data.folders import Skipped
from fedenhance.data.opening import (
    DamagedAudioError,
    Header,
    open_audio,
    read_blocks,
    read_header,
)


def read_headers(root, paths, jobs=None):
    """Read many headers, with threads.

    Arguments
    ---------
    root : str or pathlib.Path
        Folder that the paths are relative to.
    paths : list of str
        Relative paths.
    jobs : int, optional
        Threads; twice the number of cores by default, at most 32: the work is mostly
        waiting for the file system.

    Returns
    -------
    headers : dict
        Path -> fedenhance.data.opening.Header, of the sound files, in the given order.
    skipped : list of Skipped
        The others.
    """

    def one(path):
        try:
            return read_header(os.path.join(root, path))
        except DamagedAudioError as error:
            return Skipped(path, error.reason)

    jobs = jobs or min(32, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Bundled, since handing over single files costs as much as reading them.
        size = 64
        bundles = [paths[i : i + size] for i in range(0, len(paths), size)]
        found = []
        with tqdm(
            total=len(paths), desc="headers", unit="file", leave=False, disable=None
        ) as bar:
            for bundle in pool.map(lambda b: [one(path) for path in b], bundles):
                found += bundle
                bar.update(len(bundle))
    pairs = list(zip(paths, found, strict=True))
    headers = {path: head for path, head in pairs if isinstance(head, Header)}
    return headers, [head for _, head in pairs if isinstance(head, Skipped)]


def hash_order(names, *key):
    """Put names into a random order that depends on nothing but the names and the key.

    The order of SHA-256 is the same on every machine, file system and version of
    Python, and a name more or less does not disturb the others.

    Arguments
    ---------
    names : iterable of str
        Distinct names.
    *key : str or int
        What the order depends on, such as a seed.

    Returns
    -------
    list of str

    Example
    -------
    >>> hash_order(["a", "b", "c"], 1) == hash_order(["c", "b", "a"], 1)
    True
    """
    prefix = "|".join(map(str, key))

    def digest(name):
        return hashlib.sha256(f"{prefix}|{name}".encode()).digest()

    return sorted(names, key=digest)


def read_mono(file, sample_rate):
    """Decode a whole file, average its channels and resample it.

    Arguments
    ---------
    file : str, pathlib.Path or file object
        As :func:`fedenhance.data.opening.open_audio` takes it.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    numpy.ndarray
        float32, (time,)

    Raises
    ------
    DamagedAudioError
        When it is damaged; the message names it.
    """
    with open_audio(file) as audio:
        ratio = rate_ratio(audio.samplerate, sample_rate, file)
        blocks = [block.mean(1) for block in read_blocks(audio, file)]
    return resample_poly(np.concatenate(blocks), ratio.denominator, ratio.numerator)


@contextmanager
def whole_folder(path):
    """Let a folder take its place only once it is complete.

    Arguments
    ---------
    path : pathlib.Path
        Where it will be, instead of what is there.

    Yields
    ------
    pathlib.Path
        An empty folder beside it, to be filled.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
