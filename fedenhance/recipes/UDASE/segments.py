"""CHiME-5 cut into the segments of the UDASE task.

Which they are is in tables that come with the task (``json_files``): those parts of a
binaural recording in which its wearer does not speak, by the transcripts. The right
channel alone is taken. For training they are cut into chunks of 10 s; for development
and evaluation they lie in folders by how many speak at once. Folders, names and samples
are those of the task's own script (github.com/UDASE-CHiME2023/CHiME-5), and what it has
cut is taken as it is.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import soundfile
from tqdm import tqdm

from fedenhance.data.opening import DamagedAudioError, read_header
from fedenhance.data.tables import grouped
from fedenhance.recipes.audio_files import whole_folder

SOURCE, TABLES = "CHiME5", "UDASE-CHiME-5/json_files"
"""A user's copy of the corpus, and the task's tables, in the data folder."""

FOLDER = "UDASE/CHiME-5"
"""Of the segments, in the data folder."""

CHUNK, SHORTEST = 10, 3
"""Seconds of a chunk of training, and of the shortest segment."""

VAD_PERIOD = 0.016875
"""Seconds of a decision of the voice detector (Brouhaha) in the tables."""

RIGHT = 1
"""Channel; the left one is broken in some recordings."""


class Segment(NamedTuple):
    """A part of a recording: the file it comes from, that it goes to, and frames."""

    source: Path
    target: str
    start: int
    stop: int


def training_folder(vad):
    """Name the folder of training segments; with ``vad`` only where there is speech."""
    return "train/unlabeled_vad_10s" if vad else "train/unlabeled_10s"


def cut(data_folder, vad=False, jobs=None):
    """Write the segments that are not there yet.

    Arguments
    ---------
    data_folder : pathlib.Path
        Holds ``CHiME5/audio/`` and ``UDASE-CHiME-5/json_files/``.
    vad : bool
        For training, only where the voice detector has found speech.
    jobs : int, optional
        Threads; as many as cores by default.

    Returns
    -------
    int
        Segments that were written.

    Raises
    ------
    ValueError
        Naming a table or recording that is damaged, or not as it must be.
    """
    todo = [
        segment
        for segment in plan(data_folder, vad)
        if not (data_folder / FOLDER / segment.target).parent.exists()
    ]
    by_folder = grouped(todo, lambda segment: str(Path(segment.target).parent))
    for folder, segments in by_folder.items():
        of_file = grouped(segments, lambda segment: segment.source)
        with (
            whole_folder(data_folder / FOLDER / folder) as partial,
            ThreadPoolExecutor(jobs) as pool,
        ):
            written = pool.map(lambda own, to=partial: write(own, to), of_file.values())
            for _ in tqdm(written, folder, len(of_file), leave=False, disable=None):
                pass
    return len(todo)


def plan(data_folder, vad=False):
    """List all segments, reading tables and headers alone.

    Arguments and errors are those of :func:`cut`.

    Returns
    -------
    list of Segment
        Their targets are relative to ``UDASE/CHiME-5``.
    """
    segments = []
    for path in sorted((data_folder / TABLES).glob("*/*.json")):
        split, name = path.parent.name, path.stem
        session, wearer, kind = name.split("_", 2)
        rows = read_segments(path, vad and split == "train")
        if not rows:
            continue  # of a recording with two broken channels
        source = find_recording(data_folder, f"{session}_{wearer}")
        header = read_header(source)
        if header.channels <= RIGHT:
            raise ValueError(f"{source} has one channel; it must be binaural")
        rate = header.sample_rate
        for row in rows:
            start, stop = (round(row[key] * rate) for key in ("start", "end"))
            start, stop = (min(frame, header.frames) for frame in (start, stop))
            stem = f"{session}_{wearer}_{row['mix']}"
            if split != "train":
                if stop - start >= SHORTEST * rate:
                    target = f"{split}/{kind}/{stem}.wav"
                    segments.append(Segment(source, target, start, stop))
                continue
            spans = voiced(row["brouhaha_vad"], rate) if vad else [(0, stop - start)]
            for number, (first, last) in enumerate(chunks(spans, stop - start, rate)):
                target = f"{training_folder(vad)}/{stem}_{number}.wav"
                place = start + first, start + last
                segments.append(Segment(source, target, *place))
    return segments


def read_segments(path, vad=False):
    """Read a table of segments; ``start`` and ``end`` become seconds.

    Arguments
    ---------
    path : pathlib.Path
    vad : bool
        Whether it must have the decisions of the voice detector.

    Returns
    -------
    list of dict

    Raises
    ------
    ValueError
        Naming the table, and the segment that lacks something.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        needed = ("mix", "brouhaha_vad") if vad else ("mix",)
        for row in rows:
            row |= {key: seconds(row[key]) for key in ("start", "end")}
            row |= {key: row[key] for key in needed}
        return rows
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of segments, as UDASE-CHiME2023/CHiME-5 has them: "
            f"{type(error).__name__} {error}"
        ) from error


def seconds(text):
    """Convert hours, minutes and seconds; hundredths count, and nothing below.

    Example
    -------
    >>> seconds("1:02:03.45")
    3723.45
    """
    whole, _, part = text.partition(".")
    hours, minutes, rest = map(float, whole.split(":"))
    return hours * 3600 + minutes * 60 + rest + float(part[:2]) / 100


def find_recording(data_folder, name):
    """Find the one recording of a session and wearer, whatever split it was made for.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = sorted((data_folder / SOURCE / "audio").glob(f"*/{name}.wav"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{data_folder / SOURCE}/audio/{{train,dev,eval}}/ must hold {name}.wav "
            f"once, not {len(found)} times"
        )
    return found[0]


def voiced(decisions, rate):
    """Find where there is speech in a segment.

    As in the task's script, speech that begins with the last decision is none, and
    where the first decision alone is speech the next speech begins there.

    Arguments
    ---------
    decisions : str
        "1" for speech, one for each ``VAD_PERIOD``.
    rate : int
        In Hz.

    Returns
    -------
    list of (int, int)
        Frames, relative to the segment.

    Example
    -------
    >>> voiced("0110111", rate=1 / VAD_PERIOD)
    [(1, 3), (4, 6)]
    """
    last = len(decisions) - 1
    starts, stops = [], []
    for i, decision in enumerate(decisions):
        if decision != "1":
            continue
        if i == 0 or (i < last and decisions[i - 1] == "0"):
            starts.append(i)
        if i and (i == last or decisions[i + 1] == "0"):
            stops.append(i + (i < last))
    spans = zip(starts, stops, strict=False)
    return [tuple(round(i * VAD_PERIOD * rate) for i in span) for span in spans]


def chunks(spans, length, rate):
    """Cut spans of a segment into chunks; what is too short is left out.

    Arguments
    ---------
    spans : list of (int, int)
        Frames, relative to the segment.
    length : int
        Of the segment.
    rate : int

    Yields
    ------
    (int, int)

    Example
    -------
    >>> list(chunks([(0, 2), (5, 40)], length=29, rate=1))
    [(5, 15), (15, 25), (25, 29)]
    """
    for first, last in spans:
        last = min(last, length)
        for start in range(first, last, CHUNK * rate):
            stop = min(start + CHUNK * rate, last)
            if last - first >= SHORTEST * rate and stop - start >= SHORTEST * rate:
                yield start, stop


def write(segments, folder):
    """Write the segments of one recording into a folder."""
    source = segments[0].source
    try:
        with soundfile.SoundFile(source) as file:
            for segment in segments:
                file.seek(segment.start)
                wave = file.read(segment.stop - segment.start, always_2d=True)
                if len(wave) < segment.stop - segment.start:
                    raise DamagedAudioError(source, "shorter than its header says")
                target = folder / Path(segment.target).name
                soundfile.write(target, wave[:, RIGHT], file.samplerate, "PCM_16")
    except soundfile.LibsndfileError as error:
        raise DamagedAudioError(source, error) from error
