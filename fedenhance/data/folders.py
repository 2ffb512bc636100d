"""What is found in folders: the same rules wherever recordings are looked for."""

import functools
import os
import shutil
from collections import Counter
from typing import NamedTuple

SUFFIXES = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64 "
    ".sph .nist .voc".split()
)
"""What libsndfile reads, and is taken from a folder."""

FFMPEG_SUFFIXES = frozenset(
    ".m4a .m4b .mp4 .mov .aac .webm .mka .mkv .wma .amr .3gp .ac3".split()
)
"""What is taken as well where there is ffmpeg."""


ARCHIVES = frozenset(".zip .tar .tgz .gz .bz2 .xz .7z .rar".split())
"""What recordings may be packed in."""


class Skipped(NamedTuple):
    """A file that is left out, and why."""

    path: str
    reason: str


@functools.cache
def ffmpeg():
    """Path of the ffmpeg program, of the system or of imageio-ffmpeg, or None."""
    path = shutil.which("ffmpeg")
    if path is None:
        try:
            import imageio_ffmpeg

            path = imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            return None
    return path


def find_files(root, folder=".", others=()):
    """Find the recordings below a folder, in an order that is its own.

    Linked files and folders are followed; no folder is read twice. Hidden files, such
    as the ``._x`` that macOS leaves, are no recordings.

    Arguments
    ---------
    root : str or pathlib.Path
        Folder that the results are relative to.
    folder : str
        Folder below `root` to walk.
    others : iterable of str
        Suffixes in lower case that are taken as well, such as ".npy".

    Returns
    -------
    files : dict
        Relative path with "/" -> (bytes, modification time in ns), sorted by path.
    left_out : list of Skipped
        Dead links, folders that cannot be read, archives, and what by its suffix should
        have been a recording.
    """
    found, left_out, places = {}, [], {}
    known = SUFFIXES | FFMPEG_SUFFIXES | set(others)
    folders, linked = [folder], []
    while folders or linked:
        folder = (folders or linked).pop()  # links last: a tree keeps its own names
        place = os.path.realpath(os.path.join(root, folder))
        if place in places:
            reason = f"read already: the same folder as {places[place]}"
            left_out.append(Skipped(folder, reason))
            continue
        places[place] = folder
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                entries = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            left_out.append(Skipped(folder, f"unreadable: {error.strerror}"))
            continue
        for entry in entries:
            path = entry.name if folder == "." else f"{folder}/{entry.name}"
            if not entry.name.startswith(".") and _is_folder(entry):
                (linked if entry.is_symlink() else folders).append(path)
            elif reason := _fault(entry, known):
                left_out.append(Skipped(path, reason))
            elif _suffix(entry.name) in known:
                status = entry.stat()
                found[path] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items())), sorted(left_out)


def _suffix(name):
    return os.path.splitext(name)[1].lower()


def _is_folder(entry):
    # Of a link in a circle, is_dir would raise.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _fault(entry, known):
    """Why an entry is left out that seems to be a recording; None if it is not."""
    suffix = _suffix(entry.name)
    if entry.name.startswith("."):
        return "hidden file" if suffix in known else None
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "dead link"
    if suffix in known and not entry.is_file():
        return "not a regular file"
    if suffix in ARCHIVES:
        return "archive that is not unpacked"
    if suffix in FFMPEG_SUFFIXES and ffmpeg() is None:
        return "needs ffmpeg, which is not installed"
    return None


def count_reasons(skipped):
    """Count what was left out, by reason.

    Example
    -------
    >>> skipped = [Skipped("a", "dead link"), Skipped("b", "damaged: bad header")]
    >>> count_reasons([*skipped, Skipped("c", "damaged: no data")])
    '3 left out (1 dead link, 2 damaged)'
    """
    reasons = Counter(reason.partition(":")[0] for _, reason in skipped)
    told = (f"{number} {reason}" for reason, number in reasons.items())
    return f"{len(skipped)} left out ({', '.join(told)})"
