"""What the recipes of speech recognition share: transcripts, and their manifests."""

import unicodedata
from pathlib import Path

from fedenhance.data.folders import Skipped
from fedenhance.recipes.audio_files import read_headers
from fedenhance.recipes.preparation import (
    check_tables,
    fingerprint_of,
    finished,
    hours_of,
    write_manifests,
)

COLUMNS = ["ID", "duration", "wav", "spk_id", "wrd"]
CASES = {"upper": str.upper, "lower": str.lower, "keep": str}
VERSION = 1


def normalize(text, case="upper", accents=True):
    """Reduce a sentence to words: letters, digits and apostrophes.

    Arguments
    ---------
    text : str
        In any script; compatibility forms are unified (NFKC).
    case : str
        ``upper``, ``lower``, or ``keep``.
    accents : bool
        Keep them; otherwise the letters below them remain.

    Returns
    -------
    str
        Words, one space between two; empty if there is no word.

    Example
    -------
    >>> normalize("“Où est-ce?” – It’s 'ere…")
    "OÙ EST CE IT'S 'ERE"
    >>> normalize("Où?", case="lower", accents=False)
    'ou'
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("ʼ", "'")
    if not accents:
        parts = unicodedata.normalize("NFD", text)
        text = "".join(c for c in parts if unicodedata.category(c) != "Mn")
    text = CASES[case](text)
    # L: letters, M: marks that join them, N: digits.
    kept = (c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in text)
    words = "".join(kept).split()
    # An apostrophe belongs to a word; alone it was a quotation mark.
    return " ".join(word for word in words if word.strip("'"))


def select(rows, data_folder, options, jobs=None):
    """Read durations; leave out what cannot be learnt from.

    Arguments
    ---------
    rows : list of dict
        ``ID``; ``wav``, relative to the data folder, or None if there is no such file;
        ``spk_id``; ``wrd``, not yet normalised; ``path``, to name the row by.
    data_folder : str or pathlib.Path
        Holds the audio.
    options : dict
        ``case``, ``accents``, ``alphabet``, ``min_duration``, ``max_duration``.
    jobs : int, optional
        Threads.

    Returns
    -------
    rows : list of dict
        With the columns of a manifest.
    skipped : list of Skipped
    """
    found = [row["wav"] for row in rows if row["wav"] is not None]
    headers, damaged = read_headers(data_folder, found, jobs)
    reasons = {path: reason for path, reason in damaged}
    kept, skipped, seen = [], [], set()
    for row in rows:
        words = normalize(row["wrd"], options["case"], options["accents"])
        header = headers.get(row["wav"])
        seconds = header.frames / header.sample_rate if header else 0.0
        fault = reasons.get(row["wav"]) if row["wav"] else "missing file"
        fault = fault or fault_of(words, seconds, options)
        if not fault and row["ID"] in seen:
            fault = "the same ID twice"
        if fault:
            skipped.append(Skipped(row["path"], fault))
            continue
        seen.add(row["ID"])
        kept.append(
            {
                "ID": row["ID"],
                "duration": round(seconds, 4),
                "wav": f"$data_root/{row['wav']}",
                "spk_id": row["spk_id"],
                "wrd": words,
            }
        )
    return kept, skipped


def fault_of(words, seconds, options):
    """Say why an utterance is left out, if it is.

    Example
    -------
    >>> options = {"alphabet": "ABC", "min_duration": 0.5, "max_duration": 10}
    >>> fault_of("CAB", 1.0, options), fault_of("DAB", 1.0, options)
    (None, "unknown character 'D'")
    >>> fault_of("", 1.0, options), fault_of("CAB", 20.0, options)
    ('empty transcript', 'longer than 10 s')
    """
    if not words:
        return "empty transcript"
    if options["alphabet"]:
        unknown = sorted(set(words) - set(options["alphabet"]) - {" "})
        if unknown:
            return f"unknown character {''.join(unknown)!r}"
    if seconds < options["min_duration"]:
        return f"shorter than {options['min_duration']} s"
    if options["max_duration"] and seconds > options["max_duration"]:
        return f"longer than {options['max_duration']} s"
    return None


def count(rows):
    """Count what a split holds."""
    return {
        "utterances": len(rows),
        "hours": hours_of(rows),
        "speakers": len({row["spk_id"] for row in rows}),
    }


def deal(rows, number):
    """Deal the speakers of a manifest to clients, for trials of a deployment.

    Arguments
    ---------
    rows : list of dict
    number : int
        Of clients.

    Returns
    -------
    list of list of dict

    Raises
    ------
    ValueError
        When there are fewer speakers than clients.

    Example
    -------
    >>> rows = [{"ID": i, "spk_id": s} for i, s in enumerate("aabbc")]
    >>> [[row["ID"] for row in part] for part in deal(rows, 2)]
    [[0, 1, 4], [2, 3]]
    """
    speakers = list(dict.fromkeys(row["spk_id"] for row in rows))
    if number > len(speakers):
        raise ValueError(f"{number} clients, but {len(speakers)} speakers")
    place = {speaker: i % number for i, speaker in enumerate(speakers)}
    parts = [[] for _ in range(number)]
    for row in rows:
        parts[place[row["spk_id"]]].append(row)
    return parts


def prepare(
    save_folder,
    listing,
    data_folder,
    files,
    details,
    *,
    case="upper",
    accents=True,
    alphabet: str = None,
    min_duration=0.3,
    max_duration: float = None,
    clients=0,
    jobs: int = None,
):
    """Turn the listing of a corpus into manifests, unless that has been done.

    Arguments
    ---------
    save_folder : str
        Where ``train.csv``, ``valid.csv``, ``test.csv`` and ``skipped.csv`` go.
    listing : callable
        Returns, by split, rows as :func:`select` takes them, and a list of Skipped.
    data_folder : pathlib.Path
        Holds the audio.
    files : dict
        Path -> size and time of what the listing is made from.
    details : dict
        What else the listing depends on.
    case : str
        ``upper``, ``lower`` or ``keep``.
    accents : bool
        Keep them.
    alphabet : str, optional
        Utterances with other characters than these are left out.
    min_duration, max_duration : float
        In seconds; utterances beyond are left out. None: no limit.
    clients : int
        Write ``client0.csv``, ... as well: the training set, dealt by speakers.
    jobs : int, optional
        Threads.

    Returns
    -------
    dict
        The record that ``prepare.json`` keeps.

    Raises
    ------
    ValueError
        For options that cannot be, or if a split has no usable utterance.
    """
    if case not in CASES:
        raise ValueError(f"case must be {', '.join(CASES)}: {case!r}")
    options = {
        "case": case,
        "accents": accents,
        "alphabet": alphabet,
        "min_duration": min_duration,
        "max_duration": max_duration,
        **details,
    }
    save_folder = Path(save_folder)
    fingerprint = fingerprint_of(VERSION, options, clients, files)
    record = finished(save_folder, fingerprint)
    if record:
        return record
    listed, skipped = listing()
    tables = {}
    for split, rows in listed.items():
        tables[split], faulty = select(rows, data_folder, options, jobs)
        skipped = skipped + faulty
    check_tables(tables, skipped)
    if clients:
        parts = enumerate(deal(tables["train"], clients))
        tables |= {f"client{number}": part for number, part in parts}
    record = {"options": options, "fingerprint": fingerprint}
    return write_manifests(save_folder, tables, COLUMNS, skipped, count, **record)
