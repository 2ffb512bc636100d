"""A folder as people have them: recordings of several formats, without references.

Speakers whom no model here was trained on (LibriSpeech's dev and test layout) are mixed
with sounds of the test part; each person has places with sounds of its own. What is
known of them is written elsewhere, for the benchmark alone.
"""

import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from fedenhance.data.folders import ffmpeg
from fedenhance.data.tables import write_table
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


def make(corpus, folder, truth, files=40, fresh=15, snrs=(-5, 15), seed=0):
    """Write the folder, and what is true of it.

    Arguments
    ---------
    corpus : str or Path
        Laid out as LibriSpeech and FSD50K, such as PackagedRecordings.
    folder : Path
        Gets a sub-folder with recordings for each person.
    truth : Path
        Gets ``truth.csv`` with ``file``, ``spk_id``, ``snr`` and ``speech``; and
        recordings of the same people and places that are not in the folder, whose
        ``fresh`` is 1.
    files, fresh : int
        Recordings of each person, in the folder and beside it; every tenth is of six
        utterances.
    snrs : tuple
        Range of their signal-to-noise ratios in dB.
    seed : int

    Returns
    -------
    Path
        ``truth.csv``.
    """
    draws = random.Random(seed)
    sounds = sorted(Path(corpus, "FSD50K", "FSD50K.eval_audio").glob("*.wav"))
    speech = [Path(corpus, "LibriSpeech", part) for part in ("dev-clean", "test-clean")]
    people = sorted(path for part in speech for path in part.iterdir() if path.is_dir())
    draws.shuffle(sounds)
    rows = []
    for index, person in enumerate(people):
        places = [to_float(read_at_16k(path)) for path in sounds[index :: len(people)]]
        spoken = sorted(person.rglob("*.flac"))
        draws.shuffle(spoken)
        spoken = iter(spoken)
        for number in range(files + fresh):
            taken = 6 if number % 10 == 9 and number < files else 1
            clean = [to_float(read_at_16k(p)) for p in take(spoken, taken)]
            if len(clean) < taken:
                break
            clean, snr = np.concatenate(clean), draws.uniform(*snrs)
            mixture = clean + noise_of(places, clean, snr, draws)
            mixture, clean = (s * 0.5 / np.abs(mixture).max() for s in (mixture, clean))
            suffix, rate, channels = KINDS[number % len(KINDS)]
            if suffix == ".m4a" and ffmpeg() is None:
                suffix = ".flac"
            root = folder if number < files else truth / "fresh"
            path = root / person.name / f"rec {number:03d}{suffix}"
            write(path, mixture, rate, channels)
            known = truth / "speech" / person.name / f"{number:03d}.flac"
            known.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(known, clean, RATE)
            row = {"file": path, "spk_id": person.name, "snr": round(snr, 3)}
            rows.append({**row, "fresh": int(number >= files), "speech": known})
    write_table(truth / "truth.csv", rows)
    return truth / "truth.csv"


def take(iterator, count):
    """The next few of an iterator, or fewer."""
    return [item for item, _ in zip(iterator, range(count), strict=False)]


def to_float(samples):
    """int16 samples relative to full scale."""
    return samples.astype(np.float64) / 32768


def noise_of(places, clean, snr, draws):
    """One or two of the sounds of a person's places, repeated, at a ratio."""
    noise = np.zeros_like(clean)
    for sound in draws.sample(places, draws.choice((1, 2))):
        looped = np.tile(sound, len(clean) // len(sound) + 2)
        start = draws.randrange(len(sound))
        looped = looped[start : start + len(clean)]
        noise += looped / (np.sqrt(np.mean(looped**2)) + 1e-9)
    gain = np.sqrt(np.mean(clean**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
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
