"""Recordings as they arrive: damaged in every way, at random, or only unusual."""

import os

import numpy as np
import soundfile

RATE = 16000


def noise(seconds=0.5, seed=0):
    """White noise, ``(time,)``, as float32."""
    wave = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return wave.astype(np.float32)


def save(path, wave=None, **options):
    """Write a sound file, and return its bytes to be damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise() if wave is None else wave, RATE, **options)
    return bytearray(path.read_bytes())


def stream(path, wave=None):
    """Write a FLAC that does not know its length, as a program that writes a pipe."""
    data = save(path, wave)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def _cut(path, **options):
    data = save(path, **options)
    path.write_bytes(data[: len(data) // 2])


def _loud(path, value):
    wave = noise()
    wave[100] = value
    save(path, wave, subtype="FLOAT")


def _hole(path):
    data = save(path)
    middle = len(data) // 2
    data[middle - 2000 : middle + 2000] = bytes(4000)
    path.write_bytes(data)


def _rate(path):
    data = save(path)
    data[24:28] = (1).to_bytes(4, "little")
    path.write_bytes(data)


def _cut_array(path):
    np.save(path, np.zeros(8000, np.int16))
    path.write_bytes(path.read_bytes()[:4000])


DAMAGED = {
    "nothing.wav": lambda path: path.write_bytes(b""),
    "text.wav": lambda path: path.write_text("not audio"),
    "silent.wav": lambda path: save(path, np.zeros(0)),
    "cut.wav": _cut,
    "cut_float.wav": lambda path: _cut(path, subtype="FLOAT"),
    "cut.aiff": _cut,
    "cut.au": _cut,
    "cut.flac": _cut,
    "cut.mp3": _cut,
    "nan.wav": lambda path: _loud(path, np.nan),
    "infinite.wav": lambda path: _loud(path, -np.inf),
    "loud.wav": lambda path: _loud(path, 1e30),
    "hole.flac": _hole,
    "rate.wav": _rate,
    "text.m4a": lambda path: path.write_bytes(b"\0\0\0 ftypM4A "),
    "folder.wav": lambda path: path.mkdir(),
    "pipe.wav": os.mkfifo,
    "dead.wav": lambda path: path.symlink_to("nowhere.wav"),
    "circle.wav": lambda path: path.symlink_to("circle.wav"),
}
"""Name -> what writes such a file."""

ARRAYS = {
    "nothing.npy": lambda path: path.write_bytes(b""),
    "float.npy": lambda path: np.save(path, np.zeros(8000)),
    "matrix.npy": lambda path: np.save(path, np.zeros((2, 8000), np.int16)),
    "scalar.npy": lambda path: np.save(path, np.int16(1)),
    "objects.npy": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "cut.npy": _cut_array,
    "header.npy": lambda path: path.write_bytes(b"\x93NUMPY\1\0\4\0({[("),
}


def write(folder, names=None):
    """Write damaged files; return their paths."""
    kinds = DAMAGED | ARRAYS
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or kinds:
        kinds[name](folder / name)
    return [folder / name for name in names or kinds]


KINDS = [
    *(("wav", kind) for kind in ("PCM_16", "FLOAT", "PCM_24", "IMA_ADPCM", "ULAW")),
    *(("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", None), ("aiff", "PCM_16")),
    *(("au", "PCM_16"), ("w64", "PCM_16"), ("caf", "PCM_16"), ("npy", None)),
]


def write_random(path, rng):
    """Write a file of a random kind, damaged at random places; return its path."""
    suffix, subtype = KINDS[rng.integers(len(KINDS))]
    path = path.with_suffix(f".{suffix}")
    if suffix == "npy":
        np.save(path, np.zeros(8000, np.int16))
        data = bytearray(path.read_bytes())
    else:
        data = save(path, subtype=subtype)
    where = rng.choice(["head", "anywhere", "end", "middle", "nothing"])
    if where == "end":
        data = data[: rng.integers(len(data))]
    elif where == "middle":
        first, last = sorted(rng.integers(len(data), size=2))
        del data[first:last]
    elif where != "nothing":
        within = min(128, len(data)) if where == "head" else len(data)
        for place in rng.integers(within, size=rng.integers(1, 20)):
            data[place] = rng.integers(256)
    path.write_bytes(data)
    return path


MANIFEST = "ID,duration,spk_id,speech,noise,speech_start,speech_stop\n" + "".join(
    f"u{i},0.5,p{i % 2},$data_root/s{i}.wav,$data_root/n{i}.wav,0,8000\n"
    for i in range(4)
)


def write_random_manifest(path, rng):
    """Write a manifest that somebody, or something, has edited."""
    data = bytearray(MANIFEST, "utf-8")
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(data)))
        piece = rng.choice(
            [b"", b",", b";", b'"', b"\n", b"\0", b"\xff", b"-", b"1e9", b"nan", b" "]
        )
        data[place : place + int(rng.integers(3))] = piece
    if rng.random() < 0.2:
        data = data.replace(b",", b";")
    path.write_bytes(data)
    return path
