"""Audio files of corpora: listed, in a random order that is fixed, and read."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import gcd
from typing import NamedTuple

import soundfile
from scipy.signal import resample_poly
from tqdm import tqdm


class Header(NamedTuple):
    """What the head of an audio file says."""

    frames: int
    sample_rate: int
    channels: int


class Skipped(NamedTuple):
    """A file that is left out, and why."""

    path: str
    reason: str


def read_header(path):
    """Read the header of an audio file, and see that its last frame is there.

    Arguments
    ---------
    path : str or pathlib.Path
        Any format of libsndfile.

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        When the file is missing, empty, damaged or cut short; the message says which.
    """
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("empty file")
        with soundfile.SoundFile(path) as file:
            frames = file.frames
            if frames == 0:
                raise ValueError("no samples")
            file.seek(frames - 1)
            if len(file.read(1, dtype="int16")) != 1:
                raise ValueError("cut short")
            return Header(frames, file.samplerate, file.channels)
    except FileNotFoundError as error:
        raise ValueError("missing file") from error
    except OSError as error:
        raise ValueError(f"unreadable: {error.strerror}") from error
    except soundfile.LibsndfileError as error:
        raise ValueError(f"damaged: {error.error_string}") from error


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
        Path -> Header, of the sound files, in the given order.
    skipped : list of Skipped
        The others.
    """

    def one(path):
        try:
            return read_header(os.path.join(root, path))
        except ValueError as error:
            return Skipped(path, str(error))

    jobs = jobs or min(32, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Bundled, since handing over single files costs as much as reading them.
        size = 64
        bundles = [paths[i : i + size] for i in range(0, len(paths), size)]
        found = []
        with tqdm(total=len(paths), desc="headers", unit="file", leave=False) as bar:
            for bundle in pool.map(lambda b: [one(path) for path in b], bundles):
                found += bundle
                bar.update(len(bundle))
    pairs = list(zip(paths, found, strict=True))
    headers = {path: head for path, head in pairs if isinstance(head, Header)}
    return headers, [head for _, head in pairs if isinstance(head, Skipped)]


def list_files(root, folder, suffixes):
    """List the files below a folder with their sizes, in an order that is its own.

    Arguments
    ---------
    root : str or pathlib.Path
        Folder that the results are relative to.
    folder : str
        Folder below `root` to walk; links to folders are followed.
    suffixes : set of str
        Wanted suffixes in lower case, such as {".wav"}.

    Returns
    -------
    dict
        Relative path with "/" -> (bytes, modification time in ns), sorted by path.
    """
    found, folders = {}, [folder]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if entry.name.startswith("."):  # such as the ._x that macOS leaves
                    continue
                if entry.is_dir():
                    folders.append(path)
                elif os.path.splitext(entry.name)[1].lower() in suffixes:
                    status = entry.stat()
                    found[path] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


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
        Any format of libsndfile.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    numpy.ndarray
        float32, (time,)
    """
    wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
    common = gcd(rate, sample_rate)
    return resample_poly(wave.mean(1), sample_rate // common, rate // common)


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
