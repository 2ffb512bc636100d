"""Noise from the pauses of recordings, by a voice detector."""

import hashlib
from importlib.util import find_spec

import numpy as np
import torch
from tqdm import tqdm

from fedenhance.data.audio import PACKED_RATE
from fedenhance.data.tables import whole_file

MARGIN = 0.2
"""Seconds before and after speech that belong to it: words fade."""

MIN_NOISE = 1.0
"""Seconds of pauses that a recording must have to give noise."""


def find_pauses(audio, folder):
    """Part recordings into those with speech, and the noise of all pauses.

    The voice detector is Silero's (``pip install silero-vad``, MIT), whose package
    carries its weights.

    Arguments
    ---------
    audio : dict
        Path -> int16 waveform at 16 kHz, ``(time,)``, on disk.
    folder : Path
        Where the noise goes, one array a recording.

    Returns
    -------
    speech : dict
        Those of `audio` in which there is speech.
    noise : dict
        Path -> the joined pauses, an array on disk; of recordings that have enough.

    Raises
    ------
    ImportError
        If there is no detector.
    """
    detect = detector()
    speech, noise = {}, {}
    for path, wave in tqdm(
        audio.items(), "pauses", unit="file", leave=False, disable=None
    ):
        spans = detect(np.asarray(wave))
        if spans:
            speech[path] = wave
        quiet = without(spans, len(wave), round(MARGIN * PACKED_RATE))
        parts = [wave[start:stop] for start, stop in quiet]
        if sum(map(len, parts)) >= MIN_NOISE * PACKED_RATE:
            joined = np.concatenate(parts)
            name = hashlib.sha256(joined.tobytes()).hexdigest()[:16]
            with whole_file(folder / f"pauses-{name}.npy") as partial:
                np.save(partial, joined)
            noise[path] = np.load(folder / f"pauses-{name}.npy", mmap_mode="r")
    return speech, noise


def of_training(noise, people, tables):
    """The pauses that are of no recording, and of no person, that is held out.

    Arguments
    ---------
    noise : dict
        Of :func:`find_pauses`.
    people : dict
        Path -> name.
    tables : dict
        Split -> rows, with ``spk_id`` and ``source``.

    Returns
    -------
    dict
        Some of `noise`.
    """
    rows = [row for split in ("valid", "test") for row in tables[split]]
    strangers, held_out = (
        {row[column] for row in rows} - {row[column] for row in tables["train"]}
        for column in ("spk_id", "source")
    )
    return {
        path: wave
        for path, wave in noise.items()
        if path not in held_out and people[path] not in strangers
    }


def without(spans, length, margin):
    """What lies between spans, and a margin away from them.

    Example
    -------
    >>> without([(100, 200), (230, 300)], length=1000, margin=20)
    [(0, 80), (320, 1000)]
    """
    ends = [-margin, *(stop for _, stop in spans)]
    starts = [*(start for start, _ in spans), length + margin]
    gaps = zip(ends, starts, strict=True)
    gaps = ((end + margin, start - margin) for end, start in gaps)
    return [(start, stop) for start, stop in gaps if start < stop]


def detector():
    """Load the voice detector: int16 waveform -> list of (start, stop) of speech."""
    if find_spec("silero_vad") is None:
        raise ImportError("noise from pauses needs: pip install silero-vad")
    threads = torch.get_num_threads()
    import silero_vad

    model = silero_vad.load_silero_vad()
    torch.set_num_threads(threads)  # the package has set it to 1, for all

    def detect(wave):
        signal = torch.from_numpy(wave.astype(np.float32) / 32768)
        signal = signal / signal.abs().max().clamp(min=1e-4) * 0.9
        found = silero_vad.get_speech_timestamps(signal, model, sampling_rate=16000)
        return [(span["start"], span["end"]) for span in found]

    return detect
