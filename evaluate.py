#!/usr/bin/env python
"""Score a trained model on fixed mixtures, or compare two scored models.

    python evaluate.py results/fedenhance/1234
    python evaluate.py results/fedenhance/1234 --metrics si_sdr sdr pesq estoi
    python evaluate.py results/fedenhance/1234 --test_mixtures others/test_mixtures.csv
    python evaluate.py results/fedenhance/1234 --data_folder /data/librifsd50k
    python evaluate.py compare results/mixit/1234 results/supervised/1234

Writes utterances.csv, summary.csv and a figure for each metric into the folder
evaluation/ beside the model, or comparison.csv and figures for a comparison.
"""

import argparse
import sys
from pathlib import Path

from fedenhance.reports import scores as report

LABELS = {
    "si_sdr": "SI-SDR (dB)",
    "sdr": "SDR (dB)",
    "pesq": "PESQ (MOS-LQO)",
    "estoi": "ESTOI",
    "dnsmos": "DNSMOS (overall)",
}


def parse(argv):
    """The command line; what does not begin with a command is to be scored."""
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **raw)
    commands = parser.add_subparsers(required=True, metavar="{score,compare}")
    about = "score a trained model; the command that may be left out"
    scoring = commands.add_parser("score", description=__doc__, help=about, **raw)
    scoring.set_defaults(run=score)
    add = scoring.add_argument
    add("folder", type=Path, help="output folder of train.py")
    which = scoring.add_mutually_exclusive_group()
    which.add_argument(
        "--test_mixtures",
        type=Path,
        help="manifest of mixtures; default: test_mixtures.csv in the folder",
    )
    which.add_argument(
        "--data_folder",
        help="another corpus in the layout that the recipe prepares: make the fixed "
        "mixtures of its test split",
    )
    add("--data_root", help="what $data_root stands for in the manifest")
    about = f"among {', '.join(LABELS)}; SI-SDR is always there"
    add("--metrics", nargs="+", default=[], metavar="METRIC", help=about)
    add("--out", type=Path, help="default: evaluation/ in the folder")
    add("--device", default="cpu", help="of the model; default: cpu")
    add("--processes", type=int, help="default: one for each core")

    about = "Paired differences, A minus B, on the same mixtures."
    comparison = commands.add_parser("compare", description=about, help=about)
    comparison.set_defaults(run=compare)
    for name in ("a", "b"):
        about = "scored output folder of train.py, or an utterances.csv"
        comparison.add_argument(name, type=Path, help=about)
    about = "default: comparison/"
    comparison.add_argument("--out", type=Path, default=Path("comparison"), help=about)
    if argv and argv[0] not in (*commands.choices, "-h", "--help"):
        argv = ["score", *argv]
    return parser.parse_args(argv)


def read_mixtures(options, trained):
    """The mixtures to score the model on, by id, see ``fixed_mixtures``."""
    from fedenhance.data.datasets import split_mixtures
    from fedenhance.data.manifests import load_manifest, save_manifest

    hparams = trained.hparams
    if options.data_folder:
        manifests = options.out / "manifests"
        hparams["prepare"](data_folder=options.data_folder, save_folder=str(manifests))
        hparams = {
            **hparams,
            "data_folder": options.data_folder,
            "manifest_folder": str(manifests),
        }
        mixtures = split_mixtures(hparams, "test")
        save_manifest(options.out / "test_mixtures.csv", mixtures, options.data_folder)
        return mixtures
    path = options.test_mixtures or options.folder / "test_mixtures.csv"
    return load_manifest(path, options.data_root or hparams["data_folder"])


def read_signals(key, row, sample_rate, loop_noise=False):
    """The signals of one row of a manifest.

    Arguments
    ---------
    key : str
        Its id.
    row : dict
        With ``duration``. A row with ``noisy`` and ``speech`` is a recording and its
        clean speech; any other is a mixture of what it names. Gains are 1 by default.
    sample_rate : int
        In Hz.
    loop_noise : bool
        Repeat short noises instead of padding them.

    Returns
    -------
    mixture : torch.Tensor
        ``(time,)``.
    speech : torch.Tensor or None
        ``(time,)``; None where it is unknown.
    """
    from fedenhance.data.audio import read_segment
    from fedenhance.data.mixing import read_fixed_mixture

    if not row.get("duration"):
        raise ValueError(f"the row {key} of the manifest has no duration in seconds")
    num_samples = round(float(row["duration"]) * sample_rate)
    reading = {"sample_rate": sample_rate, "num_samples": num_samples}
    if row["noisy"] and row["speech"]:
        mixture, speech = (
            read_segment(*row[k], **reading) for k in ("noisy", "speech")
        )
        return mixture - mixture.mean(), speech - speech.mean()
    sources = read_fixed_mixture(row, sample_rate, loop_noise)
    return sources.sum(0), sources[0] if row["speech"] else None


def enhance_all(mixtures, trained, device):
    """Yield what ``measure_utterances`` takes; leave damaged recordings out."""
    from speechbrain.utils.logger import get_logger

    from fedenhance.data.audio import DamagedAudioError

    loop_noise = trained.hparams["mixing"].loop_noise
    for key, row in mixtures.items():
        try:
            mixture, speech = read_signals(key, row, trained.sample_rate, loop_noise)
        except DamagedAudioError as error:
            get_logger(__name__).warning("%s is left out: %s", key, error)
            continue
        estimate = trained(mixture.to(device).unsqueeze(0))[0, 0]
        described = {
            "id": key,
            "n_noises": row.get("n_noises") or bool(row["noise"]) + bool(row["extra"]),
            "noise_class": row.get("noise_class", ""),
            "spk_id": row.get("spk_id", ""),
        }
        target = None if speech is None else speech.numpy()
        yield described, estimate.cpu().numpy(), mixture.numpy(), target


def score(options):
    """Score a model; return the summary."""
    from fedenhance.deploy.trained import load_trained
    from fedenhance.reports.metrics import check_metrics, measure_utterances

    # SI-SDR before enhancement says in which bin of input SNR an utterance is.
    metrics = list(dict.fromkeys(["si_sdr", *options.metrics]))
    check_metrics(metrics)
    trained = load_trained(options.folder, options.device)
    options.out = options.out or options.folder / "evaluation"
    mixtures = read_mixtures(options, trained)
    rows = measure_utterances(
        enhance_all(mixtures, trained, options.device),
        trained.sample_rate,
        metrics,
        processes=options.processes,
        total=len(mixtures),
    )
    if not rows:
        raise ValueError("none of the mixtures can be read")
    report.write_rows(options.out / "utterances.csv", rows)
    summary = report.summarize(rows)
    write_summary(options.out, summary, "summary", improvement="i")
    return summary


def compare(options):
    """Compare two models; return the summary of their differences."""
    summary = report.compare(read_scores(options.a), read_scores(options.b))
    print(f"{options.a} minus {options.b}\n")
    write_summary(options.out, summary, "comparison")
    return summary


def read_scores(path):
    """Scores of utterances of a folder, or of a file."""
    if path.is_dir():
        path = path / "evaluation" / "utterances.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: run python evaluate.py {path.parent.parent} first"
        )
    return report.read_rows(path)


def write_summary(folder, summary, name, improvement=""):
    """Write a summary and its figures; show it overall and by number of noises."""
    report.write_rows(folder / f"{name}.csv", summary)
    for metric, label in LABELS.items():
        column = f"{metric}{improvement}"
        lines = [line for line in summary if line["metric"] == column]
        if any(line["n"] for line in lines):
            what = "improvement" if improvement else "difference"
            figure = report.draw_summary(summary, column, f"{label}, {what}")
            figure.savefig(folder / f"{name}_{metric}.png", dpi=150)
    print(report.format_summary(summary, "all"))
    print()
    print(report.format_summary(summary, "n_noises"))
    print(f"\nBy input SI-SDR, noise class and speaker: {folder / name}.csv")


def main(argv):
    """Run a command line; return the summary that it writes."""
    options = parse(argv)
    return options.run(options)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (FileNotFoundError, ImportError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
