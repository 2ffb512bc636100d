"""Enhance recordings with a trained model.

    python enhance.py noisy.wav --out clean/
    python enhance.py results/fedenhance/1234 noisy.wav --out clean/
    python enhance.py results/fedenhance/1234 recordings/ more/*.flac --out clean/
    python enhance.py results/fedenhance/1234 noisy.wav --out parts/ --sources all

MODEL is an output folder of train.py, its package/, the name of a model that comes
along, or hf:user/model; without it the first that comes along is taken. One that names
code that is not of this project, and was not trained on this machine, needs --trust.

The files written have the rate, channels, length, level and format of those read; a
folder's tree is kept. Each channel is enhanced by itself. What a network of 16 kHz
gives ends at 8 kHz, also in a file of a higher rate. Files that are there are skipped.
A damaged file is named and skipped; then the exit code is 1 at the end. What ffmpeg
reads (.m4a, .webm, ...) is taken where there is ffmpeg, and written as WAV.
"""

import sys
from pathlib import Path

from fedenhance.__main__ import importing, program
from fedenhance.commands import limits
from fedenhance.run_folder.arguments import Parser, above_zero


def parse(argv):
    """The command line."""
    parser = Parser(prog=program("enhance"), description=__doc__)
    parser.add_argument(
        "words", nargs="+", metavar="[MODEL] INPUT", help="model; files and folders"
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
        type=above_zero(int),
        default=1,
        help="channels and pieces of a file together; more for a GPU (default: 1)",
    )
    parser.add_argument(
        "--piece",
        type=above_zero(float),
        default=40.0,
        metavar="SECONDS",
        help="longer files are cut into overlapping pieces of this length, which "
        "bounds the memory; shorter may suit changing noise better (default: 40)",
    )
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--trust", action="store_true", help="run a model's own code")
    return limits.parse(parser, argv)


def main(argv):
    """Run a command line; return the number of damaged files."""
    options = parse(argv)
    with importing():
        from tqdm import tqdm

        from fedenhance.data.folders import count_reasons
        from fedenhance.data.opening import DamagedAudioError
        from fedenhance.deploy import enhancement
        from fedenhance.deploy.trained import is_model, load_trained

    # A folder that is no model, before recordings, is one that was meant to be.
    words, meant = options.words, Path(options.words[0])
    model = is_model(words[0]) or (words[1:] and (meant / "save").exists())
    if model and not words[1:]:
        raise ValueError(f"{words[0]} is a model: which recordings shall it enhance?")
    name, inputs = (words[0], words[1:]) if model else (None, words)
    options.inputs = [Path(word) for word in inputs]
    recordings, left_out = enhancement.find_recordings(options.inputs, options.out)
    for path, reason in left_out:
        print(f"left out {path}: {reason}", file=sys.stderr)
    trained = load_trained(name, options.device, options.trust).keeping(options.dry)
    work, damaged = {}, 0
    for source, target in recordings.items():
        targets = [target]
        if options.sources == "all":
            targets = enhancement.source_names(target, trained.num_sources)
        if options.overwrite or not all(path.exists() for path in targets):
            work[source] = targets
    with tqdm(total=enhancement.count_seconds(work), unit="s", disable=None) as bar:
        bar.bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
        for source, targets in work.items():
            bar.set_description(source.name)
            sizes = options.piece, options.batch_size
            try:
                enhancement.enhance_file(trained, source, targets, *sizes, bar.update)
            except DamagedAudioError as error:
                damaged += 1
                bar.write(f"skipped {error}", file=sys.stderr)
    told = f", {count_reasons(left_out)}" if left_out else ""
    print(
        f"{len(work) - damaged} enhanced, {len(recordings) - len(work)} there already, "
        f"{damaged} damaged{told}; see {options.out}"
    )
    return damaged
