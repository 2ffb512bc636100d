"""Is an adapted model better than its start? Judged without references, in a line."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from fedenhance.data.tables import read_json, write_json, write_table
from fedenhance.reports.scores import bootstrap_interval
from fedenhance.run_folder.checkpoints import Checkpoints
from fedenhance.training.adaptation import Remixes, judge, summary

logger = get_logger(__name__)

VERDICT = "verdict.json"
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the adapted weights; the rest is the start's. They are tried in validation."""
ENOUGH = 0.8
"""Of the best share's score: the smallest that reaches it is taken, as it has forgotten
the least of what the start knew of other voices and noises."""


def keep_if_better(brain, datasets, hparams):
    """Keep the adapted model if it is better than its start; named under ``results``.

    In validation it is averaged with the start in several shares (Wortsman et al.,
    "Robust fine-tuning of zero-shot models", CVPR 2022); the smallest share is taken
    that is nearly as good as the best.
    That is judged on the test recordings. It is better when it separates remixes better
    and its overall opinion score has not lost more than ``ovrl_tolerance``. Otherwise
    the start takes its place in the folder, and ``adapted.ckpt`` keeps its weights.
    What was judged is not judged again.

    Arguments
    ---------
    brain : fedenhance.training.adaptation.Adaptation
        With the best model by validation.
    datasets : dict
        With ``valid`` and ``test``.
    hparams : dict
        With ``output_folder``, ``start_model``, ``judge``, ``ovrl_tolerance`` and
        ``sample_rate``. Writes ``judged.csv`` and ``verdict.json`` to the folder.
    """
    checkpointer = checkpoints_of(brain, Path(hparams["output_folder"]))
    if "judged" in best_of(checkpointer).meta:
        return  # the same command again: nothing better was found since
    options = SimpleNamespace(**{k: hparams[k] for k in ("judge", "sample_rate")})
    tolerance, start = hparams["ovrl_tolerance"], hparams["start_model"]
    separator = brain.modules.separator
    adapted = {n: w.clone() for n, w in separator.state_dict().items()}
    original = start.separator.state_dict()
    heard = hear(brain, start, datasets["valid"])
    remixes = Remixes(heard, start)
    scores = {}
    for share in SHARES:
        separator.load_state_dict(average(original, adapted, share))
        heard = {
            key: (r, s, brain.separate(r[None])[0].cpu())
            for key, (r, s, _) in heard.items()
        }
        judged = judge(heard, remixes, brain.separate, options)
        scores[share] = summary(judged, tolerance)["score"]
    share = choose_share(scores)
    separator.load_state_dict(average(original, adapted, share))
    heard = hear(brain, start, datasets["test"])
    remixes = Remixes(heard, start)
    judged = judge(heard, remixes, brain.separate, options, before=True)
    verdict = describe(judged, tolerance, share)
    folder = Path(hparams["output_folder"])
    if not verdict["kept"]:
        torch.save(adapted, folder / "adapted.ckpt")
        separator.load_state_dict(original)
    write_table(folder / "judged.csv", rows_of(heard, judged))
    write_json(folder / VERDICT, verdict)
    replace_best(checkpointer)


@torch.no_grad()
def hear(brain, start, dataset):
    """Recordings, estimates of the start and of the model, by id; undamaged ones."""
    heard = {}
    for item in dataset:
        if item["sources"] is not None:
            recording = item["sources"].sum(0)
            starts = start(recording.unsqueeze(0))[0].cpu()
            own = brain.separate(recording.unsqueeze(0))[0].cpu()
            heard[item["id"]] = recording, starts, own
    return heard


def choose_share(scores):
    """Choose the smallest share of the adapted weights that is nearly the best.

    Arguments
    ---------
    scores : dict
        Share -> score in validation.

    Example
    -------
    >>> choose_share({1.0: 0.5, 0.75: 0.45, 0.5: 0.3}), choose_share({1.0: -1, 0.5: -2})
    (0.75, 1.0)
    """
    best = max(scores.values())
    return min(s for s, score in scores.items() if score >= min(best, ENOUGH * best))


def average(start, adapted, share):
    """Average two state dicts; what is no real number is the adapted model's.

    Example
    -------
    >>> average({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, share=0.25)
    {'w': tensor([1.])}
    """
    return {
        name: torch.lerp(start[name].to(weight), weight, share)
        if weight.is_floating_point()
        else weight
        for name, weight in adapted.items()
    }


def checkpoints_of(brain, folder):
    """Where the best model is; the Brain of a federation has no checkpointer."""
    modules = {n: m for n, m in brain.modules.items() if m.state_dict()}
    return brain.checkpointer or Checkpoints(folder / "save", modules)


def best_of(checkpointer):
    """Find the best checkpoint, of a federation or of central training."""
    best = checkpointer.find_checkpoint(max_key="round")
    return best or checkpointer.find_best()


def replace_best(checkpointer):
    """Let the present weights be those of the best checkpoint, once they are judged."""
    best = best_of(checkpointer)
    later = best.meta["unixtime"] + 1e-3  # of two that are as good, the newer is found
    checkpointer.save_checkpoint(meta=best.meta | {"judged": True, "unixtime": later})
    shutil.rmtree(best.path)


def describe(judged, tolerance, share):
    """Say what was gained or lost.

    Arguments
    ---------
    judged : fedenhance.training.adaptation.Judged
        Of the test recordings.
    tolerance : float
    share : float
        Of the adapted weights in the model.

    Returns
    -------
    dict
        ``kept``; ``sentence``; ``share``; ``gain`` and its interval in dB; mean opinion
        scores ``before``, ``start`` and ``after``; ``recordings``.
    """
    stats = summary(judged, tolerance)
    low, high = bootstrap_interval(judged.gains)
    count = len(judged.after) or len(judged.gains)
    kept = stats["score"] > 0 and low > 0  # never, where there is no interval
    means = {
        name: {
            k: float(np.nanmean([row[k] for row in rows]))
            for k in ("sig", "bak", "ovrl")
        }
        for name, rows in judged._asdict().items()
        if name != "gains" and rows
    }
    gain = stats["gain"]
    way = "better" if gain > 0 else "worse"
    told = (
        f"separates remixes {abs(gain):.2f} dB {way} than its start (gain {low:+.2f} "
        f"to {high:+.2f}, with 95 % confidence)"
    )
    if len(judged.gains) < 2:
        told = "cannot be told from its start, for there are too few"
    if means:
        before, after = means["before"]["ovrl"], means["after"]["ovrl"]
        told += f", and sounds {stats['ovrl_gain']:+.2f} (DNSMOS overall: recordings "
        told += (
            f"{before:.2f}, start {means['start']['ovrl']:.2f}, adapted {after:.2f})"
        )
    advice = "use it" if kept else "the start is kept in its place"
    some = f"{count} recording{'s' * (count != 1)}"
    told = f"On {some} held out the adapted model {told}; {advice}."
    return {
        "sentence": told,
        "kept": kept,
        "share": share,
        "gain": gain,
        "interval": [low, high],
        "recordings": count,
        **means,
    }


def rows_of(heard, judged):
    """One row a recording: opinion scores before, by the start, and after."""
    rows = []
    for number, key in enumerate(heard):
        row = {"id": key}
        for name in ("before", "start", "after"):
            for score, value in (getattr(judged, name) or [{}] * len(heard))[
                number
            ].items():
                row[f"{score}_{name}"] = round(value, 4)
        rows.append(row)
    return rows


def announce(brain, datasets, hparams):
    """Say the verdict and where to look; the last lines of an adaptation."""
    folder = Path(hparams["output_folder"])
    verdict = read_verdict(folder)
    logger.info("%s", verdict["sentence"])
    logger.info(
        "Open %s/report.html, or: python enhance.py %s RECORDINGS --out clean/",
        folder,
        folder,
    )


def read_verdict(folder):
    """The verdict in a folder; empty if there is none."""
    path = Path(folder) / VERDICT
    return read_json(path) if path.exists() else {}
