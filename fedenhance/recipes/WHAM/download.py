"""Download the noise of WHAM!.

From the root of the repository::

    python -m fedenhance.recipes.WHAM.download /data
"""

import argparse
from pathlib import Path

from fedenhance.recipes.downloading import Archive, Plan, add_options, run

# The address that wham.whisper.ai names. No checksum is published; the files' own
# checksums in the zip are checked when it is unpacked.
NOISE = Archive(
    "wham_noise.zip",
    "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com",
    size=17_650_000_000,
    growth=2.0,
)


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", type=Path, help="wham_noise/ goes here")
    parser.add_argument("--mirror", help="address of the folder of wham_noise.zip")
    arguments = add_options(parser).parse_args(argv)
    data = arguments.data_folder
    run([Plan([[NOISE]], data, data, arguments.mirror)], data, arguments)


if __name__ == "__main__":
    main()
