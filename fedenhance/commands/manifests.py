"""Describe a folder of recordings for training, without references.

    fedenhance manifests recordings/ manifests/ --noises noises/

Every file that libsndfile reads is taken, and what ffmpeg reads where there is ffmpeg;
any rate, any channels. Each is decoded once, to 16 kHz, and cut into rows of equal
length. Who speaks, or which device recorded, is the first sub-folder in which the files
differ, or what ``--person`` finds in the file's path. Nothing is left out silently:
``skipped.csv`` has what and why, ``account.txt`` the sums, and what they suggest for
training.
"""

from argparse import BooleanOptionalAction

from fedenhance.__main__ import program
from fedenhance.run_folder.arguments import Parser, above_zero


def parse(argv):
    """The command line; what is None is left to ``recipes.BareFolder.prepare``."""
    parser = Parser(prog=program("manifests"), description=__doc__)
    parser.add_argument("data_folder", help="the recordings, in any tree")
    about = "for manifests and decoded audio (default: manifests)"
    parser.add_argument("save_folder", nargs="?", help=about)
    parser.add_argument("--noises", help="folder of recordings without speech")
    about = "regular expression that finds in a path who speaks, such as '^[a-z]+'"
    parser.add_argument("--person", help=about)
    about = "take the pauses between words as noise (pip install silero-vad)"
    parser.add_argument("--pauses", action=BooleanOptionalAction, help=about)
    about = "length of rows, at most (default: 10, or less where there is little audio)"
    parser.add_argument("--row_seconds", type=above_zero(float), help=about)
    about = "leave out what is shorter (default: 1)"
    parser.add_argument("--min_seconds", type=above_zero(float), help=about)
    parser.add_argument("--seed", type=int, help="decides who is held out")
    about = "threads (default: one for each core)"
    parser.add_argument("--jobs", type=above_zero(int), help=about)
    return parser.parse_args(argv)


def main(argv):
    """Write manifests; print the account."""
    options = parse(argv)
    from fedenhance.recipes.BareFolder.prepare import prepare

    given = {key: value for key, value in vars(options).items() if value is not None}
    print("\n".join(prepare(**given)["account"]))
