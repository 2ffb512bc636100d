"""The two corpora on disk: LibriSpeech's folders and FSD50K's tables."""

import functools
import re
from pathlib import Path

import soundfile

from fedenhance.data.folders import Skipped, find_files
from fedenhance.data.tables import read_table, write_table

SPEECH_RATE, CLIP_RATE = 16000, 44100

SPEECH_SUBSETS = {
    "train": ("train-clean-100", "train-clean-360"),
    "valid": ("dev-clean",),
    "test": ("test-clean",),
}
HUMAN_VOICE = frozenset(
    {
        "Breathing",
        "Burping_and_eructation",
        "Chatter",
        "Cheering",
        "Child_speech_and_kid_speaking",
        "Chuckle_and_chortle",
        "Conversation",
        "Cough",
        "Crowd",
        "Crying_and_sobbing",
        "Female_singing",
        "Female_speech_and_woman_speaking",
        "Giggle",
        "Human_group_actions",
        "Human_voice",
        "Laughter",
        "Male_singing",
        "Male_speech_and_man_speaking",
        "Respiratory_sounds",
        "Screaming",
        "Shout",
        "Sigh",
        "Singing",
        "Sneeze",
        "Speech",
        "Speech_synthesizer",
        "Whispering",
        "Yell",
    }
)
"""Labels of clips that LibriFSD50K leaves out."""

PLACES = (
    "LibriSpeech/train-clean-100 or LibriSpeech/train-clean-360",
    *("LibriSpeech/dev-clean", "LibriSpeech/test-clean"),
    *("FSD50K/FSD50K.dev_audio", "FSD50K/FSD50K.eval_audio"),
    *(f"FSD50K/FSD50K.ground_truth/{part}.csv" for part in ("dev", "eval")),
)
LAYOUT = """expected
  LibriSpeech/{train-clean-100,train-clean-360,dev-clean,test-clean}/SPK/CHAP/*.flac
  FSD50K/FSD50K.dev_audio/*.wav and FSD50K/FSD50K.eval_audio/*.wav
  FSD50K/FSD50K.ground_truth/{dev,eval,vocabulary}.csv
(one train-clean folder is enough; recipes/LibriFSD50K/download.py fetches them all)"""

_UTTERANCE = re.compile(r"\d+-\d+-\d+")


class LayoutError(FileNotFoundError):
    """The data folder does not look as it must; the message says how it must."""


def check_layout(data_folder, places=PLACES, layout=LAYOUT):
    """See that files and folders are there.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where.
    places : iterable of str
        Relative paths; "a or b" where one is enough.
    layout : str
        What is expected, for the message.

    Raises
    ------
    LayoutError
        Names what is missing.
    """
    data_folder = Path(data_folder)
    if not data_folder.is_dir():
        raise LayoutError(f"There is no folder {data_folder}; {layout}")
    for place in places:
        if not any((data_folder / name).exists() for name in place.split(" or ")):
            raise LayoutError(f"{data_folder} has no {place}; {layout}")


def list_speech(data_folder, subsets):
    """List the utterances of subsets of LibriSpeech.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Holds LibriSpeech/.
    subsets : iterable of str
        Such as "dev-clean"; those that are absent are passed over.

    Returns
    -------
    files : dict
        Path -> (bytes, modification time in ns), by speaker, chapter and utterance.
    skipped : list of Skipped
        Files whose names are not those of utterances, and what `find_files` leaves out.
    """
    files, skipped = {}, []
    for subset in subsets:
        folder = f"LibriSpeech/{subset}"
        if not (Path(data_folder) / folder).is_dir():
            continue
        named, (found, left_out) = {}, find_files(data_folder, folder)
        skipped += left_out
        for path, status in found.items():
            if _UTTERANCE.fullmatch(Path(path).stem):
                named[path] = status
            else:
                skipped.append(Skipped(path, "name is not SPEAKER-CHAPTER-UTTERANCE"))
        order = sorted(named, key=lambda path: (utterance_key(path), path))
        files.update({path: named[path] for path in order})
    return files, skipped


def utterance_key(path):
    """Numbers of speaker, chapter and utterance.

    Example
    -------
    >>> utterance_key("LibriSpeech/dev-clean/84/121123/84-121123-0005.flac")
    (84, 121123, 5)
    """
    return tuple(map(int, Path(path).stem.split("-")))


def list_noises(data_folder, part):
    """List the clips of FSD50K that carry labels, none of them of a human voice.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Holds FSD50K/.
    part : str
        "dev" or "eval".

    Returns
    -------
    files : dict
        Path -> (bytes, modification time in ns).
    labels : dict
        Path -> tuple of labels, the most specific one first.
    skipped : list of Skipped
        Clips without labels, with labels that vocabulary.csv does not have (how would
        one know that it is not a voice?), labels without clips, and what `find_files`
        leaves out.
    human : list of str
        Paths of the clips that are left out for their labels.
    """
    tables = Path(data_folder) / "FSD50K" / "FSD50K.ground_truth"
    folder = f"FSD50K/FSD50K.{part}_audio"
    known = read_ground_truth(tables / f"{part}.csv")
    vocabulary = read_vocabulary(tables / "vocabulary.csv")
    files, labels, human = {}, {}, []
    present, skipped = find_files(data_folder, folder)
    for path, status in present.items():
        clip = known.get(Path(path).stem, ())
        unknown = [label for label in clip if vocabulary and label not in vocabulary]
        if not clip:
            skipped.append(Skipped(path, f"no labels in {part}.csv"))
        elif unknown:
            skipped.append(Skipped(path, f"unknown label {unknown[0]!r}"))
        elif HUMAN_VOICE.intersection(clip):
            human.append(path)
        else:
            files[path], labels[path] = status, clip
    stems = {Path(path).stem for path in present}
    absent = (name for name in known if name not in stems)
    skipped += [Skipped(f"{folder}/{name}.wav", "missing file") for name in absent]
    return files, labels, skipped, human


def read_ground_truth(path):
    """Read dev.csv or eval.csv of FSD50K.

    Arguments
    ---------
    path : pathlib.Path
        With columns fname and labels, at least.

    Returns
    -------
    dict
        Name -> tuple of labels.

    Raises
    ------
    ValueError
        When the columns are others, or a name comes twice with different labels.
    """
    clips = {}
    for row in read_table(path, ("fname", "labels")):
        parts = (label.strip() for label in (row["labels"] or "").split(","))
        labels = tuple(label for label in parts if label)
        if clips.setdefault(row["fname"], labels) != labels:
            raise ValueError(f"{path} labels {row['fname']} twice and differently.")
    return clips


def read_vocabulary(path):
    """Read the labels of vocabulary.csv; none when there is no such file."""
    if not path.exists():
        return frozenset()
    names = ("index", "label", "mid")  # it has no header
    return frozenset(row["label"] for row in read_table(path, fieldnames=names))


@functools.cache
def ontology():
    """Identifier and ancestors of labels in the AudioSet ontology, as FSD50K has them.

    ``labels.csv`` (CC BY-SA 4.0, as the ontology is) has those that the recipes give.

    Returns
    -------
    dict
        Label -> (identifier, ancestors).
    """
    return {
        row["label"]: (row["mid"], tuple(row["ancestors"].split()))
        for row in read_table(Path(__file__).with_name("labels.csv"))
    }


def with_ancestors(*labels):
    """Add the ancestors of labels, as in FSD50K's tables.

    Example
    -------
    >>> with_ancestors("Waves_and_surf", "Rain")
    ('Waves_and_surf', 'Ocean', 'Water', 'Rain')
    """
    families = ((label, *ontology()[label][1]) for label in labels)
    return tuple(dict.fromkeys(name for family in families for name in family))


def write_chapter(data_folder, subset, speaker, chapter, utterances):
    """Write a chapter as LibriSpeech has it: 16 kHz flac and transcripts.

    Arguments
    ---------
    data_folder : pathlib.Path
        LibriSpeech/ comes to lie in it.
    subset : str
        Such as "dev-clean".
    speaker, chapter : int
        Their numbers.
    utterances : iterable of (numpy.ndarray, str)
        Waves, (time,), and their words.

    Returns
    -------
    dict
        Name of the utterance -> seconds.
    """
    name = f"{speaker}-{chapter}"
    folder = data_folder / "LibriSpeech" / subset / str(speaker) / str(chapter)
    seconds, lines = {}, []
    for number, (wave, words) in enumerate(utterances):
        folder.mkdir(parents=True, exist_ok=True)
        utterance = f"{name}-{number:04d}"
        path = folder / f"{utterance}.flac"
        soundfile.write(path, wave, SPEECH_RATE, subtype="PCM_16")
        seconds[utterance] = wave.size / SPEECH_RATE
        lines.append(f"{utterance} {words}\n")
    if lines:
        text = "".join(lines)
        (folder / f"{name}.trans.txt").write_text(text, encoding="utf-8")
    return seconds


def write_clip(data_folder, part, name, wave):
    """Write a clip as FSD50K has it: 44.1 kHz wav.

    Arguments
    ---------
    data_folder : pathlib.Path
        FSD50K/ comes to lie in it.
    part : str
        "dev" or "eval".
    name : int
        Number of the clip.
    wave : numpy.ndarray
        (time,)
    """
    folder = data_folder / "FSD50K" / f"FSD50K.{part}_audio"
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", wave, CLIP_RATE, subtype="PCM_16")


def write_ground_truth(data_folder, clips):
    """Write the tables of FSD50K.

    Arguments
    ---------
    data_folder : pathlib.Path
        FSD50K/ comes to lie in it.
    clips : list of (int, tuple of str, str)
        Name, labels, and "train", "val" or "eval" of each.
    """
    folder = data_folder / "FSD50K" / "FSD50K.ground_truth"
    rows = [
        {
            "fname": name,
            "labels": ",".join(labels),
            "mids": ",".join(ontology()[label][0] for label in labels),
            "split": split,
        }
        for name, labels, split in clips
    ]
    columns = ["fname", "labels", "mids"]
    development = [row for row in rows if row["split"] != "eval"]
    evaluation = [row for row in rows if row["split"] == "eval"]
    write_table(folder / "dev.csv", development, [*columns, "split"])
    write_table(folder / "eval.csv", evaluation, columns)
    vocabulary = sorted({label for _, labels, _ in clips for label in labels})
    lines = (f"{i},{x},{ontology()[x][0]}\n" for i, x in enumerate(vocabulary))
    (folder / "vocabulary.csv").write_text("".join(lines), encoding="utf-8")
