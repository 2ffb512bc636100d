"""Reverberant LibriCHiME-5: LibriSpeech in real rooms, with noise of CHiME-5.

What is mixed with what is in tables that come with the task (``metadata``): speech of
LibriSpeech, room responses of VoiceHome, segments of CHiME-5 in which nobody speaks.
Folders, names and samples are those of the task's own script
(github.com/UDASE-CHiME2023/reverberant-LibriCHiME-5), and what it has made is taken as
it is.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import soundfile
from scipy.signal import fftconvolve
from tqdm import tqdm

from fedenhance.data.opening import DamagedAudioError
from fedenhance.recipes.audio_files import whole_folder
from fedenhance.recipes.UDASE.segments import FOLDER as SEGMENTS

FOLDER = "UDASE/reverberant-LibriCHiME-5"
"""Of the mixtures, in the data folder."""

TABLES = "UDASE-reverberant-LibriCHiME-5/metadata"
ROOMS = "voiceHome"
RATE = 16000
LOUDEST = 0.9
"""Peak of a mixture that would clip otherwise."""


def make(data_folder, jobs=None):
    """Write the mixtures that are not there yet.

    Arguments
    ---------
    data_folder : pathlib.Path
        Holds ``UDASE-reverberant-LibriCHiME-5/metadata/``, ``LibriSpeech/``,
        ``voiceHome/audio/rirs/`` and the segments.
    jobs : int, optional
        Threads; as many as cores by default.

    Raises
    ------
    DamagedAudioError, ValueError
        Naming a file that is missing or not as the tables say.
    """
    for split in ("dev", "eval"):
        target = data_folder / FOLDER / split
        if target.exists():
            continue
        table = data_folder / TABLES / f"{split}.json"
        try:
            rows = json.loads(table.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{table} is damaged: {error}") from error
        with whole_folder(target) as folder, ThreadPoolExecutor(jobs) as pool:
            written = pool.map(partial(write, data_folder, split, folder), rows)
            name = f"LibriCHiME-5 {split}"
            for _ in tqdm(written, name, len(rows), leave=False, disable=None):
                pass


def write(data_folder, split, folder, row):
    """Write one mixture: ``_mix``, ``_speech`` and ``_noise``."""
    try:
        stem = folder / str(row["max_num_sim_active_speakers"]) / row["name"]
        speech, noise = sources_of(data_folder, split, row)
    except (KeyError, TypeError) as error:
        table = data_folder / TABLES / f"{split}.json"
        raise ValueError(f"{table}: an entry lacks {error}") from error
    mixture = noise + speech
    peak = max(np.abs(mixture).max(), np.abs(speech).max())
    scale = LOUDEST / peak if peak > 1 else 1.0
    stem.parent.mkdir(exist_ok=True)
    for part, wave in (("mix", mixture), ("speech", speech), ("noise", noise)):
        soundfile.write(f"{stem}_{part}.wav", wave * scale, RATE, "PCM_16")


def sources_of(data_folder, split, row):
    """Make the speech of all speakers, and the noise, of one mixture.

    Arguments
    ---------
    data_folder : pathlib.Path
    split : str
        "dev" or "eval".
    row : dict
        Of the tables.

    Returns
    -------
    speech, noise : numpy.ndarray
        ``(time,)``.
    """
    name = f"{SEGMENTS}/{split}/0/{row['noise']['filename']}.wav"
    noise = read(data_folder / name)
    if len(noise) != row["length"]:
        raise DamagedAudioError(
            data_folder / name,
            f"{len(noise)} samples, where {TABLES}/{split}.json says {row['length']}",
        )
    speech = np.zeros(len(noise))
    for speaker in (value for key, value in row.items() if key.startswith("speaker_")):
        response = speaker["RIR"]
        room = read(data_folder / ROOMS / response["file"], response["channel"])
        voice = np.zeros(len(noise))
        for utterance in speaker["utterances"]:
            path = data_folder / "LibriSpeech" / utterance["file"]
            add(voice, read(path), room, utterance)
        level = loudness(voice) - loudness(noise)
        speech += voice * 10 ** ((speaker["SNR"] - level) / 20)
    return speech, noise


def add(voice, wave, room, utterance):
    """Put an utterance, as it sounds in a room, in its place.

    The beginning of one that begins the mixture is cut off, so that its reverberation
    stays; of one that ends it, the end. Any other one may reverberate beyond its place.

    Arguments
    ---------
    voice : numpy.ndarray
        ``(time,)``, changed in place.
    wave, room : numpy.ndarray
        ``(time,)``, of the utterance's file and of the room response.
    utterance : dict
        Samples ``start_librispeech`` and ``end_librispeech`` of the file, ``start_mix``
        and ``end_mix`` of the place.

    Example
    -------
    >>> place = {"start_librispeech": 0, "end_librispeech": 2, "start_mix": 0}
    >>> voice = np.zeros(4)
    >>> add(voice, np.ones(2), np.array([1.0, 0.5]), {**place, "end_mix": 2})
    >>> voice.round(6)
    array([1.5, 0.5, 0. , 0. ])
    """
    start, stop = utterance["start_mix"], utterance["end_mix"]
    dry = wave[utterance["start_librispeech"] : utterance["end_librispeech"]]
    wet = fftconvolve(dry, room, mode="full")
    begins, ends = start == 0, stop == len(voice)
    if begins and not ends:
        wet = wet[start - stop :]
    wet = wet[: (stop if begins or ends else len(voice)) - start]
    voice[start : start + len(wet)] = wet


def loudness(wave):
    """Energy without its mean, in dB."""
    return 10 * np.log10(np.sum((wave - np.mean(wave)) ** 2))


def read(path, channel=None):
    """Read one channel of a file at 16 kHz; of several, which must be told.

    Raises
    ------
    DamagedAudioError
        If it cannot be read, or is not as it must be.
    """
    try:
        wave, rate = soundfile.read(path, always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DamagedAudioError(path, error) from error
    if rate != RATE:
        raise DamagedAudioError(path, f"{rate} Hz instead of {RATE}")
    if wave.shape[1] != 1 if channel is None else channel >= wave.shape[1]:
        raise DamagedAudioError(path, f"{wave.shape[1]} channels")
    return wave[:, channel or 0]
