"""Laws of the preparation of LibriFSD50K."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import soundfile

from fedenhance.data.audio import read_segment
from fedenhance.data.tables import read_table
from fedenhance.recipes import audio_files
from fedenhance.recipes.LibriFSD50K import prepare
from fedenhance.recipes.LibriFSD50K.corpora import HUMAN_VOICE, LayoutError
from tests import damage
from tests.fedenhance.recipes.conftest import LABELS, make_corpus, write, write_truth

SPLITS = ("train", "valid", "test")


def read(folder, name):
    return read_table(folder / name)


def manifests(folder):
    return {name: read(folder, f"{name}.csv") for name in SPLITS}


def contents(folder):
    names = [f"{split}.csv" for split in SPLITS] + ["skipped.csv"]
    return {name: (folder / name).read_bytes() for name in names}


def run(data, save, **options):
    return prepare.prepare(data, save, built_in_corpus=None, jobs=2, **options)


def reasons(folder):
    return {
        row["path"].split("/")[-1]: row["reason"] for row in read(folder, "skipped.csv")
    }


def test_directory_order_does_not_matter(tmp_path, monkeypatch):
    one = make_corpus(tmp_path / "one")
    two = make_corpus(tmp_path / "two", reverse=True)
    run(one, tmp_path / "a")
    scan = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = sorted(scan(path), key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(os, "scandir", Reversed)
    run(two, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_seed_decides(shared_corpus, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(shared_corpus, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def _die_at(number, data, save, storage):
    """Run a preparation that is killed when it puts its number-th file in place."""
    count, replace = 0, os.replace

    def deadly(*arguments):
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)

    os.replace = deadly
    run(data, save, storage=storage)


@pytest.mark.parametrize("storage", ["files", "packed"])
def test_killed_and_resumed_gives_the_same(storage, shared_corpus, tmp_path):
    # The data folder is one for both: arrays have the same names in the manifests.
    data = tmp_path / "data"
    data.mkdir()
    for name in ("LibriSpeech", "FSD50K"):
        (data / name).symlink_to(shared_corpus / name)
    run(data, tmp_path / "whole", storage=storage)
    wanted = contents(tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    for number in range(1, 6):
        if (data / "LibriFSD50K").exists():
            (data / "LibriFSD50K").rename(data / f"old{number}")
        save = tmp_path / f"killed{number}"
        process = context.Process(target=_die_at, args=(number, data, save, storage))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not (save / "prepare.json").exists()
        run(data, save, storage=storage)
        assert contents(save) == wanted


def test_nothing_is_done_twice(corpus, tmp_path):
    first = run(corpus, tmp_path)
    before = (tmp_path / "train.csv").stat().st_mtime_ns
    assert run(corpus, tmp_path) == first
    assert (tmp_path / "train.csv").stat().st_mtime_ns == before
    write(corpus / "LibriSpeech/train-clean-100/19/7/19-7-0009.flac", 9.0, 16000)
    assert run(corpus, tmp_path)["counts"]["train"]["utterances"] == 7


def test_a_changed_manifest_is_written_again(corpus, tmp_path):
    run(corpus, tmp_path)
    wanted = contents(tmp_path)
    (tmp_path / "valid.csv").write_text("ID\n")
    run(corpus, tmp_path)
    assert contents(tmp_path) == wanted


def test_splits_share_no_speaker_and_no_clip(shared_corpus, tmp_path):
    run(shared_corpus, tmp_path)
    for column in ("spk_id", "noise_id"):
        sets = [{row[column] for row in rows} for rows in manifests(tmp_path).values()]
        assert all(sets)
        assert len(set.union(*sets)) == sum(map(len, sets))


def test_no_human_voice_is_a_noise(shared_corpus, tmp_path):
    record = run(shared_corpus, tmp_path)
    assert len(HUMAN_VOICE) == 28
    assert record["human_voice"] == 2
    clips = {row["noise_id"] for rows in manifests(tmp_path).values() for row in rows}
    assert clips.isdisjoint({"100", "200"})


@pytest.mark.parametrize("storage", ["files", "packed"])
def test_every_chunk_is_whole_or_marked(storage, corpus, tmp_path):
    run(corpus, tmp_path, storage=storage)
    marked = 0
    for row in (row for rows in manifests(tmp_path).values() for row in rows):
        for side in ("speech", "noise"):
            start, stop = int(row[f"{side}_start"]), int(row[f"{side}_stop"])
            path = row[side].replace("$data_root", str(corpus))
            rate = 16000 if path.endswith(".npy") else soundfile.info(path).samplerate
            if side in row["padded"].split():
                marked += 1
                assert stop - start == 3 * rate
            else:
                assert stop - start == 4 * rate
            assert len(read_segment(path, start, stop, 16000, 64000)) == 64000
    assert marked > 0


def test_storages_hold_the_same_audio(corpus, tmp_path):
    tables = {}
    for storage in ("files", "packed"):
        run(corpus, tmp_path / storage, storage=storage)
        tables[storage] = read(tmp_path / storage, "test.csv")
    for rows in zip(*tables.values(), strict=True):
        for side, least in (("speech", 0.9999), ("noise", 0.98)):
            files, packed = (
                read_segment(
                    row[side].replace("$data_root", str(corpus)),
                    int(row[f"{side}_start"]),
                    int(row[f"{side}_stop"]),
                    16000,
                    64000,
                )
                for row in rows
            )
            # Of white noise, resamplers keep unequal rests.
            assert np.corrcoef(files, packed)[0, 1] > least


def test_packed_audio_is_shared_between_experiments(corpus, tmp_path):
    for name in ("a", "b"):
        run(corpus, tmp_path / name, storage="packed")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(list((corpus / "LibriFSD50K").iterdir())) == 1


def test_read_only_data_are_packed_elsewhere(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    run(corpus, tmp_path, storage="packed")
    assert not (corpus / "LibriFSD50K").exists()
    assert read(tmp_path, "test.csv")[0]["speech"].startswith(str(tmp_path))


def test_lost_packed_audio_is_made_again(corpus, tmp_path):
    run(corpus, tmp_path, storage="packed")
    (corpus / "LibriFSD50K").rename(corpus / "lost")
    run(corpus, tmp_path, storage="packed")
    assert (corpus / "LibriFSD50K").exists()


def test_as_many_rows_as_the_shorter_has_chunks(shared_corpus, tmp_path):
    run(shared_corpus, tmp_path)
    for rows in manifests(tmp_path).values():
        for clip in {row["noise_id"] for row in rows}:
            mine = [row for row in rows if row["noise_id"] == clip]
            utterances = {row["ID"].rsplit("_", 1)[0] for row in mine}
            chunks = 1 if int(clip) % 3 == 0 else 2
            assert len(mine) == chunks * len(utterances)


def test_looped_noise_gives_all_chunks_of_the_speech(shared_corpus, tmp_path):
    record = run(shared_corpus, tmp_path, loop_noise=True)
    assert record["counts"]["train"]["chunks"] == 2 * 6


def test_utterances_without_noise_are_left_out(shared_corpus, tmp_path):
    record = run(shared_corpus, tmp_path, reuse_noises=False)
    # 9 noises are left of ten: 8 train, and one validates the three utterances of dev
    assert record["counts"]["valid"]["utterances"] == 1
    assert record["unpaired_utterances"] == {"train": 0, "valid": 2, "test": 0}


def test_reused_noises_take_in_every_utterance(shared_corpus, tmp_path):
    record = run(shared_corpus, tmp_path)  # the default of a small corpus
    assert record["counts"]["valid"]["utterances"] == 3
    assert record["counts"]["valid"]["noises"] == 1


def test_labels_are_the_most_specific(shared_corpus, tmp_path):
    run(shared_corpus, tmp_path)
    for rows in manifests(tmp_path).values():
        for row in rows:
            assert row["noise_class"] == ("Rain", "Bark")[int(row["noise_id"]) % 2]


def test_unusable_files_are_skipped_by_name(corpus, tmp_path):
    speech = corpus / "LibriSpeech/train-clean-100/19/7"
    clips = corpus / "FSD50K/FSD50K.dev_audio"
    cut = (speech / "19-7-0000.flac").read_bytes()
    (speech / "19-7-0000.flac").write_bytes(cut[: len(cut) // 2])
    (speech / "19-7-0001.flac").write_bytes(b"")
    write(speech / "notes.flac", 5.0, 16000)
    soundfile.write(clips / "101.wav", np.zeros(0), 44100)
    (clips / "102.wav").unlink()
    write(clips / "999.wav", 5.0, 44100)
    write(clips / "998.wav", 5.0, 44100)
    rows = [(clip, LABELS["Bark" if clip % 2 else "Rain"]) for clip in range(101, 110)]
    write_truth(corpus, "dev", [*rows, (998, "Barkk,Dog")])
    record = run(corpus, tmp_path)
    found = reasons(tmp_path)
    assert found.pop("19-7-0000.flac").startswith(("damaged", "cut short"))
    assert found == {
        "19-7-0001.flac": "empty file",
        "notes.flac": "name is not SPEAKER-CHAPTER-UTTERANCE",
        "101.wav": "no samples",
        "102.wav": "missing file",
        "999.wav": "no labels in dev.csv",
        "998.wav": "unknown label 'Barkk'",
        "100.wav": "no labels in dev.csv",
    }
    assert record["skipped"] == 8
    used = {row["ID"].rsplit("_", 1)[0] for row in read(tmp_path, "train.csv")}
    assert used == {"19-7-0002", "103-7-0000", "103-7-0001", "103-7-0002"}


def test_every_kind_of_damage_is_skipped_by_name(corpus, tmp_path):
    chapter = corpus / "LibriSpeech/train-clean-100/19/7"
    names = {}
    for number, (name, spoil) in enumerate(damage.DAMAGED.items(), 100):
        if name.endswith(".wav"):
            names[f"19-7-0{number}.wav"] = name
            spoil(chapter / f"19-7-0{number}.wav")
    run(corpus, tmp_path, storage="packed")
    found = reasons(tmp_path)
    for path, name in names.items():
        assert path in found or name == "folder.wav", name
    used = {row["ID"].rsplit("_", 1)[0] for row in read(tmp_path, "train.csv")}
    assert not used & {path.removesuffix(".wav") for path in names}


def test_damage_in_the_middle_is_skipped_by_name(corpus, tmp_path):
    path = corpus / "LibriSpeech/test-clean/61/7/61-7-0001.flac"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 3000 : middle + 3000] = bytes(6000)
    path.write_bytes(data)
    run(corpus, tmp_path, storage="packed")
    assert reasons(tmp_path)["61-7-0001.flac"].startswith("damaged")
    used = {row["ID"].rsplit("_", 1)[0] for row in read(tmp_path, "test.csv")}
    assert used == {"61-7-0000", "61-7-0002"}


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (8000, 2)])
def test_positions_are_in_the_files_own_rate(rate, channels, corpus, tmp_path):
    path = corpus / "FSD50K/FSD50K.eval_audio/202.wav"
    write(path, 8.5, rate, channels=channels)
    run(corpus, tmp_path, loop_noise=True)
    rows = [row for row in read(tmp_path, "test.csv") if row["noise_id"] == "202"]
    positions = [(int(row["noise_start"]), int(row["noise_stop"])) for row in rows]
    assert positions == [(0, 4 * rate), (4 * rate, 8 * rate)]
    run(corpus, tmp_path / "packed", storage="packed", loop_noise=True)
    rows = read(tmp_path / "packed", "test.csv")
    row = next(row for row in rows if row["noise_id"] == "202")
    assert int(row["noise_stop"]) - int(row["noise_start"]) == 64000


def test_names_may_have_any_letters_and_tables_a_byte_order_mark(corpus, tmp_path):
    clips = corpus / "FSD50K/FSD50K.dev_audio"
    (clips / "101.wav").rename(clips / "grüße-雨.wav")
    rows = [("grüße-雨", LABELS["Rain"])]
    rows += [(clip, LABELS["Bark"]) for clip in range(102, 110)]
    write_truth(corpus, "dev", rows, encoding="utf-8-sig")
    run(corpus, tmp_path)
    rows = [row for rows in manifests(tmp_path).values() for row in rows]
    assert "grüße-雨" in {row["noise_id"] for row in rows}


def test_a_table_without_labels_is_refused_by_name(corpus, tmp_path):
    table = corpus / "FSD50K/FSD50K.ground_truth/dev.csv"
    table.write_text("name,label\n100,Rain\n")
    with pytest.raises(ValueError, match=r"dev\.csv lacks .*'fname', 'labels'"):
        run(corpus, tmp_path)


def test_a_speaker_in_two_splits_is_refused_by_name(corpus, tmp_path):
    write(corpus / "LibriSpeech/test-clean/19/8/19-8-0000.flac", 9.0, 16000)
    with pytest.raises(ValueError, match="spk_id 19 is both in train and in test"):
        run(corpus, tmp_path)


def test_an_empty_split_is_refused_by_name(corpus, tmp_path):
    for path in (corpus / "FSD50K/FSD50K.eval_audio").glob("*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="no usable noise for test"):
        run(corpus, tmp_path)


def test_a_missing_folder_is_told_with_the_layout(tmp_path):
    with pytest.raises(LayoutError, match=r"(?s)no folder .*nowhere.*dev_audio"):
        run(tmp_path / "nowhere", tmp_path / "save")


@pytest.mark.parametrize(
    "missing",
    [
        "LibriSpeech/train-clean-100",
        "LibriSpeech/dev-clean",
        "FSD50K/FSD50K.eval_audio",
        "FSD50K/FSD50K.ground_truth/eval.csv",
    ],
)
def test_a_wrong_layout_names_what_is_missing(missing, corpus, tmp_path):
    (corpus / missing).rename(corpus / "elsewhere")
    with pytest.raises(LayoutError, match=f"has no {missing}"):
        run(corpus, tmp_path)


def test_options_that_cannot_be_are_refused(shared_corpus, tmp_path):
    with pytest.raises(
        ValueError, match="storage must be one of files, packed: 'chunks'"
    ):
        run(shared_corpus, tmp_path, storage="chunks")
    with pytest.raises(ValueError, match="train_share"):
        run(shared_corpus, tmp_path, train_share=1.0)


@pytest.mark.parametrize("named", [True, False])
def test_the_built_in_corpus_is_made_when_it_is_wanted(
    named, shared_corpus, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(
        prepare.built_in, "generate", lambda folder: made.append(folder) or folder
    )
    data = str(shared_corpus) if named else None
    prepare.prepare(data, tmp_path, built_in_corpus=str(shared_corpus))
    assert made == [str(shared_corpus)]


def test_the_command_line_tells_faults_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="^error: There is no folder"):
        prepare.main([str(tmp_path / "nowhere"), str(tmp_path)])


def test_hash_order_is_that_of_any_machine():
    # printf "1|a" | sha256sum: d55e..., b: 1d34..., c: d2b0..., d: c351...
    assert audio_files.hash_order(["a", "b", "c", "d"], 1) == ["b", "d", "c", "a"]


def test_train_comes_in_the_order_of_numbers(shared_corpus, tmp_path):
    run(shared_corpus, tmp_path)
    ids = [row["ID"] for row in read(tmp_path, "train.csv")]
    assert ids == sorted(ids, key=lambda name: (*map(int, name[:-2].split("-")), name))
