"""Build a small corpus of real recordings from packages of Debian or Ubuntu.

Twelve recorded speakers and some hundreds of recorded sounds come to lie in the layouts
of LibriSpeech and FSD50K. From the root of the repository::

    apt-get update && apt-get install -y ffmpeg
    python -m fedenhance.recipes.PackagedRecordings.build data/PackagedRecordings

With ``--more`` there are 23 further speakers and some hundreds of further sounds, all
of them to train on; ``--train_on`` chooses the packages whose recordings are. What is
validated and tested stays the same.
"""

import argparse
import functools
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fedenhance.data.tables import write_json, write_table
from fedenhance.recipes.audio_files import hash_order, whole_folder
from fedenhance.recipes.LibriFSD50K.corpora import (
    write_chapter,
    write_clip,
    write_ground_truth,
)
from fedenhance.recipes.PackagedRecordings import packages as debian
from fedenhance.recipes.PackagedRecordings import sounds, speech

VERSION = 2
MARKER = "PackagedRecordings.json"
FIRST_CLIP = 910001
KINDS = ("asterisk", *(kind.__name__ for kind in sounds.KINDS))
"""Kinds of recordings that are trained on by default."""
ALL_SPEAKERS = speech.SPEAKERS + speech.MORE_SPEAKERS


def build(
    data_folder,
    packages_folder=None,
    seed=0,
    max_minutes=None,
    jobs=2,
    more=False,
    train_on=None,
):
    """Fetch the packages and write the corpus, unless it is there.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where LibriSpeech/ and FSD50K/ come to lie.
    packages_folder : str or pathlib.Path, optional
        Where packages are unpacked; by default beside the data folder.
    seed : int
        Decides how prompts are joined and sounds are split.
    max_minutes : float, optional
        At most so much speech of each speaker.
    jobs : int
        Processes.
    more : bool
        Whether further packages are to be trained on (1.2 GB more to download).
    train_on : sequence of str, optional
        Kinds of recordings to train on, of ``KINDS`` and of the further packages;
        by default the former, with `more` all.

    Returns
    -------
    dict
        Counts, as in the marker file.

    Raises
    ------
    FileExistsError
        When the folder holds something else, such as a corpus of other options.
    RuntimeError
        When packages or ffmpeg cannot be had.
    ValueError
        When there would be no speech to train on, or no sounds.
    """
    target = Path(data_folder).resolve()
    wanted = {"version": VERSION, "seed": seed, "max_minutes": max_minutes}
    wanted |= {"more": True} if more else {}
    wanted |= {"train_on": sorted(set(train_on))} if train_on else {}
    if (target / MARKER).exists():
        marker = json.loads((target / MARKER).read_text())
        if marker["options"] == wanted:
            return marker["counts"]
        if told := differing(marker["options"], wanted):
            raise FileExistsError(f"{target}: {told}; name another folder.")
    elif target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty: name another folder.")
    kinds = set(train_on or (*KINDS, *(debian.MORE_PACKAGES if more else ())))
    check_kinds(kinds)
    speech.needed_ffmpeg()  # missing programs are told before the download
    packages = Path(packages_folder or target.with_name(target.name + ".packages"))
    speakers = [
        speaker
        for speaker in ALL_SPEAKERS
        if speaker.subset != speech.TRAIN or speaker.kind in kinds
    ]
    names = (debian.MORE_PACKAGES[k] for k in debian.MORE_PACKAGES if k in kinds)
    debian.fetch(packages.resolve(), debian.PACKAGES + tuple(chain(*names)))
    with whole_folder(target) as partial:
        counts = _write_speech(partial, packages, speakers, seed, max_minutes, jobs)
        counts |= _write_sounds(partial, packages, seed, kinds)
        write_json(partial / MARKER, {"options": wanted, "counts": counts})
    return counts


def differing(options, wanted):
    """Say in what a corpus differs from what is wanted, but for its version.

    Example
    -------
    >>> differing({"version": 1, "seed": 0}, {"version": 2, "seed": 0, "more": True})
    'more is None there, not True'
    """
    keys = sorted({*options, *wanted} - {"version"})
    pairs = {key: (options.get(key), wanted.get(key)) for key in keys}
    return "; ".join(
        f"{k} is {a} there, not {b}" for k, (a, b) in pairs.items() if a != b
    )


def check_kinds(kinds):
    """Raise ValueError if there would be nothing to train on."""
    speaking = {s.kind for s in ALL_SPEAKERS if s.subset == speech.TRAIN}
    sounding = {*sounds.MORE_KINDS, *(kind.__name__ for kind in sounds.KINDS)}
    if unknown := sorted(set(kinds) - speaking - sounding):
        known = ", ".join(sorted(speaking | sounding))
        raise ValueError(
            f"train_on: there is no {', '.join(unknown)}; there is {known}"
        )
    for what, those in (("speech", speaking), ("sounds", sounding)):
        if those.isdisjoint(kinds):
            some = ", ".join(sorted(those))
            raise ValueError(f"train_on: none of them holds {what}; add some of {some}")


def _write_speech(folder, packages, speakers, seed, max_minutes, jobs):
    """Write LibriSpeech/ and the provenance of every utterance."""
    tasks = [(folder, packages, speaker, seed, max_minutes) for speaker in speakers]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        results = pool.map(make_speaker, tasks)
        results = list(tqdm(results, "speakers", len(tasks), disable=None))
    lines, rows, dropped = [";ID   |SEX| SUBSET           |MINUTES| NAME\n"], [], []
    for speaker, (utterances, reasons) in zip(speakers, results, strict=True):
        minutes = sum(float(row["seconds"]) for row in utterances) / 60
        lines.append(
            f"{speaker.number:<6}| {speaker.sex[0]} | {speaker.subset:<17}| "
            f"{minutes:5.2f} | {speaker.name} [{speaker.licence}]\n"
        )
        rows += utterances
        dropped += [
            {"speaker": speaker.number, "reason": reason, "files": number}
            for reason, number in sorted(reasons.items())
        ]
    table = folder / "LibriSpeech" / "SPEAKERS.TXT"
    table.write_text("".join(lines), encoding="utf-8")
    columns = ["utterance", "subset", "speaker", "seconds", "licence", "sources"]
    write_table(folder / "PROVENANCE_speech.csv", rows, columns)
    columns = ["speaker", "reason", "files"]
    write_table(folder / "dropped_prompts.csv", dropped, columns)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    return {
        "speakers": len(tasks),
        "utterances": len(rows),
        "speech_hours": round(hours, 3),
    }


def make_speaker(task):
    """Write the chapters of one speaker; rows of provenance, reasons for drops."""
    folder, packages, speaker, seed, max_minutes = task
    groups, dropped = speech.collect(speaker, packages)
    rows, left = [], np.inf if max_minutes is None else max_minutes * 60
    for number, prompts in enumerate(speech.chapters(groups)):
        chapter = 10 * speaker.number + number
        chosen = []
        for parts in speech.utterances(prompts, seed, chapter):
            wave = speech.joined(parts)
            seconds = wave.size / speech.SAMPLE_RATE
            if seconds > left:
                break
            left -= seconds
            chosen.append((parts, wave))
        spoken = (
            (wave, " ".join(part.text or speech.UNKNOWN for part in parts))
            for parts, wave in chosen
        )
        written = write_chapter(folder, speaker.subset, speaker.number, chapter, spoken)
        rows += [
            {
                "utterance": name,
                "subset": speaker.subset,
                "speaker": speaker.number,
                "seconds": f"{seconds:.2f}",
                "licence": speaker.licence,
                "sources": ";".join(part.source for part in parts),
            }
            for (name, seconds), (parts, _) in zip(written.items(), chosen, strict=True)
        ]
    return rows, dropped


def _write_sounds(folder, packages, seed, kinds=KINDS):
    """Write FSD50K/ and the provenance of every clip; train on some kinds."""
    clips, left_out = sounds.collect(packages)
    splits = sounds.assign_splits(clips, seed)
    by_name = {f"{c.source.kind}:{c.source.name}#{c.number}": c for c in clips}
    order = hash_order(by_name, seed)
    if not set(kinds).isdisjoint(sounds.MORE_KINDS):
        # Not what else happens to lie there: it would take numbers, and duplicates.
        chosen = functools.partial(sounds.more, kinds=kinds)
        further, others = sounds.collect(packages, [chosen])
        splits |= {clip.group: "train" for clip in further}
        names = {f"{c.source.kind}:{c.source.name}#{c.number}": c for c in further}
        order += hash_order(names, seed)
        clips, left_out, by_name = clips + further, left_out + others, by_name | names
    tested = [c for c in clips if splits[c.group] == "eval"]
    rows, written, kept = [], [], []
    for number, key in enumerate(tqdm(order, "sounds", disable=None), FIRST_CLIP):
        clip = by_name[key]
        split = splits[clip.group]
        if split == "train" and clip.source.kind not in kinds:
            continue
        if split != "eval" and any(sounds.are_same(clip, other) for other in tested):
            left_out.append((clip.source.kind, clip.source.name, "tested"))
            continue
        kept.append(clip)
        write_clip(folder, "eval" if split == "eval" else "dev", number, clip.wave)
        written.append((number, clip.labels, split))
        rows.append(
            {
                "clip": number,
                "split": split,
                "seconds": f"{clip.wave.size / sounds.SAMPLE_RATE:.2f}",
                "licence": clip.source.licence,
                "source": key,
            }
        )
    write_ground_truth(folder, written)
    write_table(folder / "PROVENANCE_noise.csv", rows)
    names = ["kind", "name", "reason"]
    left_out = [dict(zip(names, entry, strict=True)) for entry in left_out]
    write_table(folder / "left_out_sounds.csv", left_out, names)
    minutes = sum(clip.wave.size for clip in kept) / sounds.SAMPLE_RATE / 60
    return {"clips": len(kept), "noise_minutes": round(minutes, 2)}


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder")
    parser.add_argument("--packages_folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_minutes", type=float)
    parser.add_argument("--more", action="store_true", help="further data to train on")
    parser.add_argument(
        "--train_on",
        nargs="+",
        metavar="KIND",
        choices=sorted({*KINDS, *debian.MORE_PACKAGES}),
        help="recordings to train on, of: %(choices)s",
    )
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    try:
        counts = build(**vars(parser.parse_args(argv)))
    except (FileExistsError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    tqdm.write(json.dumps(counts))


if __name__ == "__main__":
    main()
