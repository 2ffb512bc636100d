"""Draw the figures of the paper from result folders.

    python figures.py convergence results/mini --out figures
    python figures.py transfer results/mini --out figures
    python figures.py supervision results/mini --out figures
    python figures.py snr results/fedenhance/1234 --out figures

RESULTS are output folders of train.py, or folders that hold such. Runs that differ in
their seed alone become a mean with a range. Each figure is written as PNG and PDF.
"""

import logging
from pathlib import Path

from fedenhance.__main__ import program
from fedenhance.reports.runs import FACTORS, find_runs
from fedenhance.run_folder.arguments import Parser

CHOICES = ("convergence", "transfer", "supervision", "snr")


def parse(argv):
    """The command line."""
    parser = Parser(prog=program("figures"), description=__doc__)
    parser.add_argument("figure", choices=CHOICES)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    about = "the paper's own numbers to lay over: recipes/LibriFSD50K/paper.csv"
    parser.add_argument("--paper", type=Path, help=about)
    parser.add_argument(
        "--vary",
        choices=list(FACTORS),
        help="what distinguishes curves or bars, everything else being equal; default: "
        "n_clients, and p_supervised of supervision",
    )
    about = "of snr, where the corpus lies elsewhere now"
    parser.add_argument("--data_folder", help=about)
    return parser.parse_args(argv)


def draw(options):
    """Draw one figure of logged runs."""
    from fedenhance.reports import figures

    name = options.figure
    paper = figures.read_paper(options.paper, name) if options.paper else ()
    vary = {"vary": options.vary} if options.vary else {}
    figure = getattr(figures, name)(find_runs(options.results), paper, **vary)
    return figures.save(figure, options.out, name)


def draw_snr(options):
    """Draw the input SNR of the corpus of a run: its manifests say where it is."""
    from fedenhance.recipes.LibriFSD50K.statistics import statistics

    run = find_runs(options.results[:1])[0]
    folder = options.data_folder or run.hparams["data_folder"]
    manifests = run.folder / "manifests"
    if not manifests.is_dir():  # the user's own
        manifests = run.hparams["manifest_folder"]
    statistics(folder, manifests, options.out)
    return [options.out / "input_snr.png", options.out / "input_snr.pdf"]


def main(argv):
    """Run a command line."""
    options = parse(argv)
    for path in draw_snr(options) if options.figure == "snr" else draw(options):
        logging.getLogger(__name__).info("%s", path)
