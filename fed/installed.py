"""The code that is installed on a machine of a federation, and what it amounts to.

Server and nodes run what their own operators installed. What is sent to Flower as the
app of a run holds no code, but what the code of its operator amounts to, so that each
machine can refuse a run of other code than its own.
"""

import json
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from fedenhance.based_yaml import sources_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fed", "fedenhance")
KINDS = {".py", ".yaml", ".yml"}
NAME = "code.json"
"""In the app of a run."""

LARGEST = 2**24
"""Bytes of it that are read, however small they are packed."""


def digests(files):
    """Digest what a run executes: the packages, its script and YAML, what they use.

    Scripts and YAML files of a folder of their own may use what lies beside them.

    Arguments
    ---------
    files : iterable of Path
        The script, if there is one, and the YAML file.

    Returns
    -------
    dict
        Name relative to the installation -> digest.
    """
    found = {file for name in PACKAGES for file in (ROOT / name).rglob("*")}
    for file in map(Path.resolve, map(Path, files)):
        found |= {file, *(file.parent.iterdir() if file.parent != ROOT else ())}
        if file.suffix != ".py":
            found |= {Path(source).resolve() for source in sources_of(file)}
    return {
        named(file): sha256(file.read_bytes()).hexdigest()
        for file in sorted(found)
        if file.suffix in KINDS and file.is_file()
    }


def named(file):
    """Name a file as all machines do, wherever they have it installed."""
    return (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file).as_posix()


def require_same(app, code):
    """Refuse a run of other code than is installed here.

    Arguments
    ---------
    app : bytes
        As Flower packs it; nothing in it is run.
    code : dict
        Of :func:`digests`.

    Raises
    ------
    ValueError
        Naming files that differ.
    """
    try:
        with zipfile.ZipFile(BytesIO(app)) as archive:
            if archive.getinfo(NAME).file_size > LARGEST:
                raise ValueError(f"{NAME} is larger than {LARGEST} bytes")
            theirs = dict(json.loads(archive.read(NAME)))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "the run does not say what code it is of; start it with python -m "
            "fed.deployment"
        ) from error
    names = sorted(map(str, code.keys() | theirs.keys()))
    if other := [name for name in names if code.get(name) != theirs.get(name)]:
        more = f" and {len(other) - 3} more files" if len(other) > 3 else ""
        raise ValueError(
            f"the run's code is not what is installed here: {', '.join(other[:3])}"
            f"{more}; have the same version on server and nodes"
        )
