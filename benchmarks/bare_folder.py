"""A folder as people have them: recordings of several formats, without references.

Two people record in eight places, each with a room and sounds of its own; a sub-folder
is a place, and becomes a client. What is true of them is written elsewhere, for the
benchmark alone, with recordings that are not in the folder: of the same people there,
of others there, and of others among sounds that are in no place.
"""

import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from fedenhance.data.augmentation import Augmentation
from fedenhance.data.folders import ffmpeg
from fedenhance.data.tables import read_table, write_table
from fedenhance.recipes.audio_files import read_mono
from fedenhance.recipes.storage import read_at_16k

RATE = 16_000
KINDS = (
    (".wav", 44_100, 2),
    (".m4a", 44_100, 2),
    (".flac", 48_000, 1),
    (".ogg", 44_100, 2),
    (".wav", 16_000, 1),
    (".mp3", 44_100, 1),
)
"""Suffix, rate and channels of the files, by turns."""

PARTS = {
    "test": ("test-clean", "dev-clean", "eval.csv", None),
    "valid": ("dev-clean", "train-clean-100", "dev.csv", "val"),
}
"""Whose recordings are in the folder, and the others; the sounds, and their split. By
the second, methods are chosen; of the first, no model here was trained on anything."""

PLACES, LONG = 8, 3


def make(corpus, folder, truth, part="test", seed=0, **sizes):
    """Write the folder, and what is true of it.

    Arguments
    ---------
    corpus : str or Path
        Laid out as LibriSpeech and FSD50K, such as PackagedRecordings.
    folder : Path
        Gets a sub-folder with recordings for each place.
    truth : Path
        Gets ``truth.csv`` with ``file``, ``kind``, ``client``, ``spk_id``, ``snr`` and
        ``speech``. The ``kind`` is "folder" of what is in the folder; the others are
        "own": other recordings of the same people and places; "speakers": of others in
        these places; "noises": of others, among other sounds, in other rooms.
    part : str
        Of ``PARTS``.
    seed : int
    **sizes
        As for :func:`record`.

    Returns
    -------
    Path
        ``truth.csv``.
    """
    rows = []
    for number, row in enumerate(record(corpus, part, seed, **sizes)):
        mixture, speech = row.pop("mixture"), row.pop("speech")
        suffix, rate, channels = KINDS[number % len(KINDS)]
        if suffix == ".m4a" and ffmpeg() is None:
            suffix = ".flac"
        root = folder if row["kind"] == "folder" else truth / row["kind"]
        path = root / row["client"] / f"rec {number:03d}{suffix}"
        write(path, mixture, rate, channels)
        known = truth / "speech" / f"{number:03d}.flac"
        known.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(known, speech, RATE)
        rows.append({"file": path, **row, "speech": known})
    write_table(truth / "truth.csv", rows)
    return truth / "truth.csv"


def record(corpus, part, seed=0, files=20, fresh=6, snrs=(-5, 15)):
    """Record people in places.

    Arguments
    ---------
    corpus, part, seed
        As for :func:`make`.
    files, fresh : int
        Recordings of each place in the folder, and of each other kind beside it; every
        tenth in the folder is of ``LONG`` utterances.
    snrs : tuple
        Range of their signal-to-noise ratios in dB.

    Yields
    ------
    dict
        A row of ``truth.csv``, and ``mixture`` and ``speech``, ``(time,)``. The speech
        is what the room makes of it.
    """
    draws = random.Random(seed)
    corpus, (subset, other_subset, table, split) = Path(corpus), PARTS[part]
    sounds = list_sounds(corpus / "FSD50K", table, split)
    draws.shuffle(sounds)
    away, sounds = sounds[: len(sounds) // 4], sounds[len(sounds) // 4 :]
    spoken, others = (
        utterances(corpus / "LibriSpeech" / name, draws)
        for name in (subset, other_subset)
    )
    for place in range(PLACES):
        who = sorted(spoken)[place % len(spoken)]
        strangers = sorted(others)[:2]
        for kind, count in (
            ("folder", files),
            *((kind, fresh) for kind in ("own", "speakers", "noises")),
        ):
            for number in range(count):
                known = kind in ("folder", "own")
                name = who if known else strangers[(place + number) % len(strangers)]
                length = LONG if kind == "folder" and number % 10 == 9 else 1
                speech = [
                    next((spoken if known else others)[name]) for _ in range(length)
                ]
                room = place if kind != "noises" else draws.random()
                speech = in_room(np.concatenate([*map(read_float, speech)]), room)
                snr = draws.uniform(*snrs)
                heard = away if kind == "noises" else sounds[place::PLACES]
                mixture = speech + noise_of(heard, speech, snr, draws, room)
                scale = 0.5 / np.abs(mixture).max()
                yield {
                    "kind": kind,
                    "client": f"{who}-{'abcdefgh'[place]}",
                    "spk_id": name,
                    "snr": round(snr, 3),
                    "mixture": mixture * scale,
                    "speech": speech * scale,
                }


def list_sounds(folder, table, split):
    """Files of the sounds of a split of FSD50K's layout, by name."""
    rows = read_table(folder / "FSD50K.ground_truth" / table)
    names = sorted(r["fname"] for r in rows if split in (None, r.get("split")))
    return [next(folder.glob(f"*/{name}.wav")) for name in names]


def utterances(folder, draws):
    """Speaker -> iterator over the files of utterances, which ends where they do."""
    files = {path.name: sorted(path.rglob("*.flac")) for path in folder.iterdir()}
    for name in sorted(files):
        draws.shuffle(files[name])
    return {name: iter(paths) for name, paths in files.items()}


def read_float(path):
    """A recording at 16 kHz relative to full scale."""
    return read_at_16k(path).astype(np.float64) / 32768


def in_room(signal, room):
    """Let a signal sound in a room, whose number tells its response."""
    simulate = Augmentation(RATE, p_room=1.0, decay_times=(0.15, 0.5))
    signal = torch.from_numpy(signal.astype(np.float32))
    return simulate(signal, random.Random(f"room {room}")).numpy().astype(np.float64)


def noise_of(sounds, speech, snr, draws, room):
    """One or two of the sounds of a place, repeated, at a ratio."""
    noise = np.zeros_like(speech)
    for path in draws.sample(sounds, draws.choice((1, 2))):
        sound = read_float(path)
        looped = np.tile(sound, len(speech) // len(sound) + 2)
        start = draws.randrange(len(sound))
        looped = looped[start : start + len(speech)]
        noise += looped / (np.sqrt(np.mean(looped**2)) + 1e-9)
    noise = in_room(noise, f"{room}, elsewhere")
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return gain * noise


def write(path, signal, rate, channels):
    """Write a signal as a file of another rate; the channels differ in level."""
    from scipy.signal import resample_poly

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = resample_poly(signal, rate // 100, RATE // 100)
    frames = np.stack([frames, 0.7 * frames][:channels], axis=1)
    if path.suffix != ".m4a":
        with soundfile.SoundFile(path, "w", rate, channels) as file:
            for start in range(0, len(frames), 1 << 16):  # long blocks crash encoders
                file.write(frames[start : start + (1 << 16)])
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "audio.wav")
        soundfile.write(source, frames, rate)
        command = [ffmpeg(), "-v", "error", "-y", "-i", source, "-b:a", "128k", path]
        subprocess.run(command, check=True)


def read(row):
    """The mixture and the speech of a row of ``truth.csv``, at 16 kHz, equally long."""
    mixture, speech = (read_mono(row[name], RATE) for name in ("file", "speech"))
    length = min(len(mixture), len(speech))
    return mixture[:length].astype(np.float32), speech[:length].astype(np.float32)
