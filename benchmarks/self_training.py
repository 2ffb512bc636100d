#!/usr/bin/env python
"""Whether a federation without references makes a good model better, and keeps it so.

    python -m benchmarks.self_training --data_folder DIR --checkpoint FILE
    python -m benchmarks.self_training --table

DIR is what recipes/PackagedRecordings builds; FILE is a checkpoint of GTCRN that its
authors published, ``checkpoints/model_trained_on_dns3.tar`` of
github.com/Xiaobin-Rong/gtcrn. Eight clients hold noisy recordings of the training
speakers, with one noise at -5 to 10 dB, and isolated noises of their own. They train
the model on, for 50 rounds: by RemixIT as published; on the start's estimates of their
recordings, as hparams/adapt.yaml does; the same where one client has all recordings;
and with clean references, which tells what there is to gain.

SI-SDR improvement of speakers and noises that are in no client's recordings: of the
validation set in the course of it, by which methods and rounds are chosen, and of the
test set at the end. Of the latter's 40 recordings, ``peers`` are the 20 of
benchmarks/peers.py. Methods and seeds that are in the CSV are not done again.
"""

import hashlib
import json
from itertools import product
from operator import itemgetter
from pathlib import Path
from statistics import fmean

import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from benchmarks import COMMITTED, measuring
from benchmarks.adaptation import used
from benchmarks.kept import Kept
from benchmarks.loops import RUN_OPTS
from benchmarks.personal import run
from fed.brain import join
from fedenhance.based_yaml import build, load_hparams
from fedenhance.data import datasets
from fedenhance.data.audio import Segment
from fedenhance.data.estimates import estimate_parts
from fedenhance.data.manifests import is_isolated_noise
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.data.tables import grouped, read_table
from fedenhance.deploy.trained import Trained
from fedenhance.networks.authors import load_reference, read_weights
from fedenhance.reports import markdown
from fedenhance.run_folder.files import whole_file

YAML = Path(__file__).with_name("self_training.yaml")
RATE = 16_000
START = "start"
METHODS = {
    "RemixIT": {
        "brain": "!name:fedenhance.training.remixit.RemixIT",
        "p_supervised": 0.0,
        "client_groups": {"self-training": 1.0},
        "cleanest": None,
        "local": ["teacher.*"],
        "local_epoch_p": 0.075,
    },
    "estimates": {},
    "estimates, one client": {"n_clients": 1},
    "supervised": {"references": True, "local_epoch_p": 0.075},
}
"""Name -> options of train.py; the number of training steps is about the same."""

KEYS = ["method", "seed", "part"]
SCORES = ["si_sdri_1", "si_sdri_2"]
PEERS = 20
"""Recordings of the peers' table."""


def write_start(checkpoint, folder):
    """Write a checkpoint of GTCRN's authors as weights in our names; return folder."""
    separator = load_reference(read_weights(checkpoint), "gtcrn")
    with whole_file(folder / "separator.ckpt") as file:
        torch.save(separator.state_dict(), file)
    return folder


def load_start(folder):
    """Load the weights that training starts from as a model.

    Arguments
    ---------
    folder : str or Path
        With ``separator.ckpt``, of hparams/models/gtcrn.yaml.

    Returns
    -------
    Trained
    """
    with open(YAML.parents[1] / "fedenhance/hparams/models/gtcrn.yaml") as file:
        separator = load_hyperpyyaml(file)["separator"]
    separator.load_state_dict(
        torch.load(Path(folder, "separator.ckpt"), weights_only=True)
    )
    return Trained(separator.eval(), None, RATE, {})


def dataio_prepare(hparams):
    """The datasets of ``fedenhance.data.datasets``; training has no references.

    Arguments
    ---------
    hparams : dict
        As there. With ``references``, training has them after all; otherwise it has the
        recordings alone or, with ``cleanest``, the estimates of ``start_model``, see
        ``fedenhance.data.estimates``. ``work`` keeps both.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``: a DynamicItemDataset each.
    """
    sets = datasets.dataio_prepare(hparams)
    if hparams["references"]:
        return sets
    work = Path(hparams["work"])
    rows = recorded(datasets.client_rows(hparams), work / "recordings")
    if share := hparams["cleanest"]:
        model, folder = hparams["start_model"], work / "estimates"
        rows = estimate_parts(rows, model, folder, share)
    return {**sets, "train": datasets.training_set(rows, hparams["mixing"])}


def recorded(rows, folder):
    """Write down what clients record: speech and noise in one file.

    The levels of noises do not depend on the experiment's seed.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``speech`` and ``noise``, or ``noise`` alone.
    folder : Path
        Gets a file for each; what is there is not made again.

    Returns
    -------
    dict
        Id -> row, with ``noisy`` in the place of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for key, row in rows.items():
        if is_isolated_noise(row):
            found[key] = row
            continue
        parts, seconds = f"{row['speech']}|{row['noise']}", float(row["duration"])
        name = hashlib.sha256(parts.encode()).hexdigest()[:16]
        path = folder / f"{name}.wav"
        if not path.exists():
            draw = MixtureOfMixtures(RATE, seconds, snr_range=(-5, 10), loop_noise=True)
            wave = draw(key, row["speech"], row["noise"], None, []).sum(0).numpy()
            with whole_file(path) as partial:
                soundfile.write(partial, wave / max(1, abs(wave).max()), RATE)
        whole = Segment(str(path), 0, round(seconds * RATE))
        found[key] = {**row, "speech": None, "noise": None, "noisy": whole}
    return found


def found_by(folder):
    """Read what a run has left.

    Yields
    ------
    dict
        ``round``, ``part`` and improvements, of each validation and of the test.
    """
    rows = read_table(folder / "rounds.csv")
    rows = [row for row in rows if row.get("valid_si_sdri")]
    for row in rows:
        scores = {name: float(row[f"valid_{name}"]) for name in SCORES}
        yield {"round": row["round"], "part": "valid", **scores}
    best = max(rows, key=lambda row: float(row["valid_si_sdri"]))
    for row in by_part(read_table(folder / "test_metrics.csv")):
        yield {"round": best["round"], **row}


def by_part(rows):
    """Improvements on the test set, and on the recordings of the peers' table.

    Arguments
    ---------
    rows : list of dict
        Of utterances.

    Yields
    ------
    dict
    """
    ids = list(dict.fromkeys(row["id"].rpartition("-")[0] for row in rows))
    some = {ids[i * len(ids) // PEERS] for i in range(PEERS)}
    for part, names in (("test", {*ids}), ("peers", some)):
        chosen = [row for row in rows if row["id"].rpartition("-")[0] in names]
        yield {"part": part, **scores_of(chosen)}


def scores_of(rows):
    """Mean improvements of utterances with one noise and with two."""
    return {
        name: fmean(
            float(r["si_sdri"]) for r in rows if name.endswith(str(r["n_noises"]))
        )
        for name in SCORES
    }


def found_of_start(args, options):
    """Improvements of the start itself; see :func:`found_by`."""
    options = options | {"output_folder": str(args.work / START)}
    hparams = load_hparams(YAML, json.dumps(options))
    hparams["prepare"]()
    brain = build(hparams, RUN_OPTS)
    join(brain)
    start = hparams["start_model"].separator.state_dict()
    brain.modules["separator"].load_state_dict(start)
    sets = datasets.dataio_prepare(hparams)
    brain.test(sets["valid"], hparams["test_dataloader_opts"])
    yield {"round": 0, "part": "valid", **scores_of(brain.utterances)}
    brain.test(sets["test"], hparams["test_dataloader_opts"])
    for row in by_part(brain.utterances):
        yield {"round": 0, **row}


def table(rows):
    """Write the CSV's rows as a table: what is gained over the start, over seeds.

    ``decay`` is what validation has lost at the end since its best round, at most.

    Example
    -------
    >>> row = {"method": "start", "part": "test", "si_sdri_1": "7", "si_sdri_2": "8"}
    >>> better = {"method": "m", "si_sdri_2": "9", "gain": "0.5", "decay": "0"}
    >>> print(table([row, {**row, **better, "cpu_seconds": "120"}]))
    | training | seeds | one noise | two noises | gain | least | decay | minutes |
    |---|---|---|---|---|---|---|---|
    | start | 1 | 7.00 | 8.00 |  |  |  |  |
    | m | 1 | 7.00 | 9.00 | 0.50 | 0.50 | 0.00 | 2 |
    """
    lines, rows = [], [row for row in rows if row["part"] == "test"]
    for method, own in grouped(rows, itemgetter("method")).items():
        line = [method, len(own)]
        line += [markdown.spread([float(r[name]) for r in own]) for name in SCORES]
        if method == START:
            lines.append([*line, "", "", "", ""])
            continue
        gains, decays, seconds = (
            [float(row[name]) for row in own]
            for name in ("gain", "decay", "cpu_seconds")
        )
        line += [markdown.spread(gains), f"{min(gains):.2f}", f"{max(decays):.2f}"]
        lines.append([*line, f"{fmean(seconds) / 60:.0f}"])
    heads = ["training", "seeds", "one noise", "two noises", "gain", "least"]
    return markdown.table([*heads, "decay", "minutes"], lines)


def mean_of(row):
    """Mean of the improvements with one noise and with two."""
    return fmean(float(row[name]) for name in SCORES)


def compared(rows, starts):
    """Add to the rows of a run what it has gained, and what it has lost again.

    Arguments
    ---------
    rows, starts : list of dict
        Of the run, and of the start.

    Yields
    ------
    dict
        With ``mean`` of one noise and two, ``gain`` over the start's, and ``decay``: by
        how much the last validation is below the best.
    """
    before = {row["part"]: mean_of(row) for row in starts}
    valid = [mean_of(row) for row in rows if row["part"] == "valid"]
    decay = max(valid) - valid[-1]
    for row in rows:
        mean = mean_of(row)
        yield {**row, "mean": mean, "gain": mean - before[row["part"]], "decay": decay}


def fill(args, kept, method, seed):
    """Add one run to the CSV, unless it is there."""
    if not kept.lacks(method, seed, "test"):
        return
    options = {"data_folder": str(args.data_folder), "work": str(args.work / "clients")}
    options |= {"initial_model": str(args.work / "weights")}
    before = used()
    if method == START:
        starts = found = list(found_of_start(args, options))
    else:
        folder = args.work / method.replace(" ", "_").replace(",", "") / str(seed)
        run(folder, str(YAML), seed, options | METHODS[method])
        starts = [row for row in kept.rows if row["method"] == START]
        found = list(found_by(folder))
    own = {"method": method, "seed": seed, "cpu_seconds": used() - before}
    rows = ({**own, **row} for row in compared(found, starts))
    kept.add(*({**row, "machine": measuring.machine(args)} for row in rows))


def parse(argv):
    """The command line."""
    made = measuring.parser(__doc__, out=COMMITTED / "self_training.csv")
    made.add_argument(
        "--data_folder", type=Path, default=Path("data/PackagedRecordings")
    )
    made.add_argument("--checkpoint", type=Path, help="of GTCRN, its authors'")
    made.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    made.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    made.add_argument("--work", type=Path, default=Path("results/self_training"))
    made.add_argument("--table", action="store_true", help="print it, train nothing")
    args = measuring.parse(made, argv)
    args.work, args.data_folder = args.work.resolve(), args.data_folder.resolve()
    if not (args.table or args.checkpoint):
        made.error("--checkpoint is needed: the weights that training starts from")
    return args


def main(argv=None):
    """Train and score what is not in the CSV yet; print the table."""
    args = parse(argv)
    kept = Kept(args.out, KEYS)
    if not args.table:
        measuring.begin(args)
        write_start(args.checkpoint, args.work / "weights")
        fill(args, kept, START, 0)
        for seed, method in product(args.seeds, args.methods):
            fill(args, kept, method, seed)
    print(table(kept.rows))


if __name__ == "__main__":
    main()
