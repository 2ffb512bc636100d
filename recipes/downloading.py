"""Downloads to start on a cluster and forget: resumed, checked, complete."""

import errno
import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from recipes import split_zip

BLOCK = 1 << 20
SLACK = 1.05  # file systems round sizes up

logger = get_logger(__name__)


class DownloadError(RuntimeError):
    """A file cannot be had; the message names it and says what to do."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Arguments
    ---------
    name : str
        File name.
    url : str
        Folder of the file, without a slash at the end.
    size : int, optional
        Bytes, where known.
    md5 : str, optional
        Published checksum, where there is one.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


def download(archive, folder, mirror=None, retries=10, timeout=60.0, pause=5.0):
    """Download an archive, or the rest of it.

    What has arrived is kept in ``NAME.part``, and the next attempt, of this call or of
    a later one, asks for the rest. The file gets its name when size and checksum fit.

    Arguments
    ---------
    archive : Archive
        What.
    folder : str or pathlib.Path
        Where it goes.
    mirror : str, optional
        Takes the place of ``archive.url``.
    retries : int
        Attempts in a row that bring nothing before it gives up.
    timeout : float
        Seconds without a byte after which a connection is given up.
    pause : float
        Seconds before the first retry; doubled for each further one, up to a minute.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    DownloadError
        For a missing file, a checksum that does not fit twice, a full disk, or a
        server that brings nothing in all attempts.
    """
    folder = Path(folder)
    target, partial = folder / archive.name, folder / f"{archive.name}.part"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{(mirror or archive.url).rstrip('/')}/{archive.name}"
    for last in (False, True):
        _fetch(url, partial, archive.size, retries, timeout, pause)
        problem = check(archive, partial)
        if problem is None:
            partial.rename(target)
            return target
        partial.unlink()
        if not last:
            logger.warning(f"{archive.name}: {problem}; downloaded once more.")
    raise DownloadError(
        f"{url}: {problem} after two downloads; try another mirror, or report it."
    )


def check(archive, path):
    """Compare a file with the published size and checksum.

    Returns
    -------
    str or None
        What is wrong.
    """
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        return f"has {size} bytes instead of {archive.size}"
    if archive.md5 is None:
        return None
    digest = hashlib.md5()
    with (
        open(path, "rb") as file,
        tqdm(
            total=size, desc=f"checking {archive.name}", **_bar_options(size)
        ) as progress,
    ):
        while block := file.read(BLOCK):
            digest.update(block)
            progress.update(len(block))
    if digest.hexdigest() != archive.md5:
        return f"has MD5 {digest.hexdigest()} instead of {archive.md5}"
    return None


def _bar_options(size):
    options = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "leave": False}
    return options | {"disable": size < BLOCK or None}


def _fetch(url, partial, size, retries, timeout, pause):
    """Ask for the rest of a file until it is there."""
    failures = 0
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        try:
            _append(url, partial, size, timeout)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{url}: the server says {error.code} ({error.reason}); try "
                    "another mirror with --mirror."
                ) from error
            problem = error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(
                    f"No space is left on the disk of {partial.parent}; free some and "
                    "start again: what has arrived is kept."
                ) from error
            problem = error
        arrived = (partial.stat().st_size if partial.exists() else 0) - have
        failures = 0 if arrived > 0 else failures + 1
        if failures > retries:
            raise DownloadError(
                f"{url}: {problem}. Nothing arrived in {failures} attempts; start "
                "again later (what has arrived is kept), or try another mirror."
            ) from problem
        wait = 0 if arrived > 0 else min(60.0, pause * 2 ** (failures - 1))
        logger.warning(f"{url}: {problem}; goes on after {wait:.0f} s.")
        time.sleep(wait)


def _append(url, partial, size, timeout):
    """One attempt; raises OSError when the connection ends early."""
    have = partial.stat().st_size if partial.exists() else 0
    if size is not None and have >= size:
        return  # complete, or too long: the check tells
    request = urllib.request.Request(url, headers={"User-Agent": "fedenhance"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what is here
            return
        raise
    with response:
        resumed = response.status == 206
        if not resumed:
            have = 0  # the server sends all of it again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else size
        with (
            open(partial, "ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                desc=partial.stem,
                **_bar_options(total or BLOCK),
            ) as progress,
        ):
            while block := response.read1(BLOCK):
                file.write(block)
                progress.update(len(block))
                have += len(block)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended {total - have} bytes early")


def missing_bytes(archives, folder):
    """Bytes that are still to come, as far as sizes are known.

    Arguments
    ---------
    archives : iterable of Archive
        All.
    folder : str or pathlib.Path
        Where they go.

    Returns
    -------
    int
    """
    total = 0
    for archive in archives:
        path = Path(folder) / archive.name
        if not path.exists():
            partial = path.with_name(f"{path.name}.part")
            have = partial.stat().st_size if partial.exists() else 0
            total += max(0, (archive.size or 0) - have)
    return total


def check_space(folder, needed):
    """Raise DownloadError unless the disk has room.

    Arguments
    ---------
    folder : str or pathlib.Path
        Any place on that disk; it need not be there yet.
    needed : int
        Bytes.
    """
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, int(needed * SLACK)
    if free < needed:
        raise DownloadError(
            f"{folder} has {human(free)} free, but {human(needed)} are needed."
        )


def human(size):
    """Size in words.

    Example
    -------
    >>> human(6387309499)
    '6.4 GB'
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.1f} {units[0]}"


def unpack(path, folder, parts=()):
    """Unpack a .tar.gz, .zip or split .zip; files that are there are passed over.

    A file gets its name when all of it is written, so an interrupted run is continued.

    Arguments
    ---------
    path : pathlib.Path
        Archive; of a split one, the last part, ``NAME.zip``.
    folder : str or pathlib.Path
        Where the files go.
    parts : sequence of pathlib.Path
        The other parts of a split archive, ``NAME.z01`` and so on.

    Raises
    ------
    DownloadError
        When the archive is damaged or a part is missing.
    """
    folder = Path(folder)
    marker = folder / f".unpacked-{path.name}"
    if marker.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if path.name.endswith((".tar.gz", ".tgz")):
            _unpack_tar(path, folder)
        else:
            split_zip.extract([*parts, path], folder)
    except (tarfile.TarError, EOFError, split_zip.BadArchiveError) as error:
        raise DownloadError(
            f"{path} is damaged ({error}): delete it and start again."
        ) from error
    marker.touch()


def _unpack_tar(path, folder):
    root = folder.resolve()
    with (
        tarfile.open(path) as archive,
        tqdm(desc=path.name, unit="file", leave=False) as progress,
    ):
        for member in archive:
            target = (folder / member.name).resolve()
            if not member.isfile() or not target.is_relative_to(root):
                continue
            progress.update()
            if target.exists() and target.stat().st_size == member.size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.part")
            with archive.extractfile(member) as source, open(partial, "wb") as file:
                shutil.copyfileobj(source, file, BLOCK)
            partial.rename(target)
