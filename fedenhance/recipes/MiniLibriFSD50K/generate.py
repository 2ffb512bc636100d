"""Make MiniLibriFSD50K, a synthetic corpus in the layouts of LibriSpeech and FSD50K.

From the root of the repository::

    python -m fedenhance.recipes.MiniLibriFSD50K.generate data/MiniLibriFSD50K

It takes less than half a minute on two cores. The corpus is the same, byte for byte,
for the same seed and the same versions of NumPy, SciPy, libsndfile and eSpeak NG.
"""

import argparse
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from math import ceil
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve, resample_poly
from tqdm import tqdm

from fedenhance.recipes.audio_files import whole_folder
from fedenhance.recipes.LibriFSD50K.corpora import (
    with_ancestors,
    write_chapter,
    write_clip,
    write_ground_truth,
)
from fedenhance.recipes.MiniLibriFSD50K import noises, sentences, speech

VERSION = 4
MARKER = "MiniLibriFSD50K.json"
SEED = 1234

# minutes of speech per speaker, utterances of 4 to 12 s
MINUTES = {"train-clean-100": 2.0, "dev-clean": 2.0, "test-clean": 2.0}
CLIPS = {"dev": 12, "eval": 4}  # per class
HUMAN_CLIPS = {"dev": 4, "eval": 2}  # per class of human voice
FIRST_SPEAKER, FIRST_CHAPTER, FIRST_CLIP = 9001, 190001, 900001

SPEECH_LEVEL = (-28.0, 2.5, 1.5)  # dBFS: mean, deviation of speakers, of utterances
# dBFS: minimum, quartiles, maximum; LibriFSD50K has an input SNR of quartiles -2.7,
# 4.5 and 13.4 dB
LEVEL_DRAW = 2575  # puts the quartiles of each split near these
NOISE_LEVELS = (-44.0, -41.0, -32.5, -25.3, -13.0)


def generate(data_folder, seed=SEED, jobs=None, share=1.0):
    """Make the corpus unless it is there already.

    The work is done by a process of its own and beside the target, which appears in
    one step when it is whole. A second call waits for the first one.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Folder of the corpus: LibriSpeech/ and FSD50K/ come to lie in it.
    seed : int
        Seed of every draw.
    jobs : int, optional
        Processes; as many as there are cores by default, at most 8.
    share : float
        Less than 1 for a smaller corpus of the same speakers and classes.

    Returns
    -------
    pathlib.Path
        The folder of the corpus.

    Raises
    ------
    FileExistsError
        When the folder holds something else.
    RuntimeError
        When the generator fails.
    """
    data_folder = Path(data_folder)
    if is_complete(data_folder, seed, share):
        return data_folder
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "fedenhance.recipes.MiniLibriFSD50K.generate"]
    command += [str(data_folder.resolve()), "--seed", str(seed), "--share", str(share)]
    command += ["--jobs", str(jobs)] if jobs else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(
            f"The built-in corpus could not be made in {data_folder} (see above)."
        )
    return data_folder


def find_or_generate(data_folder, built_in_corpus):
    """Choose between a user's corpora and this one, which is made if need be.

    Arguments
    ---------
    data_folder : str or pathlib.Path, optional
        The user's. None, or the same as the other: the built-in corpus is wanted.
    built_in_corpus : str or pathlib.Path, optional
        Where the built-in corpus is or will be.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        When neither is given.
    """
    if data_folder is None and built_in_corpus is None:
        raise ValueError("Give a data_folder that holds LibriSpeech/")
    wanted = data_folder is None or (
        built_in_corpus is not None
        and Path(data_folder).resolve() == Path(built_in_corpus).resolve()
    )
    return generate(built_in_corpus) if wanted else Path(data_folder)


def is_complete(data_folder, seed, share=1.0):
    """Whether the folder holds the whole corpus of this version, seed and share."""
    try:
        marker = json.loads((Path(data_folder) / MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return marker == _marker(seed, share)


def _marker(seed, share):
    return {"version": VERSION, "seed": seed, "share": share}


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    arguments = parser.parse_args(argv)
    target = arguments.data_folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_complete(target, arguments.seed, arguments.share):
            return
        if target.exists() and not (target / MARKER).exists() and any(target.iterdir()):
            raise FileExistsError(
                f"{target} is not empty and not a built-in corpus: name another folder."
            )
        with whole_folder(target) as partial:
            make_corpus(partial, arguments.seed, arguments.jobs, arguments.share)


def tasks_of(folder, seed, share=1.0):
    """List what makes the corpus, one call after the other: speakers, then clips."""
    speakers = [(s, v) for s, voices in speech.VOICES.items() for v in voices]
    tasks = [
        (make_speaker, (folder, seed, FIRST_SPEAKER + i, subset, voice, share))
        for i, (subset, voice) in enumerate(speakers)
    ]
    wanted = {
        part: {
            **dict.fromkeys(noises.SOUNDS, ceil(share * CLIPS[part])),
            **dict.fromkeys(noises.HUMAN, ceil(share * HUMAN_CLIPS[part])),
        }
        for part in CLIPS
    }
    names = iter(_clip_names(seed, sum(sum(w.values()) for w in wanted.values())))
    for part, numbers in wanted.items():
        levels = iter(_levels(seed, part, sum(numbers.values())))
        for label, number in numbers.items():
            mine = [(next(names), next(levels)) for _ in range(number)]
            tasks.append((make_clips, (folder, seed, part, label, mine)))
    return tasks


def run_tasks(tasks, jobs):
    """Do some of :func:`tasks_of`, so many at a time; return their results."""
    # A fresh process for each task: the flutter of eSpeak NG's pitch has a memory.
    with multiprocessing.Pool(jobs, maxtasksperchild=1) as pool:
        results = pool.imap(_call, tasks, chunksize=1)
        bar = tqdm(results, "built-in corpus", len(tasks), leave=False, disable=None)
        return list(bar)


def make_corpus(folder, seed, jobs, share=1.0):
    """Write all files of the corpus into a new folder."""
    results = run_tasks(tasks_of(folder, seed, share), jobs)
    number = sum(map(len, speech.VOICES.values()))
    _write_tables(folder / "LibriSpeech", results[:number])
    clips = sorted(clip for group in results[number:] for clip in group)
    write_ground_truth(folder, [*_with_splits(clips)])
    (folder / MARKER).write_text(json.dumps(_marker(seed, share)) + "\n")


def _call(task):
    function, arguments = task
    return function(*arguments)


def _clip_names(seed, number):
    """Shuffled numbers, as Freesound's are in no order of class."""
    order = np.random.default_rng([seed, 3]).permutation(number)
    return [FIRST_CLIP + int(i) for i in order]


def _levels(seed, part, number):
    """Levels in dBFS: the quantiles of ``NOISE_LEVELS``, shuffled.

    Drawn one by one, those of some dozens of clips would miss its quartiles; and so
    would the pairs with speech in the small splits, but for the choice of the draw.
    """
    rng = np.random.default_rng([seed, LEVEL_DRAW, *part.encode()])
    shares = (rng.permutation(number) + 0.5) / number
    return np.interp(shares, np.linspace(0, 1, len(NOISE_LEVELS)), NOISE_LEVELS)


def make_speaker(folder, seed, speaker, subset, voice, share=1.0):
    """Write the chapters of one speaker.

    Returns
    -------
    dict
        speaker, sex, subset, and the minutes of each of the chapters.
    """
    rng = np.random.default_rng([seed, 1, speaker])
    espeak = speech.ESpeak()
    mean, deviation, variation = SPEECH_LEVEL
    level = rng.normal(mean, deviation)
    colour_seed = rng.integers(2**32)

    def utterances(echo):
        seconds = 0.0
        while seconds < share * MINUTES[subset] * 60 / 2:
            text, wave = _utterance(rng, espeak, voice)
            wave = fftconvolve(wave, echo)[: wave.size]
            wave = speech.spectral_colour(
                np.random.default_rng(colour_seed), wave, speech.SAMPLE_RATE
            )
            wave = speech.scaled(wave, level + rng.normal(0, variation))
            floor = 10 ** ((level - rng.uniform(40, 50)) / 20)
            wave = wave + floor * rng.standard_normal(wave.size)
            yield wave, sentences.transcript(text)
            seconds += wave.size / speech.SAMPLE_RATE

    minutes = {}
    for number in range(2):
        chapter = FIRST_CHAPTER + 2 * (speaker - FIRST_SPEAKER) + number
        spoken = utterances(speech.room(rng))
        seconds = write_chapter(folder, subset, speaker, chapter, spoken)
        minutes[chapter] = sum(seconds.values()) / 60
    return {
        "speaker": speaker,
        "sex": voice.sex,
        "subset": subset,
        "chapters": minutes,
    }


def _utterance(rng, espeak, voice):
    """Sentences until they last 4 s or more; again, should they pass 12 s."""
    wanted = rng.uniform(4.0, 11.0)
    while True:
        texts, waves, count = [], [], 0
        while count < wanted * speech.SAMPLE_RATE:
            texts.append(sentences.sentence(rng))
            waves.append(espeak.say(texts[-1], voice))
            count += waves[-1].size
        if 4.0 * speech.SAMPLE_RATE <= count <= 12.0 * speech.SAMPLE_RATE:
            return " ".join(texts), np.concatenate(waves)


def make_clips(folder, seed, part, label, clips):
    """Write the clips of one class of noise.

    Returns
    -------
    list
        (name, labels, part) of each.
    """
    for number, (name, level) in enumerate(clips):
        write_clip(folder, part, name, _make_clip(seed, part, label, number, level))
    return [(name, with_ancestors(label), part) for name, _ in clips]


def _make_clip(seed, part, label, number, level):
    """Make one clip, short, middling or long, at a level in dBFS."""
    identity = [seed, 2, ("dev", "eval").index(part), number]
    rng = np.random.default_rng([*identity, *label.encode()])
    seconds = rng.choice((2.5, 5.0, 8.4, 10.0), p=(0.08, 0.22, 0.5, 0.2))
    count = int(seconds * rng.uniform(0.97, 1.03) * noises.SAMPLE_RATE)
    if label in noises.SOUNDS:
        sound, band = noises.SOUNDS[label]
        wave = noises.within(sound(rng, noises.parameters(rng, part), count), *band)
    else:
        wave = _human(rng, label, count)
    wave = speech.spectral_colour(rng, wave, noises.SAMPLE_RATE, depth=3.0)
    edge = np.minimum(np.arange(count), np.arange(count)[::-1])
    wave = wave * np.clip(edge / (0.01 * noises.SAMPLE_RATE), 0, 1)
    return speech.scaled(wave - wave.mean(), level)


def _human(rng, label, count):
    """Human voices, for the filter of prepare.py to catch."""
    espeak = speech.ESpeak()
    voices = speech.BABBLERS if label == "Chatter" else (rng.choice(speech.BABBLERS),)
    waves = [
        resample_poly(espeak.say(sentences.sentence(rng), voice), 441, 160)
        for voice in voices
    ]
    return noises.chatter(rng, waves, count)


def _write_tables(folder, speakers):
    """Write the tables of LibriSpeech."""
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME\n"]
    chapters = [";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE\n"]
    for entry in speakers:
        speaker, subset = entry["speaker"], entry["subset"]
        minutes = sum(entry["chapters"].values())
        name = f"Synthetic voice {speaker}"
        lines.append(
            f"{speaker:<5}| {entry['sex']} | {subset:<17}| {minutes:5.2f} | {name}\n"
        )
        chapters += [
            f"{chapter:<7}| {speaker:<5}| {m:5.2f} | {subset:<17}| 0 | 0 | Sentences\n"
            for chapter, m in entry["chapters"].items()
        ]
    (folder / "SPEAKERS.TXT").write_text("".join(lines))
    (folder / "CHAPTERS.TXT").write_text("".join(chapters))
    (folder / "README.TXT").write_text(
        "Synthetic speech in the layout of LibriSpeech, made by MiniLibriFSD50K.\n"
    )


def _with_splits(clips):
    """Name the split of each clip: every seventh of development is for validation."""
    number = 0
    for name, labels, part in clips:
        if part == "eval":
            yield name, labels, "eval"
        else:
            yield name, labels, "val" if number % 7 == 6 else "train"
            number += 1


if __name__ == "__main__":
    main()
