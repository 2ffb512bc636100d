"""Manifests of speech enhancement: rows that pair a chunk of speech with one of noise.

Positions are frames of the named file.
"""

from pathlib import Path

from fedenhance.recipes.preparation import hours_of, write_manifests
from fedenhance.recipes.storage import SIDES, STORAGES

COLUMNS = [
    *("ID", "duration", "spk_id"),
    *(f"{side}{end}" for side in SIDES for end in ("", "_start", "_stop")),
    *("noise_class", "noise_id", "padded"),
]


def checked_options(
    *,
    storage="files",
    storage_folder: str = None,
    loop_noise=False,
    chunk_seconds=4.0,
):
    """Collect the options that all preparations of chunks have.

    Arguments
    ---------
    storage : str
        "files": rows point into the corpora, nothing is copied. "packed": int16 arrays
        at 16 kHz, mapped into memory.
    storage_folder : str, optional
        Where "packed" writes; by default a folder beside the corpora, or the save
        folder where they are read-only.
    loop_noise : bool
        Noises shorter than their utterance are used from the start again, instead of
        limiting the number of chunks.
    chunk_seconds : float
        Length of a chunk in seconds.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For a storage or a length of chunks that cannot be.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}: {storage!r}")
    if chunk_seconds <= 0:
        raise ValueError(f"chunk_seconds must be > 0: {chunk_seconds}")
    return {
        "storage": storage,
        "storage_folder": None if storage_folder is None else str(storage_folder),
        "loop_noise": loop_noise,
        "chunk_seconds": chunk_seconds,
    }


def chunk_rows(pairs, headers, options):
    """Rows of utterances, each with a noise.

    Both count as one chunk long at least; there are as many rows as the shorter has
    whole chunks, or, with ``loop_noise``, as the utterance has.

    Arguments
    ---------
    pairs : iterable of (str, str, dict)
        Speech and noise, relative to the data folder, and the columns that all rows of
        them have: spk_id, noise_class. Pairs without headers are passed over.
    headers : dict
        Path -> fedenhance.data.opening.Header.
    options : dict
        chunk_seconds, loop_noise.

    Returns
    -------
    list of dict
        With the columns of a manifest; ``_speech_rate`` and ``_noise_rate``, in Hz,
        are for :mod:`fedenhance.recipes.storage`.

    Example
    -------
    >>> from fedenhance.data.opening import Header
    >>> headers = {"s.flac": Header(200, 10, 1), "n.wav": Header(30, 10, 1)}
    >>> options = {"chunk_seconds": 4.0, "loop_noise": False}
    >>> (row,) = chunk_rows([("s.flac", "n.wav", {"spk_id": "7"})], headers, options)
    >>> row["ID"], row["speech_stop"], row["noise_stop"], row["padded"]
    ('s_0', 40, 30, 'noise')
    """
    rows, taken = [], {}
    for speech, noise, common in pairs:
        if speech in headers and noise in headers:
            common = {**common, "noise_id": Path(noise).stem}
            for row in _rows_of_pair((speech, noise), headers, options):
                name = Path(speech).stem  # an utterance may be in several pairs
                taken[name] = taken.get(name, -1) + 1
                rows.append({"ID": f"{name}_{taken[name]}", **common, **row})
    return rows


def _rows_of_pair(pair, headers, options):
    seconds = options["chunk_seconds"]
    paths = dict(zip(SIDES, pair, strict=True))
    length = {s: round(seconds * headers[p].sample_rate) for s, p in paths.items()}
    whole = {s: max(1, headers[p].frames // length[s]) for s, p in paths.items()}
    count = whole["speech"] if options["loop_noise"] else min(whole.values())
    for number in range(count):
        row, padded = {"duration": seconds}, []
        for side, path in paths.items():
            start = number % whole[side] * length[side]
            stop = min(start + length[side], headers[path].frames)
            if stop - start < length[side]:
                padded.append(side)
            row[side] = f"$data_root/{path}"
            row[f"{side}_start"], row[f"{side}_stop"] = start, stop
            row[f"_{side}_rate"] = headers[path].sample_rate
        yield {**row, "padded": " ".join(padded)}


def write_chunks(corpus, tables, skipped, folders, options, jobs, **record):
    """Store the audio as the options ask for it, and write the manifests.

    Arguments
    ---------
    corpus : str
        Names the folder of audio that is written.
    tables : dict
        Split -> rows of :func:`chunk_rows`.
    skipped : list of Skipped
        Files that were left out.
    folders : (pathlib.Path, pathlib.Path)
        The data folder and the save folder.
    options : dict
        Of :func:`checked_options`, and the recipe's own.
    jobs : int or None
        Threads; as many as cores by default.
    **record
        What the record holds as well: its fingerprint.

    Returns
    -------
    dict
        The record.
    """
    write, chosen = STORAGES[options["storage"]], options["storage_folder"]
    tables, broken, folder = write(corpus, tables, folders, chosen, jobs)
    record |= {"options": options, "stored_in": folder and str(folder.resolve())}
    skipped = skipped + broken
    return write_manifests(folders[1], tables, COLUMNS, skipped, count, **record)


def count(rows):
    """Count what a split holds."""
    return {
        "chunks": len(rows),
        "hours": hours_of(rows),
        "speakers": len({row["spk_id"] for row in rows}),
        "utterances": len({row["ID"].rsplit("_", 1)[0] for row in rows}),
        "noises": len({row["noise_id"] for row in rows}),
        "noise_classes": len({row["noise_class"] for row in rows}),
    }
