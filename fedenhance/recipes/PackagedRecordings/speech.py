"""Speakers: recorded prompts, cleaned and joined into utterances of 4 to 12 s."""

import gzip
import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfilt

from fedenhance.data.folders import ffmpeg
from fedenhance.data.opening import DamagedAudioError
from fedenhance.recipes.audio_files import hash_order, read_mono

SAMPLE_RATE = 16000
FRAME = SAMPLE_RATE // 100
SHORTEST, LONGEST = 4 * SAMPLE_RATE, 12 * SAMPLE_RATE
GAP = int(0.15 * SAMPLE_RATE)
LEVEL = -26.0  # dBFS of the active frames
UNKNOWN = "<UNK>"
MARGIN = 45 * SAMPLE_RATE  # a group of prompts with more audio is a chapter


@dataclass(frozen=True)
class Speaker:
    """A recorded person.

    Arguments
    ---------
    number : int
        As LibriSpeech's speaker ids.
    sex : str
        "F" or "M"; with "?" where only the pitch tells; "U" where nothing does.
    subset : str
        Of LibriSpeech's layout.
    name : str
        Who it is.
    source : str
        A key of ``SOURCES``.
    languages : tuple of str
        Whose prompts this person reads; of "files", patterns of their paths.
    licence : str
        Of the recordings.
    """

    number: int
    sex: str
    subset: str
    name: str
    source: str
    languages: tuple
    licence: str

    @property
    def kind(self):
        """Which packages hold the recordings, as ``--train_on`` names them."""
        return (
            self.languages[0].split("-")[0] if self.source == "files" else self.source
        )


TRAIN, DEV, TEST = "train-clean-100", "dev-clean", "test-clean"
_BY, _SA, _GPL = "CC-BY-3.0", "CC-BY-SA-3.0", "GPL-2"
SPEAKERS = (
    Speaker(90101, "F", TRAIN, "Allison Smith", "asterisk", ("en", "es"), _SA),
    Speaker(90102, "M", TEST, "Carlo Flora", "asterisk", ("it",), _BY),
    Speaker(90103, "F", TEST, "June Wallack", "asterisk", ("fr",), _SA),
    Speaker(90104, "F", DEV, "ivrvoice.ru", "asterisk", ("ru",), _BY),
    Speaker(90105, "F?", TRAIN, "Tux Paint, Belarusian", "tuxpaint", ("be",), _GPL),
    Speaker(90106, "M?", DEV, "Tux Paint, Bulgarian", "tuxpaint", ("bg",), _GPL),
    Speaker(90107, "M", TRAIN, "Tux Paint, Catalan", "tuxpaint", ("ca",), _GPL),
    Speaker(90108, "F", TRAIN, "Tux Paint, Greek", "tuxpaint", ("el",), _GPL),
    Speaker(90109, "F?", TRAIN, "Tux Paint, Romanian", "tuxpaint", ("ro",), _GPL),
    Speaker(90110, "M?", TRAIN, "Tux Paint, French", "tuxpaint", ("fr",), _GPL),
    Speaker(90111, "M?", TRAIN, "Tux Paint, Russian", "tuxpaint", ("ru",), _GPL),
    Speaker(90112, "M", TRAIN, "Tux Paint, Danish", "tuxpaint", ("da",), _GPL),
)


def _further():
    """People whose recordings are further files, all of them to train on."""
    fish = "fillets-ng-data-{0}/usr/share/games/fillets-ng/sound/**/{0}/*-{1}-*.ogg"
    for number, (language, fish_name, sex) in enumerate(
        [("cs", "m", "F"), ("cs", "v", "M"), ("nl", "m", "F"), ("nl", "v", "M")], 90113
    ):
        name = (
            f"Fish Fillets, {'small' if fish_name == 'm' else 'big'} fish, {language}"
        )
        pattern = (fish.format(language, fish_name),)
        yield Speaker(number, sex, TRAIN, name, "files", pattern, _GPL)
    letters = "klettres-data/usr/share/klettres/{}/*/*.ogg"
    potato = "ktuberling-data/usr/share/ktuberling/sounds/{}/*.*"
    spoken = [("KLettres", letters, name) for name in _LETTERS]
    spoken += [("KTuberling", potato, name) for name in _POTATO]
    for number, (program, pattern, language) in enumerate(spoken, 90117):
        name, where = f"{program}, {language}", (pattern.format(language),)
        yield Speaker(number, "U", TRAIN, name, "files", where, _GPL)


_LETTERS = "ml uk da hu lt nds nl de en he es pt_BR fr".split()
_POTATO = "lt da ca uk ru fr".split()
MORE_SPEAKERS = tuple(_further())


@dataclass
class Prompt:
    """A cleaned piece of a recording: mono at 16 kHz, its text and where it is from."""

    wave: np.ndarray
    text: str
    source: str


class UnusablePromptError(Exception):
    """A recording that is left out; the message says why."""


def transcript(text):
    """Upper-case words without punctuation or stage directions.

    Example
    -------
    >>> transcript("(music) Please hold, it's your turn.")
    "PLEASE HOLD IT'S YOUR TURN"
    """
    text = re.sub(r"\([^)]*\)|\[[^]]*\]|<[^>]*>", " ", text).upper().replace("’", "'")
    return " ".join(re.sub(r"[^\w' ]|_", " ", text).split())


_NO_SPEECH = re.compile(
    r"beep|beeperr|silence/.*|tt-monkeys|confbridge-(join|leave)|.*tone.*"
)


def asterisk_prompts(packages, languages):
    """List prompts of the telephone exchange: (path, text, group)."""
    for language in languages:
        texts = _asterisk_texts(packages / f"asterisk-core-sounds-{language}")
        package = packages / f"asterisk-core-sounds-{language}-g722"
        (root,) = package.glob("usr/share/asterisk/sounds/*/")
        for path in sorted(root.rglob("*.g722")):
            key = path.relative_to(root).with_suffix("").as_posix()
            if not _NO_SPEECH.fullmatch(key):
                yield path, texts.get(key, ""), language


def _asterisk_texts(package):
    texts = {}
    for path in sorted(package.glob("usr/share/doc/*/core-sounds-*.txt*")):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", errors="replace") as file:
            for line in file:
                if found := re.match(r"([^;:\s][^:]*?)\s*:\s*(.+)", line):
                    texts[found[1].strip()] = transcript(found[2])
    return texts


def tuxpaint_prompts(packages, languages):
    """List names and descriptions of a drawing program's stamps."""
    root = packages / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    (language,) = languages
    for path in sorted(root.rglob(f"*_{language}.ogg")):
        stem = re.sub(rf"(_desc)?_{language}\.ogg$", "", str(path))
        table, text = Path(stem + ".txt"), ""
        if table.exists():
            lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
            names = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
            text = transcript(names.get(language, ""))
        yield path, text, path.relative_to(root).parts[0]


def file_prompts(packages, patterns):
    """List files, of which nobody wrote down what is said."""
    for pattern in patterns:
        for path in sorted(packages.glob(pattern)):
            if path.suffix in (".ogg", ".wav", ".flac"):
                yield path, "", pattern


SOURCES = {
    "asterisk": asterisk_prompts,
    "tuxpaint": tuxpaint_prompts,
    "files": file_prompts,
}


def needed_ffmpeg():
    """Path of the ffmpeg program, which decodes G.722."""
    if ffmpeg() is None:
        raise RuntimeError(
            "The prompts in G.722 need ffmpeg: apt-get install ffmpeg, or "
            "pip install imageio-ffmpeg."
        )
    return ffmpeg()


def read_prompt(path):
    """Read a recording as mono float32 at 16 kHz."""
    if path.suffix == ".g722":
        command = [needed_ffmpeg(), "-v", "error", "-f", "g722", "-i", str(path)]
        command += ["-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        return np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    return read_mono(path, SAMPLE_RATE)


def frame_levels(wave, frame=FRAME):
    """Level of each frame in dBFS.

    Example
    -------
    >>> frame_levels(np.full(320, 0.1), 160).round(3)
    array([-20., -20.])
    """
    frames = wave[: wave.size // frame * frame].reshape(-1, frame).astype(np.float64)
    return 10 * np.log10((frames**2).mean(1) + 1e-12)


_HIGH_PASS = butter(2, 40, "high", fs=SAMPLE_RATE, output="sos")


def clean(wave):
    """High-pass, trim and level a recording; cut what is longer than 12 s.

    Arguments
    ---------
    wave : numpy.ndarray
        (time,) at 16 kHz.

    Returns
    -------
    list of numpy.ndarray
        float32, (time,) each, 12 s at most, with faded ends.

    Raises
    ------
    UnusablePromptError
        When it is short, clipped, silent or noisy (less than 12 dB above its pauses).
    """
    if wave.size < 0.25 * SAMPLE_RATE:
        raise UnusablePromptError("short")
    if (np.abs(wave) >= 0.999).mean() > 0.002:
        raise UnusablePromptError("clipped")
    wave = sosfilt(_HIGH_PASS, wave - wave.mean())
    levels = frame_levels(wave)
    high, low = np.percentile(levels, (95, 5))
    threshold = max(high - 35, min(low + 8, high - 15))
    # speech is where two of three neighbouring frames are loud: clicks are not
    loud = np.flatnonzero(np.convolve(levels > threshold, np.ones(3), "same") >= 2)
    if not loud.size:
        raise UnusablePromptError("silent")
    first, last = max(0, loud[0] - 6), min(levels.size, loud[-1] + 10)
    active = _mean_level(levels[first:last][levels[first:last] > threshold])
    if active < -55:
        raise UnusablePromptError("silent")
    pauses = np.r_[levels[2 : max(2, first)], levels[last:-2]]
    pauses = pauses[pauses > -95]  # digital silence tells nothing
    if pauses.size >= 5 and active - _mean_level(pauses) < 12:
        raise UnusablePromptError("noisy")
    wave = wave[first * FRAME : last * FRAME] * 10 ** ((LEVEL - active) / 20)
    if wave.size < 0.25 * SAMPLE_RATE:
        raise UnusablePromptError("short")
    wave = wave * min(1.0, 0.95 / np.abs(wave).max())
    return [_faded(piece) for piece in _split(wave.astype(np.float32))]


def _mean_level(levels):
    return 10 * np.log10(np.mean(10 ** (levels / 10)))


def _split(wave):
    """Halve at the quietest place near the middle until all is short enough."""
    if wave.size <= LONGEST:
        return [wave]
    levels = np.convolve(frame_levels(wave), np.ones(15) / 15, "same")
    start, stop = int(0.3 * levels.size), int(0.7 * levels.size)
    cut = (start + int(np.argmin(levels[start:stop]))) * FRAME
    return _split(wave[:cut]) + _split(wave[cut:])


def _faded(wave):
    ramp = np.linspace(0, 1, FRAME, dtype=np.float32)
    wave[:FRAME] *= ramp
    wave[-FRAME:] *= ramp[::-1]
    return wave


def collect(speaker, packages):
    """Read all prompts of a speaker.

    Arguments
    ---------
    speaker : Speaker
        Who.
    packages : pathlib.Path
        Unpacked packages.

    Returns
    -------
    groups : dict
        Group -> list of Prompt.
    dropped : dict
        Reason -> number of recordings.
    """
    groups, dropped, seen = {}, {}, set()
    for path, text, group in SOURCES[speaker.source](packages, speaker.languages):
        try:
            digest = hashlib.md5(path.read_bytes()).digest()
            if digest in seen:
                raise UnusablePromptError("duplicate")
            seen.add(digest)
            pieces = clean(read_prompt(path))
        except (UnusablePromptError, DamagedAudioError) as error:
            reason = str(error) if isinstance(error, UnusablePromptError) else "damaged"
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        source = path.relative_to(packages).as_posix()
        texts = [text] + [""] * (len(pieces) - 1)
        for number, piece in enumerate(pieces):
            prompt = Prompt(piece, texts[number], f"{source}#{number}")
            groups.setdefault(group, []).append(prompt)
    return groups, dropped


def chapters(groups):
    """Make a chapter of each large group of prompts; the small ones share one."""
    size = {name: sum(p.wave.size for p in prompts) for name, prompts in groups.items()}
    large = [prompts for name, prompts in groups.items() if size[name] >= MARGIN]
    small = [
        p for name, prompts in groups.items() if size[name] < MARGIN for p in prompts
    ]
    return large + ([small] if small else [])


def utterances(prompts, *key):
    """Join prompts in a hashed order to utterances of 4 to 12 s.

    Arguments
    ---------
    prompts : list of Prompt
        Of one speaker.
    *key : str or int
        What the order depends on.

    Returns
    -------
    list of list of Prompt
        Each lasts 4 to 12 s with 0.15 s between two; what does not fit is left out.
    """
    by_source = {prompt.source: prompt for prompt in prompts}
    order = [by_source[source] for source in hash_order(by_source, *key)]
    lengths = np.random.default_rng([len(order), *map(int, key)]).uniform
    done, current, size = [], [], 0
    wanted = lengths(4.5, 11) * SAMPLE_RATE
    for prompt in order:
        longer = size + prompt.wave.size + (GAP if current else 0)
        if longer > LONGEST:
            if size >= SHORTEST:
                done.append(current)
                current, size = [], 0
                longer = prompt.wave.size
            else:
                continue
        current, size = [*current, prompt], longer
        if size >= max(wanted, SHORTEST):
            done.append(current)
            current, size = [], 0
            wanted = lengths(4.5, 11) * SAMPLE_RATE
    return done + ([current] if size >= SHORTEST else [])


def joined(prompts):
    """Wave of an utterance: float32, (time,)."""
    silence = np.zeros(GAP, np.float32)
    waves = [part for prompt in prompts for part in (silence, prompt.wave)]
    return np.concatenate(waves[1:])
