#!/usr/bin/env python
"""What the default experiment reaches: test SI-SDRi over seeds.

    python -m benchmarks.experiments --seeds 1 2 3
    python -m benchmarks.experiments --corpus packaged --data_folder FOLDER

FOLDER is what recipes/PackagedRecordings builds. Runs train.py for every seed and every
share of supervised clients. Finished runs are kept, so that an interrupted benchmark
goes on. Prints a table, and adds one row a run to experiments.csv.
"""

from pathlib import Path

from benchmarks import COMMITTED, measuring
from fedenhance.commands.experiments import command_of, is_done, train
from fedenhance.reports.runs import Run, experiments_table

RECORDED = "--snr_range [-5,10] --loop_noise True --local_epoch_p 0.25 --test_size 40"
CORPORA = {"built-in": [], "packaged": RECORDED.split()}
"""Corpus -> the arguments of train.py that go with it."""

COLUMNS = ["corpus", "p_supervised", "seed", "si_sdri_1", "si_sdri_2", "minutes"]


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--corpus", choices=CORPORA, default="built-in")
    parser.add_argument("--data_folder", help="of a corpus that is not built in")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--p_supervised", nargs="+", type=float, default=[0.5, 0.0])
    parser.add_argument("--hparams", default="hparams/fedenhance.yaml")
    parser.add_argument("--out", type=Path, default=Path("results/experiments"))
    parser.add_argument("--csv", type=Path, default=COMMITTED / "experiments.csv")
    parser.add_argument("--quick", action="store_true", help="two rounds, to try it")
    return parser.parse_args(argv)


def trained(folder, hparams, seed, extra, **options):
    """Train once, unless that is done; return the output folder.

    Arguments
    ---------
    folder : Path
    hparams : str
        YAML file, relative to the repository.
    seed : int
    extra : list of str
        More arguments of train.py.
    **options
        Likewise, by their names.

    Raises
    ------
    RuntimeError
        When it failed.
    """
    command = command_of(hparams, options, folder, seed, extra)
    if not is_done(folder, command) and not train(folder, command):
        raise RuntimeError(f"{folder} failed, see log.txt there")
    return folder


def main(argv=None):
    """Run, print the table, and write the CSV."""
    arguments = parse(argv)
    extra, rows, named = [*CORPORA[arguments.corpus]], [], []
    if arguments.data_folder:
        extra += ["--data_folder", arguments.data_folder]
    if arguments.quick:
        extra += ["--rounds", "2", "--test_size", "2", "--valid_size", "2"]
    for p in arguments.p_supervised:
        for seed in arguments.seeds:
            folder = arguments.out / arguments.corpus / f"p{p:g}" / str(seed)
            trained(folder, arguments.hparams, seed, extra, p_supervised=p)
            found = Run(folder).summary()
            named.append(
                {"experiment": f"{arguments.corpus}, p_supervised {p:g}", **found}
            )
            rows.append({"corpus": arguments.corpus, "p_supervised": p, **found})
    print(experiments_table(named))
    print("test SI-SDRi in dB, mean ± standard deviation over seeds")
    measuring.append(arguments.csv, rows, COLUMNS)


if __name__ == "__main__":
    main()
