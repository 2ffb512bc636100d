"""Manifests of speech enhancement: rows that pair a chunk of speech with one of noise.

Positions are frames of the named file.
"""

from pathlib import Path

from recipes import storage
from recipes.preparation import write_manifests

SIDES = storage.SIDES
COLUMNS = [
    *("ID", "duration", "spk_id"),
    *(f"{side}{end}" for side in SIDES for end in ("", "_start", "_stop")),
    *("noise_class", "noise_id", "padded"),
]


def checked_options(**options):
    """Collect the options of a preparation, as the functions of this module take them.

    Arguments
    ---------
    **options
        storage, storage_folder, loop_noise, chunk_seconds, and the recipe's own.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For a storage or a length of chunks that cannot be.
    """
    if options["storage"] not in storage.STORAGES:
        choices = ", ".join(storage.STORAGES)
        raise ValueError(f"storage must be one of {choices}: {options['storage']!r}")
    if options["chunk_seconds"] <= 0:
        raise ValueError(f"chunk_seconds must be > 0: {options['chunk_seconds']}")
    folder = options["storage_folder"]
    return {**options, "storage_folder": None if folder is None else str(folder)}


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
        Path -> recipes.audio_files.Header.
    options : dict
        chunk_seconds, loop_noise.

    Returns
    -------
    list of dict
        With the columns of a manifest; ``_speech_rate`` and ``_noise_rate``, in Hz,
        are for :mod:`recipes.storage`.

    Example
    -------
    >>> from recipes.audio_files import Header
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


def write_chunks(
    corpus, tables, skipped, data_folder, save_folder, options, jobs, **record
):
    """Store the audio as the options ask for it, and write the manifests.

    Arguments
    ---------
    corpus : str
        Names the folder of audio that is written.
    tables : dict
        Split -> rows of :func:`chunk_rows`.
    skipped : list of Skipped
        Files that were left out.
    data_folder, save_folder : pathlib.Path
        Of the preparation.
    options : dict
        Of :func:`checked_options`.
    jobs : int or None
        Threads; as many as cores by default.
    **record
        What the record holds as well: its fingerprint.

    Returns
    -------
    dict
        The record.
    """
    write = storage.STORAGES[options["storage"]]
    tables, broken, folder = write(
        corpus, tables, data_folder, save_folder, options["storage_folder"], jobs
    )
    return write_manifests(
        save_folder,
        tables,
        COLUMNS,
        skipped + broken,
        count,
        options=options,
        stored_in=folder and str(folder.resolve()),
        **record,
    )


def count(rows):
    """Count what a split holds."""
    return {
        "chunks": len(rows),
        "hours": round(sum(row["duration"] for row in rows) / 3600, 4),
        "speakers": len({row["spk_id"] for row in rows}),
        "utterances": len({row["ID"].rsplit("_", 1)[0] for row in rows}),
        "noises": len({row["noise_id"] for row in rows}),
        "noise_classes": len({row["noise_class"] for row in rows}),
    }
