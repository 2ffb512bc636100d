"""Manifests of a folder of recordings, without references.

``fedenhance manifests`` is its command; ``hparams/adapt.yaml`` names :func:`prepare`.
"""

import hashlib
import math
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path, PurePosixPath

import numpy as np
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fedenhance.data.audio import PACKED_RATE
from fedenhance.data.estimates import check_share
from fedenhance.data.folders import Skipped, count_reasons, find_files
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import grouped, whole_file
from fedenhance.recipes import preparation
from fedenhance.recipes.audio_files import hash_order, read_mono
from fedenhance.recipes.BareFolder.account import account_of, count, in_words, propose
from fedenhance.recipes.BareFolder.pauses import find_pauses, of_training

VERSION = 3
COLUMNS = ["ID", "duration", "spk_id", "client", "source"]
COLUMNS += [
    f"{name}{end}" for name in ("noisy", "noise") for end in ("", "_start", "_stop")
]
MIN_ROWS = 6
"""Rows that training needs: two to remix, in each of the splits one."""
CLIENT_ROWS = 8
"""Training rows of a client of its own; who has fewer shares one with others."""
SHARE = 0.15
"""Of people or files, that validates, and as many again that test."""
logger = get_logger(__name__)


def prepare(
    data_folder,
    save_folder="manifests",
    noises: str = None,
    person: str = None,
    pauses=False,
    row_seconds: float = None,
    held_out="files",
    cleanest=1.0,
    min_seconds=1.0,
    seed=1234,
    jobs: int = None,
):
    """Write ``train.csv``, ``valid.csv``, ``test.csv`` and an account.

    ``noises.csv`` is written where there is isolated noise.

    Nothing is done when the same files were prepared with the same options.

    Arguments
    ---------
    data_folder : str
        The recordings, in any tree.
    save_folder : str
        Where the manifests go, and the decoded audio.
    noises : str, optional
        Folder of recordings without speech, for all clients.
    person : str, optional
        Regular expression that is searched in each file's path; its first group, or all
        that it finds, says who speaks. Default: the first sub-folder in which the files
        differ; without sub-folders all are one person's.
    pauses : bool
        Take the pauses between words as noise, found by Silero's voice detector
        (``pip install silero-vad``); rows without any speech become noise as well.
    row_seconds : float, optional
        Length of rows, at most. Default: 10 s, or less, as there is little audio.
    held_out : str
        ``"files"``: some of each person's validate and test, for a model that is to
        serve these people. ``"people"``: all of some people's, for one that is to serve
        others.
    cleanest : float
        Share of the rows whose speech is trained on; what is proposed goes by it.
    min_seconds : float
        Shorter recordings are left out.
    seed : int
        Decides who is held out.
    jobs : int, optional
        Threads; as many as cores by default.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps: options, counts, and the ``proposal``:
        ``clients``, ``rounds``, ``local_epochs`` and ``segment``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no recording in it.
    ImportError
        If pauses are asked for and there is no detector.
    ValueError
        If there is too little to train on, in one line, or too few people.
    """
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    options = {"person": person, "pauses": pauses, "seed": seed}
    options |= {"row_seconds": row_seconds, "min_seconds": min_seconds}
    options |= {"held_out": held_out, "cleanest": check_share(cleanest)}
    files, skipped = list_recordings(data_folder)
    people, unnamed = who_speaks(files, person)
    sounds, left_out = list_recordings(Path(noises)) if noises else ({}, [])
    fingerprint = preparation.fingerprint_of(VERSION, options, files, sounds)
    record = preparation.finished(save_folder, fingerprint)
    if record:
        return record
    skipped += unnamed
    folder = save_folder / "audio"
    audio, broken = decode(data_folder, people, files, folder, min_seconds, jobs)
    noise_audio, broken_noises = decode(noises, sounds, sounds, folder, 0.0, jobs)
    skipped += [*broken, *left_out, *broken_noises]
    speech, quiet = find_pauses(audio, folder) if pauses else (audio, {})
    rows = cut_rows(speech, people, row_seconds, folder)
    if len(rows) < MIN_ROWS:
        told = f"; {count_reasons(skipped)}" if skipped else ""
        held = in_words(rows) if rows else "no recording that can be used"
        raise ValueError(
            f"{data_folder} holds {held}: too little to train on; it takes {MIN_ROWS} "
            f"rows of {min_seconds:g} s or more{told}"
        )
    tables, held_out = split(rows, seed, held_out)
    merge_small_clients(tables)
    noise = noise_rows(noise_audio, quiet, people, tables, folder)
    proposal = propose(tables["train"], cleanest)
    account = account_of(tables, noise, skipped, held_out, proposal, bool(person))
    (save_folder / "noises.csv").unlink(missing_ok=True)  # of an earlier preparation
    if noise:
        tables["noises"] = noise
    record = preparation.write_manifests(
        save_folder,
        tables,
        COLUMNS,
        skipped,
        count,
        options=options,
        fingerprint=fingerprint,
        proposal=proposal,
        account=account,
    )
    with whole_file(save_folder / "account.txt") as partial:
        partial.write_text("\n".join([*account, ""]), encoding="utf-8")
    return record


def list_recordings(folder):
    """List what is in a folder, see :func:`fedenhance.data.folders.find_files`.

    Raises
    ------
    FileNotFoundError
        If it is no folder, or holds no recordings.
    """
    if not Path(folder).is_dir():
        told = ": it is a file; name the folder" if Path(folder).exists() else ""
        raise FileNotFoundError(f"there is no folder {folder}{told}")
    files, skipped = find_files(folder)
    if not files:
        told = f": {count_reasons(skipped)}" if skipped else ""
        raise FileNotFoundError(f"there are no recordings in {folder}{told}")
    return files, skipped


def who_speaks(paths, pattern=None):
    """Tell from their paths whose recordings they are.

    Arguments
    ---------
    paths : iterable of str
        Relative, with "/".
    pattern : str, optional
        See :func:`prepare`.

    Returns
    -------
    people : dict
        Path -> name.
    unnamed : list of Skipped
        Those in which the pattern finds nobody.

    Raises
    ------
    ValueError
        If the pattern is none, or finds nobody anywhere.

    Example
    -------
    >>> who_speaks(["home/ann/1.wav", "home/ann/2/3.wav", "home/bob/1.wav"])[0]
    {'home/ann/1.wav': 'ann', 'home/ann/2/3.wav': 'ann', 'home/bob/1.wav': 'bob'}
    >>> who_speaks(["ann-1.wav", "bob-1.wav"], "^[a-z]+")[0]
    {'ann-1.wav': 'ann', 'bob-1.wav': 'bob'}
    """
    paths = list(paths)
    if pattern is None:
        folders = [PurePosixPath(path).parts[:-1] for path in paths]
        depth = 0
        while (
            all(len(f) > depth for f in folders)
            and len({f[depth] for f in folders}) == 1
        ):
            depth += 1
        names = ["/".join(folder[depth : depth + 1]) or "unknown" for folder in folders]
        return dict(zip(paths, names, strict=True)), []
    try:
        found = {path: re.search(pattern, path) for path in paths}
    except re.error as error:
        raise ValueError(
            f"person: {pattern!r} is no regular expression: {error}"
        ) from error
    people = {p: (m[1] if m.re.groups else m[0]) for p, m in found.items() if m}
    people = {path: name for path, name in people.items() if name}
    if not people:
        raise ValueError(
            f"person: {pattern!r} finds nobody in {paths[0]}, or elsewhere"
        )
    reason = f"nobody is named: {pattern} is not in its path"
    return people, [Skipped(path, reason) for path in paths if path not in people]


def decode(root, paths, status, folder, min_seconds, jobs=None):
    """Decode recordings to int16 arrays of 16 kHz, one file each.

    What was decoded before, from the same file, is taken as it is. A recording is
    brought to a peak of 0.9 where it is very soft, or beyond full scale.

    Arguments
    ---------
    root : str or Path
    paths : iterable of str
        Relative to it.
    status : dict
        Path -> (bytes, modification time), of :func:`list_recordings`.
    folder : Path
        Where they go.
    min_seconds : float
        Shorter ones are left out.
    jobs : int, optional

    Returns
    -------
    audio : dict
        Path -> array on disk, whose ``filename`` says where.
    skipped : list of Skipped
        What is damaged, too short, silent, or the same audio as another one.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(path):
        key = hashlib.sha256(f"{root}|{path}|{status[path]}".encode()).hexdigest()[:16]
        target = folder / f"{key}.npy"
        try:
            if not target.exists():
                with whole_file(target) as partial:
                    np.save(
                        partial, to_int16(read_mono(Path(root) / path, PACKED_RATE))
                    )
            wave = np.load(target, mmap_mode="r")
        except DamagedAudioError as error:
            return path, None, error.reason
        if len(wave) < max(1, min_seconds * PACKED_RATE):
            return path, None, f"shorter than {min_seconds:g} s"
        if int(wave.max()) - int(wave.min()) < 2:  # of int16 it may be more than fits
            return path, None, "silent"
        return path, wave, hashlib.sha256(wave.tobytes()).hexdigest()

    audio, skipped, known = {}, [], {}
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(one, paths)
        for path, wave, told in tqdm(
            found, "decoding", len(paths), unit="file", leave=False, disable=None
        ):
            if wave is None:
                skipped.append(Skipped(path, told))
            elif known.setdefault(told, path) != path:
                skipped.append(Skipped(path, f"the same audio: as {known[told]}"))
            else:
                audio[path] = wave
    return audio, skipped


def to_int16(wave):
    """Quantise a waveform, at a level at which nothing is lost.

    Example
    -------
    >>> to_int16(np.array([0.5, -2.0])).tolist()
    [7373, -29491]
    """
    peak = np.abs(wave).max(initial=0.0)
    gain = 0.9 / peak if peak > 1 or 0 < peak < 0.1 else 1.0
    return np.clip(np.rint(wave * gain * 32768), -32768, 32767).astype(np.int16)


def cut_rows(audio, people, row_seconds, folder):
    """Cut recordings into rows of equal length.

    Arguments
    ---------
    audio : dict
        Path -> waveform on disk.
    people : dict
        Path -> name.
    row_seconds : float or None
        At most; by default 10 s, or less where that gives too few rows.
    folder : Path
        Of the arrays.

    Returns
    -------
    list of dict
    """
    total = sum(map(len, audio.values())) / PACKED_RATE
    longest = row_seconds or min(10.0, max(2.0, total / (2 * MIN_ROWS)))
    rows = []
    for path, wave in audio.items():
        name = re.sub(r"[^\w.-]+", "-", path)
        parts = math.ceil(len(wave) / (longest * PACKED_RATE))
        ends = [len(wave) * k // parts for k in range(parts + 1)]
        for number, (start, stop) in enumerate(zip(ends, ends[1:], strict=False)):
            rows.append(
                {
                    "ID": f"{name}_{number}",
                    "duration": (stop - start) / PACKED_RATE,
                    "spk_id": people[path],
                    "client": people[path],
                    "source": path,
                    "noisy": array_path(wave, folder),
                    "noisy_start": start,
                    "noisy_stop": stop,
                }
            )
    return distinct(rows)


def array_path(wave, folder):
    """Where an array lies, absolutely, so that a manifest may be read from anywhere."""
    return (folder / Path(wave.filename).name).resolve().as_posix()


def distinct(rows):
    """Number rows whose paths differ in nothing that an id shows."""
    seen = {}
    for row in rows:
        count = seen[row["ID"]] = seen.get(row["ID"], 0) + 1
        if count > 1:
            row["ID"] += f".{count}"
    return rows


def split(rows, seed, held_out="files"):
    """Deal rows to training, validation and test.

    Arguments
    ---------
    rows : list of dict
    seed : int
    held_out : str
        See :func:`prepare`. Of few files, or where next to nothing would be left, as
        the one long file is held out, some rows are.

    Returns
    -------
    tables : dict
        ``train``, ``valid`` and ``test``.
    held_out : str
        What is held out: "people", "files" or "rows".

    Raises
    ------
    ValueError
        If there are no three people, or ``held_out`` is neither.
    """
    columns = {"people": "spk_id", "files": "source", "rows": "ID"}
    if held_out not in ("people", "files"):
        raise ValueError(f"held_out is files or people, not {held_out}")
    for kind in (held_out, "rows"):
        members = grouped(rows, itemgetter(columns[kind]))
        if kind == "people" and len(members) < 3:
            raise ValueError(f"held_out: people takes three people, not {len(members)}")
        order = hash_order(members, seed, "split")
        if kind != "people":  # as many of each person as can be
            order = _in_turns(order, members)
        # Two at least: what is remixed with itself says nothing.
        size = max(1 if kind == "people" else 2, round(SHARE * len(order)))
        parts = {"valid": order[:size], "test": order[size : 2 * size]}
        parts["train"] = order[2 * size :]
        chosen = {name: part for part, names in parts.items() for name in names}
        tables = {part: [] for part in ("train", "valid", "test")}
        for name, own in members.items():
            tables[chosen[name]] += own
        few = len(members) < MIN_ROWS or len(tables["train"]) < len(rows) / 4
        if kind != "files" or not few:
            return tables, kind


def _in_turns(order, members):
    """Members of all people by turns, in the given order; at the end each one's last.

    So who has a single one has it to train on.
    """
    people = grouped(order, lambda name: members[name][0]["spk_id"])
    ranks = {
        name: (rank == len(own) - 1, rank)
        for own in people.values()
        for rank, name in enumerate(own)
    }
    return sorted(order, key=ranks.get)


def merge_small_clients(tables):
    """Let people with few training rows share one client."""
    sizes = Counter(row["client"] for row in tables["train"])
    small = {who for who, size in sizes.items() if size < CLIENT_ROWS}
    if 0 < sum(sizes[who] for who in small) < CLIENT_ROWS and len(sizes) > len(small):
        # Those are still too few: the smallest of the others takes them in.
        small |= {min(set(sizes) - small, key=lambda who: (sizes[who], who))}
    for row in (row for own in tables.values() for row in own):
        if len(small) > 1 and row["client"] in small:
            row["client"] = "others"


def noise_rows(sounds, quiet, people, tables, folder):
    """Rows of noise alone: those of everybody, and those of a client's pauses."""
    clients = {row["spk_id"]: row["client"] for row in tables["train"]}
    quiet = of_training(quiet, people, tables)
    found = [(path, wave, "everybody", "") for path, wave in sounds.items()]
    found += [(p, w, people[p], clients.get(people[p], "")) for p, w in quiet.items()]
    rows = []
    for path, wave, who, client in found:
        name = re.sub(r"[^\w.-]+", "-", path)
        rows.append(
            {
                "ID": f"noise-{name}",
                "duration": len(wave) / PACKED_RATE,
                "spk_id": who,
                "client": client,
                "source": path,
                "noise": array_path(wave, folder),
            }
        )
    return distinct(rows)
