"""Download LibriSpeech (clean) and FSD50K, and unpack them.

From the root of the repository::

    python -m recipes.LibriFSD50K.download /data --dry_run
    python -m recipes.LibriFSD50K.download /data

Interrupted at any point, it is continued by the same command.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from recipes.downloading import (
    Archive,
    DownloadError,
    check_space,
    download,
    human,
    missing_bytes,
    unpack,
)

OPENSLR = "https://www.openslr.org/resources/12"
ZENODO = "https://zenodo.org/records/4060432/files"
MIRRORS = {
    "us": "https://us.openslr.org/resources/12",
    "eu": "https://openslr.elda.org/resources/12",
    "cn": "https://openslr.magicdatatech.com/resources/12",
}
"""Mirrors of OpenSLR; FSD50K has Zenodo alone."""

# Sizes and checksums as published by OpenSLR and Zenodo.
LIBRISPEECH = {
    "train-clean-100": (6387309499, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": (23049477885, "c0e676e450a7ff2f54aeade5171606fa"),
    "dev-clean": (337926286, "42e2234ba48799c1f50f24a7926300a1"),
    "test-clean": (346663984, "32fa31d27d2e1cad72775fee3f4849a9"),
}
FSD50K = {
    "dev_audio": {
        "z01": (3221225472, "faa7cf4cc076fc34a44a479a5ed862a3"),
        "z02": (3221225472, "8f9b66153e68571164fb1315d00bc7bc"),
        "z03": (3221225472, "1196ef47d267a993d30fa98af54b7159"),
        "z04": (3221225472, "d088ac4e11ba53daf9f7574c11cccac9"),
        "z05": (3221225472, "81356521aa159accd3c35de22da28c7f"),
        "zip": (2306663327, "c480d119b8f7a7e32fdb58f3ea4d6c5a"),
    },
    "eval_audio": {
        "z01": (3221225472, "3090670eaeecc013ca1ff84fe4442aeb"),
        "zip": (3037675767, "6fa47636c3a3ad5c7dfeba99f2637982"),
    },
    "ground_truth": {"zip": (334701, "ca27382c195e37d2269c4c866dd73485")},
    "metadata": {"zip": (6700838, "b9ea0c829a411c1d42adb9da539ed237")},
}
UNPACKED_SHARE = 1.4  # FSD50K's wav files are larger than their zips; flac is not


def speech_archives(subsets):
    """Archives of subsets of LibriSpeech."""
    return {
        subset: [Archive(f"{subset}.tar.gz", OPENSLR, *LIBRISPEECH[subset])]
        for subset in subsets
    }


def noise_archives():
    """Parts of the archives of FSD50K, the .zip last, as they are unpacked."""
    return {
        group: [
            Archive(f"FSD50K.{group}.{end}", ZENODO, *facts)
            for end, facts in parts.items()
        ]
        for group, parts in FSD50K.items()
    }


def fetch(groups, archive_folder, target, mirror=None, delete=False, **options):
    """Download and unpack groups of archives that are not unpacked yet.

    Arguments
    ---------
    groups : dict
        Name -> list of Archive, the parts of one archive.
    archive_folder : pathlib.Path
        Where archives go.
    target : pathlib.Path
        Where they are unpacked.
    mirror : str, optional
        Folder of the archives at another server.
    delete : bool
        Delete archives when they are unpacked.
    **options
        Go to :func:`recipes.downloading.download`.
    """
    for parts in groups.values():
        if is_unpacked(parts, target):
            continue
        paths = [download(part, archive_folder, mirror, **options) for part in parts]
        unpack(paths[-1], target, paths[:-1])
        if delete:
            for path in paths:
                path.unlink()


def is_unpacked(parts, target):
    """Whether an archive was unpacked by an earlier run."""
    return (target / f".unpacked-{parts[-1].name}").exists()


def needed_bytes(groups, archive_folder, target):
    """Bytes of downloads and of unpacked files that are still to come."""
    todo = [parts for parts in groups.values() if not is_unpacked(parts, target)]
    archives = [part for parts in todo for part in parts]
    loaded = missing_bytes(archives, archive_folder)
    unpacked = sum(part.size or 0 for part in archives)
    return loaded, int(unpacked * UNPACKED_SHARE)


def describe(groups, archive_folder, target):
    """One line for each archive: its size, and what would be done."""
    lines = []
    for parts in groups.values():
        for part in parts:
            present = (archive_folder / part.name).exists()
            partial = (archive_folder / f"{part.name}.part").exists()
            state = "downloaded" if present else "resume" if partial else "download"
            state = "unpacked" if is_unpacked(parts, target) else state
            lines.append(f"{part.name:<28}{human(part.size or 0):>10}  {state}")
    return lines


def parse_arguments(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "data_folder", type=Path, help="LibriSpeech/ and FSD50K/ go here"
    )
    parser.add_argument("--subsets", nargs="+", choices=LIBRISPEECH, metavar="SUBSET")
    parser.add_argument("--skip_speech", action="store_true", help="FSD50K alone")
    parser.add_argument("--skip_noise", action="store_true", help="LibriSpeech alone")
    parser.add_argument("--archive_folder", type=Path, help="default: DATA/archives")
    parser.add_argument("--mirror", help="of OpenSLR: us, eu, cn, or an address")
    parser.add_argument("--noise_mirror", help="address of another copy of FSD50K")
    parser.add_argument("--delete_archives", action="store_true")
    parser.add_argument("--retries", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done")
    return parser.parse_args(argv)


def main(argv=None):
    """Run from the command line."""
    arguments = parse_arguments(argv)
    data = arguments.data_folder
    archives = arguments.archive_folder or data / "archives"
    speech = {}
    if not arguments.skip_speech:
        speech = speech_archives(arguments.subsets or LIBRISPEECH)
    noise = {} if arguments.skip_noise else noise_archives()
    # LibriSpeech's archives hold the folder LibriSpeech/, those of FSD50K do not.
    plans = (
        (speech, data, MIRRORS.get(arguments.mirror, arguments.mirror)),
        (noise, data / "FSD50K", arguments.noise_mirror),
    )
    sizes = [needed_bytes(groups, archives, target) for groups, target, _ in plans]
    loaded, unpacked = (sum(size) for size in zip(*sizes, strict=True))
    for groups, target, _ in plans:
        for line in describe(groups, archives, target):
            tqdm.write(line)
    tqdm.write(f"To download: {human(loaded)}; unpacked: about {human(unpacked)}.")
    options = {k: getattr(arguments, k) for k in ("retries", "timeout", "pause")}
    try:
        check_space(data, loaded + unpacked)
        if arguments.dry_run:
            return
        for groups, target, mirror in plans:
            delete = arguments.delete_archives
            fetch(groups, archives, target, mirror, delete, **options)
    except DownloadError as error:
        sys.exit(f"error: {error}")
    tqdm.write(f"LibriSpeech and FSD50K are in {data}.")


if __name__ == "__main__":
    main()
