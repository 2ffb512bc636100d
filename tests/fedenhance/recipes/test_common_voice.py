"""From Common Voice's tables to manifests."""

import functools

import pytest
import soundfile

from fedenhance.data import opening
from fedenhance.data.tables import read_table
from fedenhance.recipes import preparation, transcribed
from fedenhance.recipes.CommonVoice.ASR import prepare as common_voice
from tests import damage
from tests.fedenhance.recipes.conftest import wave

HEADER = "client_id\tpath\tsentence\tup_votes"


def write_table(path, lines, header=HEADER):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def corpus(tmp_path):
    """Four speakers with two clips each, as mp3, wav and flac."""
    folder = tmp_path / "cv"
    (folder / "clips").mkdir(parents=True)
    tables = {"train": [], "dev": [], "test": []}
    for number, (speaker, split) in enumerate(
        [("ann", "train"), ("bob", "train"), ("cid", "dev"), ("dot", "test")]
    ):
        for clip in range(2):
            suffix = ("mp3", "wav", "flac")[(2 * number + clip) % 3]
            name = f"common_voice_{speaker}_{clip}.{suffix}"
            soundfile.write(folder / "clips" / name, wave(1.0, 16000), 16000)
            tables[split].append(f'{speaker}\t{name}\tIt’s "{speaker}", {clip}.\t2')
    for split, lines in tables.items():
        write_table(folder / f"{split}.tsv", lines)
    write_table(folder / "validated.tsv", sum(tables.values(), []))
    return folder


@pytest.fixture
def prepare(corpus, tmp_path):
    def prepare(**options):
        return common_voice.prepare(corpus, tmp_path / "out", **options)

    return prepare


def test_each_clip_becomes_a_row(prepare, tmp_path):
    prepare()
    rows = read_table(tmp_path / "out/train.csv")
    assert [row["ID"] for row in rows] == [
        f"common_voice_{speaker}_{clip}"
        for speaker in ("ann", "bob")
        for clip in (0, 1)
    ]
    assert rows[0]["wav"] == "$data_root/clips/common_voice_ann_0.mp3"
    assert (rows[0]["spk_id"], rows[0]["wrd"]) == ("ann", "IT'S ANN 0")
    assert {float(row["duration"]) for row in rows} == {1.0}
    assert read_table(tmp_path / "out/skipped.csv") == []


def test_validated_shares_nobody_with_the_other_tables(prepare, tmp_path):
    prepare(train="validated.tsv")
    assert {r["spk_id"] for r in read_table(tmp_path / "out/train.csv")} == {
        "ann",
        "bob",
    }
    assert len(read_table(tmp_path / "out/skipped.csv")) == 4


def test_speakers_are_held_out_where_there_is_one_table(prepare, tmp_path):
    prepare(train="validated.tsv", valid=None, test=None, held_out=0.25)
    splits = {
        split: {row["spk_id"] for row in read_table(tmp_path / f"out/{split}.csv")}
        for split in ("train", "valid", "test")
    }
    assert {split: len(speakers) for split, speakers in splits.items()} == {
        "train": 2,
        "valid": 1,
        "test": 1,
    }
    assert len(set.union(*splits.values())) == 4


def test_a_client_needs_no_other_table(prepare, tmp_path):
    record = prepare(valid=None, test=None, held_out=0)
    assert list(record["counts"]) == ["train"]
    assert not (tmp_path / "out/valid.csv").exists()


def test_a_table_with_commas(prepare, corpus, tmp_path):
    header = "client_id,path,sentence"
    lines = ['ann,common_voice_ann_0,"Oui, non"']
    write_table(corpus / "mine.csv", lines, header)
    prepare(train="mine.csv")
    (row,) = read_table(tmp_path / "out/train.csv")
    assert row["wrd"] == "OUI NON"
    assert row["wav"].endswith("ann_0.mp3")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ann\tnone.mp3\tHello\t2", "missing file"),
        ("ann\tbroken.mp3\tHello\t2", "damaged"),
        ("ann\tcommon_voice_ann_1.wav\t…?!\t2", "empty transcript"),
        ("ann\tcommon_voice_ann_1.wav\tÇa\t2", "unknown character 'Ç'"),
        ("ann\tlong.wav\tHello\t2", "longer than 2"),
        ("ann\tcommon_voice_ann_0.mp3\tHello\t2", "the same ID twice"),
    ],
)
def test_what_is_left_out_is_named(prepare, corpus, tmp_path, line, reason):
    (corpus / "clips" / "broken.mp3").write_bytes(b"no audio" * 100)
    soundfile.write(corpus / "clips" / "long.wav", wave(3.0, 16000), 16000)
    write_table(corpus / "train.tsv", ["ann\tcommon_voice_ann_0.mp3\tHello\t2", line])
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'0123456789"
    record = prepare(alphabet=letters, max_duration=2.0)
    assert record["counts"]["train"]["utterances"] == 1
    (skipped,) = read_table(tmp_path / "out/skipped.csv")
    assert skipped["path"] == line.split("\t")[1]
    assert reason in skipped["reason"]


def test_nothing_is_done_twice(prepare, tmp_path):
    prepare()
    before = (tmp_path / "out/train.csv").stat().st_mtime_ns
    prepare()
    assert (tmp_path / "out/train.csv").stat().st_mtime_ns == before
    prepare(case="lower")
    assert read_table(tmp_path / "out/train.csv")[0]["wrd"] == "it's ann 0"


def test_clients_hold_whole_speakers(prepare, tmp_path):
    prepare(clients=2)
    holders = [
        {row["spk_id"] for row in read_table(tmp_path / f"out/client{number}.csv")}
        for number in (0, 1)
    ]
    assert holders == [{"ann"}, {"bob"}]


def test_a_missing_table_is_named(prepare):
    with pytest.raises(FileNotFoundError, match=r"other\.tsv"):
        prepare(train="other.tsv")


def test_a_missing_column_is_named(prepare, corpus):
    write_table(corpus / "train.tsv", ["ann\ta.mp3"], header="client_id\tpath")
    with pytest.raises(ValueError, match="sentence"):
        prepare()


def test_a_split_with_nothing_usable_says_why(prepare, corpus):
    write_table(corpus / "train.tsv", ["ann\tnone.mp3\tHello\t2"])
    with pytest.raises(ValueError, match="train has no usable.*missing file"):
        prepare()


def test_the_command_line(corpus, tmp_path):
    run = functools.partial(preparation.main, common_voice.prepare, transcribed.prepare)
    run(
        [str(corpus), str(tmp_path / "out"), "--train", "validated.tsv"]
        + ["--valid", "null", "--test", "null", "--held_out", "0.25"],
    )
    assert len(read_table(tmp_path / "out/train.csv")) == 4
    with pytest.raises(SystemExit, match="error: There is no"):
        folders = [str(tmp_path / "none"), str(tmp_path / "out")]
        run(folders)


def test_every_kind_of_damage_is_named_and_counted(
    prepare, corpus, tmp_path, monkeypatch
):
    names = [path.name for path in damage.write(corpus / "clips", damage.DAMAGED)]
    names.append(damage.stream(corpus / "clips/stream.flac").name)
    lines = (corpus / "train.tsv").read_text().splitlines()[1:]
    write_table(
        corpus / "train.tsv", lines + [f"ann\t{name}\tFox\t2" for name in names]
    )
    monkeypatch.setattr(opening, "ffmpeg", lambda: None)
    record = prepare()
    # Of samples that are not finite, their reader says so.
    kept = {"stream.flac", "nan.wav", "infinite.wav", "loud.wav"}
    assert record["counts"]["train"]["utterances"] == 4 + len(kept)
    skipped = {r["path"]: r["reason"] for r in read_table(tmp_path / "out/skipped.csv")}
    assert skipped.keys() == {*names} - kept
    assert skipped["cut.wav"].startswith("cut short")
    assert skipped["text.m4a"] == "needs ffmpeg, which is not installed"


@pytest.mark.parametrize("change", ["a clip is added", "a clip is other"])
def test_changed_clips_are_prepared_again(prepare, corpus, change):
    found = next((corpus / "clips").glob("common_voice_bob_1.*"))
    kept = found.rename(corpus / "kept")
    if change == "a clip is other":
        soundfile.write(found, wave(3.0, 16000), 16000)
    before = prepare()
    assert prepare() == before
    found.unlink(missing_ok=True)
    kept.rename(found)
    after = prepare()
    assert after["counts"]["train"] != before["counts"]["train"]
