"""Score a trained model on fixed mixtures, or compare two scored models.

    python evaluate.py results/fedenhance/1234
    python evaluate.py results/fedenhance/1234 --metrics si_sdr sdr pesq estoi
    python evaluate.py results/fedenhance/1234 --test_mixtures others/test_mixtures.csv
    python evaluate.py results/fedenhance/1234 --data_folder /data/librifsd50k
    python evaluate.py --enhanced clean/ --references originals/ --noisy recordings/
    python evaluate.py --enhanced clean/ --recogniser asr/ --transcripts said.txt
    python evaluate.py compare results/mixit/1234 results/supervised/1234

Files of any enhancer are paired by their names; every metric that is installed is
measured. Without --references those that need none are, and without --noisy there is no
improvement. A recogniser of SpeechBrain adds word error rates; it may run any code.

Writes utterances.csv, summary.csv and a figure for each metric into the folder
evaluation/ beside the model or the files, or comparison.csv and figures for a
comparison.
"""

from pathlib import Path

from fedenhance.__main__ import program
from fedenhance.run_folder.arguments import Parser, above_zero

LABELS = {
    "si_sdr": "SI-SDR (dB)",
    "sdr": "SDR (dB)",
    "pesq": "PESQ (MOS-LQO)",
    "estoi": "ESTOI",
    "dnsmos": "DNSMOS (overall)",
}


def parse(argv):
    """The command line; without a command it is that of ``score``."""
    parser = Parser(prog=program("evaluate"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score", help="a trained model; may be left out")
    about = "output folder of train.py"
    scoring.add_argument("folder", type=Path, nargs="?", help=about)
    about = "folder of files that an enhancer wrote, instead of a model"
    scoring.add_argument("--enhanced", type=Path, help=about)
    about = "folder of clean files of the same names"
    scoring.add_argument("--references", type=Path, help=about)
    about = "folder of what was enhanced, of the same names"
    scoring.add_argument("--noisy", type=Path, help=about)
    about = "of --enhanced; files of another rate are resampled (default: 16000)"
    scoring.add_argument(
        "--sample_rate", type=above_zero(int), default=16000, help=about
    )
    about = "folder of SpeechBrain's EncoderASR or EncoderDecoderASR, for word errors"
    scoring.add_argument("--recogniser", type=Path, help=about)
    about = "what is said in the files: a line each, the name and its words"
    scoring.add_argument("--transcripts", type=Path, help=about)
    which = scoring.add_mutually_exclusive_group()
    about = "manifest of mixtures; default: test_mixtures.csv in the folder"
    which.add_argument("--test_mixtures", type=Path, help=about)
    about = "another corpus, laid out as the recipe prepares it: its test split"
    which.add_argument("--data_folder", help=about)
    about = "what $data_root stands for in the manifest"
    scoring.add_argument("--data_root", help=about)
    about = f"among {', '.join(LABELS)}; SI-SDR is always there"
    scoring.add_argument("--metrics", nargs="+", default=[], help=about)
    about = "default: evaluation/ in the folder"
    scoring.add_argument("--out", type=Path, help=about)
    scoring.add_argument("--device", default="cpu", help="of the model; default: cpu")
    about = "run a model's own code"
    scoring.add_argument("--trust", action="store_true", help=about)
    about = "default: one for each core"
    scoring.add_argument("--processes", type=above_zero(int), help=about)
    comparison = commands.add_parser("compare", help="two scored models: A minus B")
    about = "scored output folder of train.py, or an utterances.csv"
    comparison.add_argument("a", type=Path, help=about)
    comparison.add_argument("b", type=Path, help=about)
    about = "default: comparison/"
    comparison.add_argument("--out", type=Path, default=Path("comparison"), help=about)
    known = argv and argv[0] in (*commands.choices, "-h", "--help")
    options = parser.parse_args(argv if known else ["score", *argv])
    if options.command == "score" and (options.folder is None) == (
        not options.enhanced
    ):
        parser.error("name one: an output folder of train.py, or --enhanced FOLDER")
    if options.command == "score":
        given = options.recogniser, options.transcripts, options.enhanced
        if any(given[:2]) and not all(given):
            parser.error("--recogniser, --transcripts and --enhanced go together")
    return options


def read_mixtures(options, hparams):
    """The mixtures to score the model on, by id, see ``fixed_mixtures``.

    ``hparams`` gets ``loop_noise``, whether short noises are repeated in them.
    """
    from fedenhance.data.datasets import split_mixtures
    from fedenhance.data.manifests import (
        SIGNALS,
        check_files,
        load_manifest,
        save_manifest,
    )
    from fedenhance.deploy.trained import EVALUATION, make, read_experiment

    described = read_experiment(options.folder / "hyperparams.yaml", EVALUATION)
    hparams["loop_noise"] = bool(described.get("mixing", {}).get("loop_noise"))
    root = options.data_folder
    if root:
        hparams = {**hparams, **make(options.folder, EVALUATION, options.trust)}
        manifests = str(options.out / "manifests")
        hparams["prepare"](data_folder=root, save_folder=manifests)
        there = {"data_folder": root, "test_csv": f"{manifests}/test.csv"}
        mixtures = split_mixtures({**hparams, **there}, "test")
        save_manifest(options.out / "test_mixtures.csv", mixtures, root)
        return mixtures
    path = options.test_mixtures or options.folder / "test_mixtures.csv"
    mixtures = load_manifest(path, options.data_root or hparams["data_folder"])
    check_files(mixtures, path, SIGNALS)
    return mixtures


def enhance_all(mixtures, trained, device):
    """Yield what ``measure_utterances`` takes; leave damaged recordings out."""
    from fedenhance.data.datasets import none_if_damaged
    from fedenhance.data.mixing import read_fixed_mixture

    read = none_if_damaged(read_fixed_mixture)
    loop_noise = trained.hparams["loop_noise"]
    for key, row in mixtures.items():
        sources = read(row, trained.sample_rate, loop_noise)
        if sources is None:
            continue
        mixture = sources.sum(0)
        estimate = trained(mixture.to(device).unsqueeze(0))[0, 0].cpu()
        known = {name: row.get(name, "") for name in ("noise_class", "spk_id")}
        n_noises = row.get("n_noises") or bool(row["noise"]) + bool(row["extra"])
        target = sources[0].numpy() if row["speech"] else None
        row = {"id": key, "n_noises": n_noises, **known}
        yield row, estimate.numpy(), mixture.numpy(), target


def score_files(options):
    """Score files that are there; return the summary."""
    from fedenhance.reports import scores as report
    from fedenhance.reports.metrics import (
        METRICS,
        WITHOUT_REFERENCE,
        is_installed,
        measure_utterances,
    )
    from fedenhance.reports.pairs import pair_files, read_pairs

    kinds = ("enhanced", "references", "noisy")
    folders = {k: path for k in kinds if (path := getattr(options, k))}
    defined = METRICS if options.references else WITHOUT_REFERENCE
    metrics = options.metrics or list(filter(is_installed, sorted(defined)))
    useless = sorted({*metrics} & METRICS.keys() - {*defined})
    if useless or not metrics:
        raise ValueError(
            f"{', '.join(useless)} needs --references"
            if useless
            else "without --references a metric that needs none is needed: pip install "
            "speechmos librosa onnxruntime requests"
        )
    pairs, left_out = pair_files(folders)
    words, told = hear(options, pairs) if options.recogniser else ({}, "")
    rows = measure_utterances(
        read_pairs(pairs, options.sample_rate, left_out),
        options.sample_rate,
        metrics,
        processes=options.processes,
        total=len(pairs),
    )
    for line in left_out:
        print(f"left out {line}")
    if not rows:
        raise ValueError(f"none of the files in {options.enhanced} can be scored")
    out = options.out or options.enhanced / "evaluation"
    nothing = dict.fromkeys(next(iter(words.values()), ()), "")
    rows = [row | words.get(row["id"], nothing) for row in rows]
    report.write_rows(out / "utterances.csv", rows)
    columns = None if options.noisy else metrics
    summary = report.summarize(rows, columns)
    write_summary(out, summary, "summary", improvement="i" if options.noisy else "")
    print(told, end="\n" if told else "")
    return summary


def hear(options, pairs):
    """Word error rates of pairs of files, see ``reports.words.measure_words``."""
    from fedenhance.reports.pairs import read_pairs
    from fedenhance.reports.words import (
        load_recogniser,
        measure_words,
        read_transcripts,
    )

    transcripts = read_transcripts(options.transcripts)
    recogniser = load_recogniser(options.recogniser)
    utterances = read_pairs(pairs, options.sample_rate, [])
    return measure_words(utterances, options.sample_rate, recogniser, transcripts)


def score(options):
    """Score a model, or files; return the summary."""
    if options.enhanced:
        return score_files(options)
    from fedenhance.deploy.trained import load_trained
    from fedenhance.reports import scores as report
    from fedenhance.reports.metrics import check_metrics, measure_utterances

    # SI-SDR before enhancement says in which bin of input SNR an utterance is.
    metrics = list(dict.fromkeys(["si_sdr", *options.metrics]))
    check_metrics(metrics)
    trained = load_trained(options.folder, options.device, options.trust)
    options.out = options.out or options.folder / "evaluation"
    mixtures = read_mixtures(options, trained.hparams)
    rows = measure_utterances(
        enhance_all(mixtures, trained, options.device),
        trained.sample_rate,
        metrics,
        processes=options.processes,
        total=len(mixtures),
    )
    if not rows:
        raise ValueError("none of the mixtures can be read")
    if skipped := len(mixtures) - len(rows):
        print(f"{skipped} of {len(mixtures)} mixtures are damaged and left out")
    report.write_rows(options.out / "utterances.csv", rows)
    summary = report.summarize(rows)
    write_summary(options.out, summary, "summary", improvement="i")
    return summary


def compare(options):
    """Compare two models; return the summary of their differences."""
    from fedenhance.reports import scores as report

    summary = report.compare(read_scores(options.a), read_scores(options.b))
    print(f"{options.a} minus {options.b}\n")
    write_summary(options.out, summary, "comparison")
    return summary


def read_scores(path):
    """Scores of utterances of a folder, or of a file."""
    from fedenhance.reports import scores as report

    if path.is_dir():
        path = path / "evaluation" / "utterances.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: run python evaluate.py {path.parent.parent} first"
        )
    return report.read_rows(path)


def write_summary(folder, summary, name, improvement=""):
    """Write a summary and its figures; show it overall and by number of noises."""
    from fedenhance.reports import scores as report

    report.write_rows(folder / f"{name}.csv", summary)
    what = "improvement" if improvement else "difference"
    what = "of the files" if name == "summary" and not improvement else what
    for metric, label in LABELS.items():
        column = f"{metric}{improvement}"
        if any(line["n"] for line in summary if line["metric"] == column):
            figure = report.draw_summary(summary, column, f"{label}, {what}")
            figure.savefig(folder / f"{name}_{metric}.png", dpi=150)
    for grouping in ("all", "n_noises"):
        print(report.format_summary(summary, grouping), end="\n\n")
    print(f"By input SI-SDR, noise class and speaker: {folder / name}.csv")


def main(argv):
    """Run a command line; return the summary that it writes."""
    options = parse(argv)
    return {"score": score, "compare": compare}[options.command](options)
