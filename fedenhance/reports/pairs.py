"""Files that some enhancer wrote, beside their references: for ``evaluate.py``."""

from pathlib import Path

from fedenhance.data.audio import read_segment, seconds_of
from fedenhance.data.folders import find_files
from fedenhance.data.opening import DamagedAudioError

SLACK = 0.05
"""Seconds by which files of a pair may differ in length; more is no pair."""


def pair_files(folders):
    """Find the files that all folders have, by their path without its suffix.

    Arguments
    ---------
    folders : dict
        What is in it (``enhanced``, ``references``, ``noisy``) -> Path.

    Returns
    -------
    pairs : dict
        Path without suffix -> what -> Path.
    left_out : list of str
        Those of ``enhanced`` that lack another, and what.

    Raises
    ------
    FileNotFoundError
        If a folder has no recordings, or no file has all.
    ValueError
        If two files of a folder differ in their suffix alone.
    """
    found = {what: name_files(Path(folder)) for what, folder in folders.items()}
    pairs, left_out = {}, []
    for name in found["enhanced"]:
        lacking = [what for what, files in found.items() if name not in files]
        if lacking:
            left_out.append(f"{name}: not in {folders[lacking[0]]}")
        else:
            pairs[name] = {what: files[name] for what, files in found.items()}
    if not pairs:
        raise FileNotFoundError(
            f"no recording of {folders['enhanced']} has the name of one in "
            f"{' and '.join(str(f) for w, f in folders.items() if w != 'enhanced')}"
        )
    return pairs, left_out


def name_files(folder):
    """Recordings of a folder by their path without its suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    named = {}
    for name in find_files(folder)[0]:
        key = Path(name).with_suffix("").as_posix()
        if key in named:
            raise ValueError(f"{named[key]} and {name} in {folder} have the same name")
        named[key] = folder / name
    if not named:
        raise FileNotFoundError(f"there are no recordings in {folder}")
    return named


def read_pairs(pairs, sample_rate, left_out):
    """Read pairs one after the other; several channels are averaged.

    Arguments
    ---------
    pairs : dict
        Of :func:`pair_files`.
    sample_rate : int
        In Hz; files of another rate are resampled.
    left_out : list of str
        What cannot be read, or differs in length, is added to it.

    Yields
    ------
    tuple
        As :func:`fedenhance.reports.metrics.measure_utterances` takes them; what there
        is no folder of is None.
    """
    for name, files in pairs.items():
        try:
            seconds = {what: seconds_of(path, 0, 0) for what, path in files.items()}
            if max(seconds.values()) - min(seconds.values()) > SLACK:
                told = ", ".join(f"{what} {s:.2f} s" for what, s in seconds.items())
                left_out.append(f"{name}: {told}")
                continue
            length = round(min(seconds.values()) * sample_rate)
            read = {
                what: read_segment(path, 0, 0, sample_rate, length).numpy()
                for what, path in files.items()
            }
        except DamagedAudioError as error:
            left_out.append(str(error))
            continue
        yield {"id": name}, read["enhanced"], read.get("noisy"), read.get("references")
