#!/usr/bin/env python
"""Enhance recordings with a trained model.

    python enhance.py results/fedenhance/1234 noisy.wav --out clean/
    python enhance.py results/fedenhance/1234 recordings/ more/*.flac --out clean/
    python enhance.py results/fedenhance/1234 noisy.wav --out parts/ --sources all

The files written have the rate, channels, length, level and format of those read; a
folder's tree is kept. Each channel is enhanced by itself. What a network of 16 kHz
gives ends at 8 kHz, also in a file of a higher rate. Files that are there are skipped.
A damaged file is named and skipped; then the exit code is 1 at the end.
"""

import argparse
import sys
from pathlib import Path


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="enhance.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, help="output folder of train.py, or its package/"
    )
    parser.add_argument(
        "inputs", type=Path, nargs="+", metavar="INPUT", help="file or folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--sources",
        choices=("speech", "all"),
        default="speech",
        help="all: NAME_speech, NAME_noise1, ... for each file",
    )
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        help="channels and pieces of a file together; more for a GPU (default: 1)",
    )
    parser.add_argument(
        "--piece",
        type=float,
        default=40.0,
        metavar="SECONDS",
        help="longer files are cut into overlapping pieces of this length, which "
        "bounds the memory; shorter may suit changing noise better (default: 40)",
    )
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error("--batch_size must be 1 or more")
    return options


def count_seconds(recordings):
    """Seconds of audio in files, as far as they can be read."""
    import soundfile

    seconds = 0.0
    for path in recordings:
        try:
            seconds += soundfile.info(path).duration
        except (OSError, soundfile.SoundFileError, TypeError):
            continue  # named when its turn comes
    return seconds


def main(argv):
    """Run a command line; return the number of damaged files."""
    options = parse(argv)
    from tqdm import tqdm

    from fedenhance.data.audio import DamagedAudioError
    from fedenhance.deploy.enhancement import (
        enhance_file,
        find_recordings,
        source_names,
    )
    from fedenhance.deploy.trained import load_trained

    recordings = find_recordings(options.inputs, options.out)
    trained = load_trained(options.model, options.device)
    work = {
        source: source_names(target, trained.num_sources)
        if options.sources == "all"
        else [target]
        for source, target in recordings.items()
    }
    if not options.overwrite:
        work = {s: ts for s, ts in work.items() if not all(t.exists() for t in ts)}
    damaged = 0
    with tqdm(total=count_seconds(work), unit="s", disable=None) as bar:
        bar.bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
        for source, targets in work.items():
            bar.set_description(source.name)
            try:
                enhance_file(
                    trained,
                    source,
                    targets,
                    piece=options.piece,
                    batch_size=options.batch_size,
                    progress=bar.update,
                )
            except DamagedAudioError as error:
                damaged += 1
                bar.write(f"skipped {error}", file=sys.stderr)
    print(
        f"{len(work) - damaged} enhanced, {len(recordings) - len(work)} there already, "
        f"{damaged} damaged; see {options.out}"
    )
    return damaged


if __name__ == "__main__":
    try:
        sys.exit(1 if main(sys.argv[1:]) else 0)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"enhance.py: {error}")
    except KeyboardInterrupt:
        sys.exit("enhance.py: stopped; the same command goes on with the next file")
