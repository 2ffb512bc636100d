"""Download LibriSpeech (clean) and FSD50K, and unpack them.

From the root of the repository::

    python -m fedenhance.recipes.LibriFSD50K.download /data --dry_run
    python -m fedenhance.recipes.LibriFSD50K.download /data

Interrupted at any point, it is continued by the same command.
"""

import argparse
from pathlib import Path

from fedenhance.recipes.downloading import Archive, Plan, add_options, run

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


def speech_archives(subsets):
    """Archives of subsets of LibriSpeech."""
    return [
        [Archive(f"{subset}.tar.gz", OPENSLR, *LIBRISPEECH[subset])]
        for subset in subsets
    ]


def noise_archives():
    """Archives of FSD50K in their parts."""
    return [
        [
            Archive(f"FSD50K.{group}.{end}", ZENODO, *facts)
            for end, facts in parts.items()
        ]
        for group, parts in FSD50K.items()
    ]


def main(argv=None):
    """Run from the command line."""
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
    arguments = add_options(parser).parse_args(argv)
    data, mirror = arguments.data_folder, arguments.mirror
    archives = arguments.archive_folder or data / "archives"
    plans = []
    # LibriSpeech's archives hold the folder LibriSpeech/, those of FSD50K do not.
    if not arguments.skip_speech:
        speech = speech_archives(arguments.subsets or LIBRISPEECH)
        plans.append(Plan(speech, archives, data, MIRRORS.get(mirror, mirror)))
    if not arguments.skip_noise:
        target = data / "FSD50K"
        plans.append(Plan(noise_archives(), archives, target, arguments.noise_mirror))
    run(plans, data, arguments)


if __name__ == "__main__":
    main()
