#!/usr/bin/env python
"""What the default experiment reaches: test SI-SDRi over seeds.

    python -m benchmarks.experiments --seeds 1 2 3
    python -m benchmarks.experiments --corpus packaged --data_folder FOLDER

FOLDER is what recipes/PackagedRecordings builds. Runs train.py for every seed and every
share of supervised clients. Finished runs are kept, so that an interrupted benchmark
goes on. Prints a table, and keeps one row a run in experiments.csv.
"""

import os
from itertools import product
from pathlib import Path

from benchmarks import COMMITTED, measuring
from benchmarks.kept import Kept
from fedenhance.commands.experiments import command_of, is_done, train
from fedenhance.data.tables import grouped
from fedenhance.reports import markdown
from fedenhance.reports.markdown import spread
from fedenhance.reports.runs import Run

RECORDED = "--snr_range [-5,10] --loop_noise True --local_epoch_p 0.25 --test_size 40"
CORPORA = {"built-in": [], "packaged": RECORDED.split()}
"""Corpus -> the arguments of train.py that go with it."""
NAMES = {
    "built-in": "built-in, levels as recorded",
    "packaged": "packaged recordings, -5 to 10 dB",
}

KEYS = ["corpus", "p_supervised", "seed"]


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
    parser.add_argument("--note", default="", help="to go with the machine's name")
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    parser.set_defaults(device="cpu", clock="wall", threads=threads)
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
    """Run what is not in the CSV yet; print the table of all that is."""
    args = parse(argv)
    kept, extra = Kept(args.csv, KEYS), [*CORPORA[args.corpus]]
    if args.data_folder:
        extra += ["--data_folder", args.data_folder]
    if args.quick:
        extra += ["--rounds", "2", "--test_size", "2", "--valid_size", "2"]
    for p, seed in product(args.p_supervised, args.seeds):
        if kept.lacks(args.corpus, p, seed):
            folder = args.out / args.corpus / f"p{p:g}" / str(seed)
            trained(folder, args.hparams, seed, extra, p_supervised=p)
            found = Run(folder).summary()
            row = {"corpus": args.corpus, "p_supervised": p, "seed": seed}
            row |= {key: found[key] for key in ("si_sdri_1", "si_sdri_2", "minutes")}
            kept.add({**row, "machine": measuring.machine(args)})
    print(table(kept.rows))
    print("test SI-SDRi in dB, mean ± standard deviation over seeds")


def table(rows):
    """Write the CSV's rows as a table: mean and deviation over seeds.

    Example
    -------
    >>> row = {"corpus": "built-in", "p_supervised": "0.5", "si_sdri_1": "3"}
    >>> print(table([{**row, "si_sdri_2": "4.5"}]).splitlines()[-1])
    | built-in, levels as recorded | 0.5 | 1 | 3.00 | 4.50 |
    """
    lines = [
        [
            NAMES[corpus],
            f"{float(p):g}",
            len(own),
            *(spread(column(own, n)) for n in (1, 2)),
        ]
        for (corpus, p), own in grouped(
            rows, lambda row: (row["corpus"], row["p_supervised"])
        ).items()
    ]
    header = ["corpus", "`p_supervised`", "seeds", "one noise", "two noises"]
    return markdown.table(header, lines)


def column(rows, noises):
    """The improvements with so many noises."""
    return [float(row[f"si_sdri_{noises}"]) for row in rows]


if __name__ == "__main__":
    main()
