"""Manifests: what each recording is, whose it is, and what it serves for.

A manifest row is a recording: speech with its noise (the simulated corpora), ``noisy``
alone (real clients), or ``noise`` alone. What a recording serves for is decided here,
at load time, so that sweeping ``p_supervised``, ``available_speech_percentage`` or the
number of clients needs no new preparation.
"""

import math
import random
from itertools import accumulate
from pathlib import Path

from fedenhance.data.audio import Segment, seconds_of
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import grouped, numbered_rows, write_table

SIGNALS = ("speech", "noise", "noisy", "extra")
"""Columns that name audio; each may have ``_start`` and ``_stop`` beside it."""

AUDIO = ("noisy", "speech", "noise", "wav")
"""Columns of audio, of which the first that is filled says how long a row is."""


_WHOLE = (0, lambda value: value >= 0 and value.is_integer(), "a whole number")

NUMBERS = {
    "duration": (None, lambda value: 0 <= value <= 86400, "seconds, at most a day"),
    **{f"{name}_{end}": _WHOLE for name in SIGNALS for end in ("start", "stop")},
    **{f"{name}_gain": (1.0, math.isfinite, "a number") for name in SIGNALS},
}
"""Columns of numbers: what an empty cell means, what can be, in words as well."""


def example_generator(*key):
    """A random generator that depends on nothing but ``key``.

    Rebuilt clients, other processes and resumed runs draw the same examples, whatever
    the state of the global generators.

    Arguments
    ---------
    *key : str or int
        What the draw depends on, e.g. seed, epoch and recording id.

    Returns
    -------
    random.Random

    Example
    -------
    >>> example_generator(1, 2, "a").random() == example_generator(1, 2, "a").random()
    True
    >>> example_generator(1, 2, "a").random() == example_generator(1, 3, "a").random()
    False
    """
    return random.Random("|".join(map(str, key)))


def load_manifest(path, data_root):
    """Load a manifest; turn its file columns into :class:`Segment`.

    Arguments
    ---------
    path : str or Path
        CSV with ``ID`` and any of the columns ``speech``, ``noise``, ``noisy`` and
        ``extra``, each with ``_start`` and ``_stop`` beside it where it is a part of a
        file.
    data_root : str or Path
        Replaces ``$data_root``.

    Returns
    -------
    dict
        Id -> row; absent signals are ``None``.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_rows`; or if a row names no recording.
    """
    rows = load_rows(path, data_root)
    for key, row in rows.items():
        for name in SIGNALS:
            file = row.get(name)
            start, stop = (row.pop(f"{name}_{end}", 0) for end in ("start", "stop"))
            row[name] = Segment(file, start, stop) if file else None
        if not (row["noisy"] or row["noise"]):
            raise ValueError(
                f"{path}: {key} has neither a noisy recording nor a noise; "
                "fill one of the columns noisy, noise"
            )
    return rows


def load_rows(path, data_root):
    """Load the rows of a CSV with their audio.

    Arguments
    ---------
    path : str or Path
        With the column ``ID`` and any others, see
        :func:`fedenhance.data.tables.read_table`. Backslashes in paths count as
        slashes; ``duration``, in seconds, is read from the audio where it is absent.
    data_root : str or Path
        Replaces ``$data_root``.

    Returns
    -------
    dict
        Id -> row; ``spk_id`` is ``"unknown"`` where there is none, and
        ``duration`` 0 where the audio cannot be read.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, lacks ids, or has no rows; or if a cell is not what it
        must be: the message names file, line and column.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no manifest {path}: the key prepare makes those of a corpus; of "
            "your own, manifest_folder (or train_csv, ...) says where they are"
        )
    rows, lines = {}, {}
    for line, row in numbered_rows(path, ["ID"]):
        try:
            key = _checked_row(row, lines, str(data_root))
        except ValueError as error:
            raise ValueError(f"{path}, line {line}, {error}") from None
        lines[key] = line
        rows[key] = {"spk_id": "", **row}
        rows[key]["spk_id"] = rows[key]["spk_id"] or "unknown"
    if not rows:
        raise ValueError(f"{path} lists no recordings")
    return rows


def check_files(rows, path, columns):
    """See that not all recordings of a manifest are missing.

    Single ones that are missing are left out, and named, by who reads them.

    Arguments
    ---------
    rows : dict
        Of :func:`load_manifest` or :func:`load_rows`.
    path : str or Path
        Of the manifest, for the message.
    columns : iterable of str
        That name audio.

    Raises
    ------
    FileNotFoundError
        If no file of a column exists, naming three.
    """
    for column in columns:
        cells = (row.get(column) for row in rows.values())
        files = dict.fromkeys(str(getattr(c, "path", c)) for c in cells if c)
        if files and not any(Path(file).exists() for file in files):
            some = ", ".join([*files][:3])
            raise FileNotFoundError(
                f"{path}: no file of column {column} exists, such as {some}; "
                "data_folder is what $data_root stands for"
            )


def _checked_row(row, lines, data_root):
    """Turn the cells of a row into what they stand for, in place; return its id."""
    if None in row:
        raise ValueError(f"has more cells than there are columns: {row[None]}")
    key = row.pop("ID")
    if not key or key in lines:
        told = f"{key} is that of line {lines[key]}" if key else "is empty"
        raise ValueError(f"column ID: {told}")
    for name, cell in row.items():
        if name in (*SIGNALS, "wav"):
            cell = cell.replace("\\", "/")
        row[name] = cell.replace("$data_root", data_root)
        if name in NUMBERS:
            row[name] = _number(row[name], name)
    row["duration"] = row.get("duration") or _seconds(row)
    return key


def _number(cell, column):
    """The number in a cell; commas may be decimal, as spreadsheets write them."""
    absent, allowed, words = NUMBERS[column]
    if not cell:
        return absent
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise ValueError(f"column {column}: {cell!r} is not {words}")
    return int(value) if NUMBERS[column] is _WHOLE else value


def _seconds(row):
    """Length of a row's audio; 0 if it cannot be read, as its reader will say."""
    for name in AUDIO:
        if row.get(name):
            part = (row.get(f"{name}_{end}", 0) for end in ("start", "stop"))
            try:
                return seconds_of(row[name], *part)
            except DamagedAudioError:
                break
    return 0.0


def save_manifest(path, rows, data_root=None):
    """Write rows as :func:`load_manifest` reads them.

    Arguments
    ---------
    path : str or Path
    rows : dict
        Id -> row, as :func:`load_manifest` returns them.
    data_root : str or Path or None
        Files below it are written with ``$data_root``, so that another machine finds
        them below its own.
    """
    flat = []
    for key, row in rows.items():
        line = {"ID": key}
        for name, value in row.items():
            if isinstance(value, Segment):
                line[name] = _portable(value.path, data_root)
                line[f"{name}_start"], line[f"{name}_stop"] = value.start, value.stop
            elif value is not None:
                line[name] = value
        flat.append(line)
    write_table(path, flat)


def _portable(path, data_root):
    if data_root is None or not Path(path).is_relative_to(data_root):
        return path
    return f"$data_root/{Path(path).relative_to(data_root).as_posix()}"


def take_isolated_noises(rows, available_speech_percentage):
    """Let the last recordings of each speaker give their noise alone.

    In the simulated corpora every row has speech and noise. The first recordings of a
    speaker stay noisy speech; of the others only the noise is used.

    Arguments
    ---------
    rows : dict
        Id -> row, changed in place.
    available_speech_percentage : float
        Fraction of a speaker's recordings that hold speech, in (0, 1].

    Returns
    -------
    dict
        The same rows.

    Example
    -------
    >>> row = {"spk_id": "a", "speech": 1, "noise": 1, "noisy": None}
    >>> rows = {"u": row, "v": dict(row)}
    >>> [row["speech"] for row in take_isolated_noises(rows, 0.5).values()]
    [1, None]
    """
    if not 0 < available_speech_percentage <= 1:
        raise ValueError(
            "available_speech_percentage must lie in (0, 1], not "
            f"{available_speech_percentage}"
        )
    for group in group_by(rows, "spk_id").values():
        simulated = [key for key in group if rows[key]["speech"]]
        kept = int(available_speech_percentage * len(simulated))
        for key in simulated[kept:]:
            rows[key]["speech"] = None
    return rows


def is_isolated_noise(row):
    """Whether a recording holds no speech, so that it can be added to one that does.

    Example
    -------
    >>> is_isolated_noise({"speech": None, "noisy": None, "noise": "rain.wav"})
    True
    """
    return not (row["speech"] or row["noisy"])


def group_by(rows, column):
    """Ids by the value of a column, in order of first appearance.

    Example
    -------
    >>> group_by({"u": {"spk_id": "a"}, "v": {"spk_id": "b"}}, "spk_id")
    {'a': ['u'], 'b': ['v']}
    """
    return grouped(rows, lambda key: rows[key][column])


def assign_clients(rows, partition=None):
    """Write the client of each recording into the column ``client``.

    Arguments
    ---------
    rows : dict
        Id -> row, changed in place.
    partition : callable or None
        ``partition(rows) -> {client: [ids]}``, see ``fed/partition.py``. ``None``: one
        client holds everything, as in centralised training.

    Returns
    -------
    dict
        The rows that somebody holds.
    """
    clients = {"all": list(rows)} if partition is None else partition(rows)
    for client, keys in clients.items():
        for key in keys:
            rows[key]["client"] = client
    return {key: row for key, row in rows.items() if "client" in row}


def hold_out(rows, share):
    """Part from each client's recordings, and from its isolated noises, the last.

    Of each speaker's: neighbours in a manifest are of one utterance, so that the last
    are others than the first, all but those on the border.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``client`` and ``spk_id``.
    share : float
        Held out, in (0, 1); at least one of each, and one stays.

    Returns
    -------
    kept, held_out : dict
        Id -> row.

    Raises
    ------
    ValueError
        Naming a client that holds too little.

    Example
    -------
    >>> noise = {"client": "a", "spk_id": "x", "speech": None, "noisy": None}
    >>> rows = {i: {**noise, "speech": i % 2 or None} for i in range(6)}
    >>> [[*part] for part in hold_out(rows, 0.4)]
    [[0, 1, 2, 3], [4, 5]]
    """
    if not 0 < share < 1:
        raise ValueError(f"own_share must lie in [0, 1), not {share}")
    taken = set()
    for client, keys in group_by(rows, "client").items():
        noises = [key for key in keys if is_isolated_noise(rows[key])]
        recordings = [key for key in keys if not is_isolated_noise(rows[key])]
        for kind, own in (("recordings", recordings), ("isolated noises", noises)):
            if len(own) < 2:
                raise ValueError(
                    f"own_share: client {client} has {len(own)} {kind}; to hold some "
                    "out and train on others takes two: use fewer clients"
                )
            speakers = group_by({key: rows[key] for key in own}, "spk_id").values()
            last = [k for s in speakers for k in s[len(s) - round(share * len(s)) :]]
            taken.update(last[: len(own) - 1] or own[-1:])
    kept = {key: row for key, row in rows.items() if key not in taken}
    return kept, {key: row for key, row in rows.items() if key in taken}


def choose_groups(members, shares, seed):
    """Choose by seed which members belong to which group.

    With one seed a larger share contains the smaller one, so that a sweep over
    ``p_supervised`` only ever adds supervised clients.

    Arguments
    ---------
    members : list of str
        Clients or recordings.
    shares : dict
        Group -> fraction of the members, in [0, 1]; they sum to at most 1.
    seed : int

    Returns
    -------
    dict
        Member -> group, ``"unsupervised"`` for the rest.

    Example
    -------
    >>> groups = choose_groups(["a", "b", "c", "d"], {"supervised": 0.5}, seed=0)
    >>> sorted(groups.values())
    ['supervised', 'supervised', 'unsupervised', 'unsupervised']
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1:
        raise ValueError(
            "fractions of clients (p_supervised, ...) must lie in [0, 1] and sum to at "
            f"most 1, not {dict(shares)}"
        )
    order = sorted(members, key=lambda m: example_generator(seed, "group", m).random())
    groups = dict.fromkeys(members, "unsupervised")
    ends = [round(total * len(order)) for total in accumulate(shares.values())]
    for group, first, last in zip(shares, [0, *ends], ends, strict=False):
        groups.update(dict.fromkeys(order[first:last], group))
    return groups


def assign_groups(rows, column, shares, seed, p_labelled=1.0):
    """Write the objective of each recording into the column ``group``.

    Arguments
    ---------
    rows : dict
        Id -> row, changed in place.
    column : str
        What is supervised as a whole: ``client``, or ``spk_id``.
    shares : dict
        Group -> fraction of the values of ``column``.
    seed : int
    p_labelled : float
        Fraction of a supervised client's recordings whose clean parts are known; the
        others are ``"unsupervised"``.

    Returns
    -------
    dict
        The same rows. A recording without clean speech is never ``"supervised"``.
    """
    members = group_by(rows, column)
    groups = choose_groups(list(members), shares, seed)
    for member, keys in members.items():
        labels = dict.fromkeys(keys, groups[member])
        if groups[member] == "supervised" and p_labelled < 1:
            labels = choose_groups(keys, {"supervised": p_labelled}, seed)
        for key in keys:
            known = rows[key]["speech"] or labels[key] != "supervised"
            rows[key]["group"] = labels[key] if known else "unsupervised"
    return rows
