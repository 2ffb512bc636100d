"""Downloads to start on a cluster and forget: resumed, checked, complete.

curl downloads, 7-Zip unpacks .zip files, split ones as well.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

SLACK = 1.05  # file systems round sizes up
# Exit codes of curl.
WRITE_ERROR, RANGE_ERROR = 23, 33
PROGRAMS = {
    "curl": (("curl",), "apt install curl"),
    "7-Zip": (("7zz", "7z", "7za"), "apt install 7zip, brew install sevenzip"),
}

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
    size : int
        Bytes; about so many where no checksum is published.
    md5 : str, optional
        Published checksum, where there is one.
    growth : float
        Times its size that its files take, about.
    """

    name: str
    url: str
    size: int
    md5: str | None = None
    growth: float = 1.4


@dataclass(frozen=True)
class Plan:
    """What goes where.

    Arguments
    ---------
    archives : list of list of Archive
        The parts of each archive; of a split one, ``NAME.zip`` is the last.
    archive_folder, target : pathlib.Path
        Where they are downloaded to, and unpacked.
    mirror : str, optional
        Takes the place of the archives' own url.
    """

    archives: list
    archive_folder: Path
    target: Path
    mirror: str | None = None


def program(name):
    """Find a program of :data:`PROGRAMS`.

    Raises
    ------
    DownloadError
        When it is not installed; the message says how to.
    """
    names, advice = PROGRAMS[name]
    for path in map(shutil.which, names):
        if path:
            return path
    raise DownloadError(f"{name} ({' or '.join(names)}) is not installed: {advice}")


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
        For a missing file, a checksum that does not fit twice, a full disk, a server
        that brings nothing in all attempts, or without curl.
    """
    folder = Path(folder)
    target, partial = folder / archive.name, folder / f"{archive.name}.part"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{(mirror or archive.url).rstrip('/')}/{archive.name}"
    for last in (False, True):
        if archive.md5 is None or size_of(partial) < archive.size:
            _fetch(url, partial, retries, timeout, pause)
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


def size_of(path):
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def check(archive, path):
    """Compare a file with the published size and checksum.

    Returns
    -------
    str or None
        What is wrong.
    """
    if archive.md5 is None:
        return None
    size = size_of(path)
    if size != archive.size:
        return f"has {size} bytes instead of {archive.size}"
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != archive.md5:
        return f"has MD5 {digest} instead of {archive.md5}"
    return None


def _fetch(url, partial, retries, timeout, pause):
    """Ask for the rest of a file until it is there."""
    failures = 0
    while True:
        have = size_of(partial)
        problem = _attempt(url, partial, timeout)
        if problem is None:
            return
        failures = 0 if size_of(partial) > have else failures + 1
        if failures > retries:
            raise DownloadError(
                f"{url}: {problem}. Nothing arrived in {failures} attempts; start "
                "again later (what has arrived is kept), or try another mirror."
            )
        wait = min(60.0, pause * 2 ** (failures - 1)) if failures else 0
        logger.warning(f"{url}: {problem}; goes on after {wait:.0f} s.")
        time.sleep(wait)


def _attempt(url, partial, timeout):
    """Run curl once; returns what went wrong that may go well another time.

    curl's own retries begin at the place where the first attempt began.
    """
    command = [program("curl"), "--fail", "--location", "--continue-at", "-"]
    command += ["--connect-timeout", str(timeout), "--speed-limit", "1"]
    command += ["--speed-time", str(max(1, round(timeout)))]
    command += ["--progress-bar" if sys.stderr.isatty() else "--silent"]
    command += ["--write-out", "%{http_code} %{errormsg}", "--output", partial, url]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    status, _, problem = done.stdout.partition(" ")
    if done.returncode == 0:
        return None
    if done.returncode == WRITE_ERROR:
        raise DownloadError(
            f"{partial} cannot be written ({problem}). If no space is left, free some "
            "and start again: what has arrived is kept."
        )
    if done.returncode == RANGE_ERROR:
        partial.unlink()  # the server sends the whole file alone
    if status.startswith("4") and status not in ("408", "429"):
        raise DownloadError(
            f"{url}: the server says {status}; try another mirror with --mirror."
        )
    return problem or f"curl ends with {done.returncode}"


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


def unpack(path, folder):
    """Unpack a .tar.gz, .zip or split .zip, once.

    Arguments
    ---------
    path : pathlib.Path
        Archive; of a split one, the last part, ``NAME.zip``, beside the others.
    folder : pathlib.Path
        Where the files go.

    Raises
    ------
    DownloadError
        When the archive is damaged, a part is missing, or there is no 7-Zip.
    """
    if _marker(path.name, folder).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        command = [program("7-Zip"), "x", "-y", "-bso0", "-bsp0", f"-o{folder}", path]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        problem = " ".join(done.stderr.split()) if done.returncode else None
    else:
        problem = _unpack_tar(path, folder)
    if problem is not None:
        raise DownloadError(
            f"{path} is damaged or not whole ({problem}): delete it and start again."
        )
    _marker(path.name, folder).touch()


def _marker(name, folder):
    """The file that says that an archive has been unpacked."""
    return folder / f".unpacked-{name}"


def _unpack_tar(path, folder):
    """Unpack a .tar.gz; returns what is wrong."""
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        return str(error)
    return None


def add_options(parser):
    """Add the options that every download has to a parser of the command line."""
    parser.add_argument("--delete_archives", action="store_true")
    parser.add_argument("--retries", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done")
    return parser


def run(plans, data_folder, arguments):
    """Say what is to be done, see that there is room, and do it.

    Arguments
    ---------
    plans : list of Plan
    data_folder : pathlib.Path
        On the disk that needs the room.
    arguments : argparse.Namespace
        With the options of :func:`add_options`.
    """
    options = {k: getattr(arguments, k) for k in ("retries", "timeout", "pause")}
    try:
        check_space(data_folder, describe(plans))
        for plan in plans if not arguments.dry_run else ():
            for parts in _todo(plan):
                paths = [
                    download(part, plan.archive_folder, plan.mirror, **options)
                    for part in parts
                ]
                unpack(paths[-1], plan.target)
                for path in paths if arguments.delete_archives else ():
                    path.unlink()
    except DownloadError as error:
        sys.exit(f"error: {error}")


def describe(plans):
    """Print what is to be done.

    Returns
    -------
    int
        Bytes that it takes.

    Raises
    ------
    DownloadError
        When a program for it is not installed.
    """
    needed = 0
    for plan in plans:
        for archive in (part for parts in _todo(plan) for part in parts):
            if archive.name.endswith(".zip"):
                program("7-Zip")  # before hours of downloads
            place = plan.archive_folder / archive.name
            have = size_of(place) or size_of(place.with_name(f"{place.name}.part"))
            needed += max(0, archive.size - have) + int(archive.growth * archive.size)
            state = "downloaded" if place.exists() else "resume" if have else "download"
            tqdm.write(f"{archive.name:<28}{human(archive.size):>10}  {state}")
    tqdm.write(f"About {human(needed)} are needed.")
    return needed


def _todo(plan):
    """The archives of a plan that are not unpacked yet."""
    return [
        parts
        for parts in plan.archives
        if not _marker(parts[-1].name, plan.target).exists()
    ]
