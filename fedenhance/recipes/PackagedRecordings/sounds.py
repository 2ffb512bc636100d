"""Sounds of the packages: read, labelled, trimmed, and put into splits.

``rules.csv`` gives labels to a sound by a regular expression on its name; the first
that fits counts, and no labels leave the sound out.
"""

import functools
import hashlib
import io
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import read_table
from fedenhance.recipes.audio_files import hash_order, read_mono
from fedenhance.recipes.LibriFSD50K.corpora import with_ancestors

SAMPLE_RATE = 44100
LONGEST = 15 * SAMPLE_RATE
SHORTEST = int(0.3 * SAMPLE_RATE)
QUIETEST = -60.0  # dBFS
MOST_CUTS = 6
SHARES = {"train": 0.7, "eval": 0.2, "val": 0.1}
AUDIO = {".ogg", ".oga", ".wav", ".flac"}


@dataclass
class Source:
    """An undecoded sound: `name` within its package, a path or bytes, its licence."""

    kind: str
    name: str
    data: Path | bytes
    licence: str


@dataclass
class Clip:
    """A sound ready to be written: 44.1 kHz mono, labels with their ancestors."""

    source: Source
    group: str
    labels: tuple
    wave: np.ndarray
    number: int


def _files(kind, root, licence):
    for path in sorted(root.rglob("*")):
        if path.suffix in AUDIO:
            name = path.relative_to(root).with_suffix("").as_posix()
            yield Source(kind, name, path, licence)


def tuxpaint(packages):
    """Sounds of the stamps; files with a language in their names are speech."""
    root = packages / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    spoken = re.compile(r"_desc|_[a-z]{2}(_[A-Z]{2})?$|zh_tw$")
    sounds = _files("tuxpaint", root, "GPL-2")
    return (sound for sound in sounds if not spoken.search(sound.name))


def opensfx(packages):
    """Sounds of OpenTTD's catalogue: pairs of offset and size, a title before each."""
    (path,) = packages.glob("openttd-opensfx/usr/share/games/openttd/baseset/*/*.cat")
    data = path.read_bytes()
    (first,) = struct.unpack_from("<I", data)
    for entry in range((first & 0x7FFFFFFF) // 8):
        offset, size = struct.unpack_from("<II", data, 8 * entry)
        offset &= 0x7FFFFFFF
        start = offset + 1 + data[offset]
        title = data[offset + 1 : start].decode("utf-8", "replace").strip("\0")
        licence = re.search(r"License: (Creative Commons [A-Za-z-]+ [\d.]+)", title)
        licence = licence[1] if licence else "CC-BY-SA-3.0"
        yield Source(
            "opensfx", title.split('"')[1], data[start : start + size], licence
        )


def sonicpi(packages):
    """Samples of Sonic Pi: CC0 where the copyright file says so, MIT elsewhere."""
    package = packages / "sonic-pi-samples"
    (path,) = package.glob("usr/share/doc/*/copyright")
    free = {
        name
        for paragraph in path.read_text(encoding="utf-8").split("\n\n")
        if re.search(r"^License: CC0", paragraph, re.M)
        for name in re.findall(r"etc/samples/(\w+)\.", paragraph)
    }
    for sound in _files("sonicpi", package / "usr/share/sonic-pi/samples", "MIT"):
        sound.licence = "CC0" if sound.name in free else "MIT"
        yield sound


def lugaru(packages):
    """Sounds of a game about a rabbit."""
    root = packages / "lugaru-data/usr/share/games/lugaru/Sounds"
    return _files("lugaru", root, "CC-BY-SA-3.0")


def freedesktop(packages):
    """Sounds of a desktop."""
    root = packages / "sound-theme-freedesktop/usr/share/sounds/freedesktop/stereo"
    licence = "see the package's copyright file (GPL-2+, CC-BY, CC-BY-SA)"
    return _files("freedesktop", root, licence)


def gcompris(packages):
    """Sounds in Qt's resource files: a tree of names, flags and offsets."""
    licence = "see the package's copyright file (GPL-3+, CC-BY-SA, CC0)"
    root = packages / "gcompris-qt-data/usr/share/gcompris-qt/rcc"
    for path in sorted(root.glob("*.rcc")):
        for name, data in _resources(path.read_bytes()):
            if Path(name).suffix in AUDIO:
                name = f"{path.stem}/{Path(name).stem}"
                yield Source("gcompris", name, data, licence)


def _resources(data):
    """Files of a Qt resource file that are not compressed."""
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    size = 22 if version >= 2 else 14
    todo = [0]
    while todo:
        entry = tree + todo.pop(0) * size
        name, flags = struct.unpack_from(">IH", data, entry)
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", data, entry + 6)
            todo += range(first, first + count)
        elif not flags & 5:
            (length,) = struct.unpack_from(">H", data, names + name)
            start = names + name + 6
            title = data[start : start + 2 * length].decode("utf-16-be")
            (offset,) = struct.unpack_from(">I", data, entry + 10)
            start = contents + offset
            (length,) = struct.unpack_from(">I", data, start)
            yield title, data[start + 4 : start + 4 + length]


KINDS = (tuxpaint, opensfx, sonicpi, lugaru, freedesktop, gcompris)


def more(packages, kinds=None):
    """Sounds of further games, and of a keyboard; of some kinds, or all."""
    licence = "see the package's copyright file"
    for kind, root in MORE_KINDS.items():
        if kinds is None or kind in kinds:
            yield from _files(kind, packages / root, licence)


MORE_KINDS = {
    "hedgewars": "hedgewars-data/usr/share/games/hedgewars/Data",
    "supertuxkart": "supertuxkart-data/usr/share/games/supertuxkart/data",
    "colobot": "colobot-common-sounds/usr/share/games/colobot/music",
    "buckle": "bucklespring-data/usr/share/buckle/wav",
    "rescue": "searchandrescue-data/usr/share/games/searchandrescue",
}


@functools.cache
def rules():
    """Rules of each kind of source: list of (pattern, labels)."""
    table = {}
    for row in read_table(Path(__file__).with_name("rules.csv")):
        rule = (re.compile(row["pattern"], re.I), tuple(row["labels"].split()))
        table.setdefault(row["source"], []).append(rule)
    return table


def label(kind, name):
    """Labels of a sound with their ancestors, the most specific first.

    Example
    -------
    >>> label("tuxpaint", "animals/birds/crow")
    ('Crow', 'Bird', 'Wild_animals', 'Animal')
    """
    for pattern, labels in rules()[kind]:
        if pattern.search(name):
            return with_ancestors(*labels)
    return ()


def level(wave):
    """Level in dBFS."""
    return 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) + 1e-12)


def clips_of(source):
    """Trim a sound, and cut a long one into clips of 15 s.

    Arguments
    ---------
    source : Source
        With labels.

    Returns
    -------
    list of Clip
        Empty when the sound is short or silent.
    """
    data = io.BytesIO(source.data) if isinstance(source.data, bytes) else source.data
    wave = read_mono(data, SAMPLE_RATE)
    heard = np.flatnonzero(np.abs(wave) > 1e-4)
    if not heard.size:
        return []
    wave = wave[heard[0] : heard[-1] + 1]
    if wave.size < SHORTEST or level(wave) < QUIETEST:
        return []
    wave = wave * min(1.0, 0.99 / np.abs(wave).max())
    labels = label(source.kind, source.name)
    # "drip 1", "drip 2b" are takes of one sound and stay in one split
    group = source.kind + ":" + re.sub(r"[-_. ]*\d+[a-z]?$", "", source.name)
    most = 1 if labels[0] == "Music" else MOST_CUTS
    cuts = [wave[i : i + LONGEST] for i in range(0, wave.size, LONGEST)][:most]
    return [
        Clip(source, group, labels, cut, number)
        for number, cut in enumerate(cuts)
        if level(cut) > QUIETEST and (number == 0 or cut.size >= 4 * SAMPLE_RATE)
    ]


def are_same(one, other):
    """Whether clips hold one sound under two names, encoded anew perhaps.

    Example
    -------
    >>> clips = [Clip(None, "", (), np.array(wave), 0) for wave in ([1, 2], [2.01, 4])]
    >>> are_same(*clips)
    True
    """
    one, other = one.wave, other.wave
    if one.size != other.size:
        return False
    return bool(one @ other > 0.99 * np.sqrt((one @ one) * (other @ other)))


def collect(packages, kinds=KINDS):
    """Read all sounds of the packages.

    Arguments
    ---------
    packages : pathlib.Path
        Unpacked packages.
    kinds : sequence of callable
        What finds the sounds of a package.

    Returns
    -------
    clips : list of Clip
        In a fixed order.
    left_out : list of (kind, name, reason)
        The others.
    """
    clips, left_out, seen = [], [], set()
    for kind in kinds:
        for source in kind(packages):
            if not label(source.kind, source.name):
                left_out.append((source.kind, source.name, "no labels"))
                continue
            raw = source.data if isinstance(source.data, bytes) else None
            digest = hashlib.md5(raw or source.data.read_bytes()).digest()
            try:
                found = clips_of(source) if digest not in seen else None
            except DamagedAudioError:
                left_out.append((source.kind, source.name, "damaged"))
                continue
            seen.add(digest)
            if not found:
                reason = "duplicate" if found is None else "short or silent"
                left_out.append((source.kind, source.name, reason))
            clips += found or []
    return clips, left_out


def assign_splits(clips, seed):
    """Split groups of clips 70/10/20, class by class.

    Arguments
    ---------
    clips : list of Clip
        All clips.
    seed : int
        Decides which group goes where.

    Returns
    -------
    dict
        Group -> "train", "val" or "eval".
    """
    classes = {}
    for clip in clips:
        classes.setdefault(clip.labels[0], {})[clip.group] = None
    splits, sizes = {}, dict.fromkeys(SHARES, 0)
    for name in sorted(classes):
        for group in hash_order(classes[name], seed, name):
            if group not in splits:
                # the split that lags behind its share most
                total = len(splits) + 1
                split = max(SHARES, key=lambda s: SHARES[s] * total - sizes[s])  # noqa: B023
                splits[group] = split
                sizes[split] += 1
    return splits
