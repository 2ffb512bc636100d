"""Download the noise of WHAM!.

From the root of the repository::

    python -m recipes.WHAM.download /data
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
    unpack,
)

# The address that wham.whisper.ai names. No checksum is published; the files' own
# checksums in the zip are checked when it is unpacked.
NOISE = Archive(
    "wham_noise.zip",
    "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com",
)
APPROXIMATE_SIZE, APPROXIMATE_UNPACKED = 17_650_000_000, 35_000_000_000


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", type=Path, help="wham_noise/ goes here")
    parser.add_argument("--mirror", help="address of the folder of wham_noise.zip")
    parser.add_argument("--delete_archives", action="store_true")
    parser.add_argument("--retries", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds")
    parser.add_argument("--dry_run", action="store_true", help="say what would be done")
    arguments = parser.parse_args(argv)
    data = arguments.data_folder
    tqdm.write(
        f"{NOISE.name}: about {human(APPROXIMATE_SIZE)}, "
        f"unpacked about {human(APPROXIMATE_UNPACKED)}."
    )
    if arguments.dry_run:
        return
    try:
        if not (data / NOISE.name).exists():
            # A mirror may hold less; its own size is told when it answers.
            size = 0 if arguments.mirror else APPROXIMATE_SIZE + APPROXIMATE_UNPACKED
            check_space(data, size)
        path = download(
            NOISE,
            data,
            arguments.mirror,
            arguments.retries,
            arguments.timeout,
            arguments.pause,
        )
        unpack(path, data)
    except DownloadError as error:
        sys.exit(f"error: {error}")
    if arguments.delete_archives:
        path.unlink()
    tqdm.write(f"The noise is in {data / 'wham_noise'}.")


if __name__ == "__main__":
    main()
