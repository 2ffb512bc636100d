"""Laws of the manifests of a bare folder."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fedenhance.commands import manifests as command
from fedenhance.recipes.BareFolder import prepare as manifests
from fedenhance.recipes.BareFolder.pauses import without
from tests.fedenhance.recipes.conftest import write


def rows(folder, split):
    with open(folder / f"{split}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def every_row(folder):
    return [row for split in ("train", "valid", "test") for row in rows(folder, split)]


@pytest.fixture
def folder(tmp_path):
    """Seven people, of any rate and channels, and what cannot be used."""
    for number in range(7):
        for take in range(2):
            rate, channels = ((16000, 1), (44100, 2))[take]
            path = tmp_path / f"in/p{number}/day 1/take {take}.flac"
            write(path, 3.0, rate, 10 * number + take, channels)
    write(tmp_path / "in/p0/short.wav", 0.5, 16000)
    shutil.copy(tmp_path / "in/p0/day 1/take 0.flac", tmp_path / "in/p1/copy.flac")
    soundfile.write(tmp_path / "in/p1/silent.wav", np.zeros(32000), 16000)
    (tmp_path / "in/p2/broken.wav").write_bytes(b"RIFF")
    return tmp_path / "in"


def test_people_are_sub_folders_and_no_one_is_in_two_splits(folder, tmp_path):
    record = manifests.prepare(
        folder, tmp_path / "m", row_seconds=2.0, held_out="people"
    )
    people = {
        s: {row["spk_id"] for row in rows(tmp_path / "m", s)} for s in record["counts"]
    }
    assert sorted(map(len, people.values())) == [1, 1, 5]
    assert len(set.union(*people.values())) == 7
    # 14 recordings of 3 s, each in two rows of 1.5 s
    assert [float(row["duration"]) for row in every_row(tmp_path / "m")] == [1.5] * 28
    assert len({row["ID"] for row in every_row(tmp_path / "m")}) == 28


def test_files_of_all_people_are_held_out_unless_people_are(folder, tmp_path):
    manifests.prepare(folder, tmp_path / "m", row_seconds=2.0)
    sources = [
        {row["source"] for row in rows(tmp_path / "m", s)}
        for s in ("train", "valid", "test")
    ]
    assert [*map(len, sources)] == [10, 2, 2] and len(set.union(*sources)) == 14
    with pytest.raises(ValueError, match="held_out is files or people, not persons"):
        manifests.prepare(folder, tmp_path / "m", held_out="persons")
    shutil.move(folder / "p0", tmp_path / "one/p0")
    with pytest.raises(ValueError, match="takes three people, not 1"):
        manifests.prepare(
            tmp_path / "one", tmp_path / "n", row_seconds=1.0, held_out="people"
        )


def test_a_long_file_among_short_ones_is_not_held_out_as_a_whole():
    made = [
        {"ID": f"{file}_{n}", "spk_id": "a", "source": str(file)}
        for file in range(10)
        for n in range(90 if file == 0 else 1)
    ]
    for seed in range(10):
        tables, held_out = manifests.split(made, seed)
        assert len(tables["train"]) >= 60 and len(tables["valid"]) >= 2
        whole = {row["source"] for row in tables["train"]}.isdisjoint(
            row["source"] for row in tables["valid"] + tables["test"]
        )
        assert whole == (held_out == "files")
    assert manifests.split(made[85:], 0)[1] == "files"


@pytest.mark.parametrize("peak", [0.05, 0.6, 1.0, 3.0])
def test_soft_and_loud_recordings_are_not_silent(tmp_path, peak):
    """Their peaks are further apart than the largest of 16 bits."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        wave = peak * np.sin(np.arange(32000) * (0.1 + 0.01 * number))
        soundfile.write(tmp_path / f"in/{number}.wav", wave, 16000, "FLOAT")
    record = manifests.prepare(tmp_path / "in", tmp_path / "m")
    assert (
        record["skipped"] == 0
        and sum(counts["files"] for counts in record["counts"].values()) == 6
    )


def test_what_is_left_out_is_named_with_its_reason(folder, tmp_path):
    record = manifests.prepare(folder, tmp_path / "m")
    reasons = {row["path"]: row["reason"] for row in rows(tmp_path / "m", "skipped")}
    assert reasons["p0/short.wav"] == "shorter than 1 s"
    assert reasons["p1/silent.wav"] == "silent"
    assert reasons["p1/copy.flac"].startswith("the same audio: as p0/")
    assert reasons["p2/broken.wav"].startswith("damaged")
    assert len(reasons) == 4
    assert any("left out: 4 left out (" in line for line in record["account"])


def test_a_second_call_does_nothing_and_new_options_do(folder, tmp_path):
    first = manifests.prepare(folder, tmp_path / "m")
    stamp = (tmp_path / "m/train.csv").stat().st_mtime_ns
    assert manifests.prepare(folder, tmp_path / "m") == first
    assert (tmp_path / "m/train.csv").stat().st_mtime_ns == stamp
    manifests.prepare(folder, tmp_path / "m", row_seconds=1.0)
    assert (tmp_path / "m/train.csv").stat().st_mtime_ns != stamp


def test_one_person_is_split_by_files_and_noises_are_for_all(tmp_path):
    for take in range(8):
        write(tmp_path / f"in/{take}.wav", 2.0, 8000, take)
    write(tmp_path / "noise/0.wav", 1.0, 44100, 99)  # named as a recording is
    record = manifests.prepare(tmp_path / "in", tmp_path / "m", str(tmp_path / "noise"))
    files = [
        {row["source"] for row in rows(tmp_path / "m", s)}
        for s in ("train", "valid", "test")
    ]
    assert sorted(map(len, files)) == [2, 2, 4] and len(set.union(*files)) == 8
    (noise,) = rows(tmp_path / "m", "noises")
    assert noise["noise"].endswith(".npy") and not noise["client"]
    assert any("--person PATTERN" in line for line in record["account"])


def test_three_recordings_train_or_are_refused_in_a_line(tmp_path):
    for take in range(3):
        write(tmp_path / f"in/{take}.wav", 4.5 + take, 16000, take)
    record = manifests.prepare(tmp_path / "in", tmp_path / "m")
    assert record["counts"]["train"]["rows"] >= 2
    assert record["proposal"]["segment"] <= 2.0
    (tmp_path / "in/0.wav").unlink(), (tmp_path / "in/1.wav").unlink()
    write(tmp_path / "in/2.wav", 3.0, 16000)
    with pytest.raises(
        ValueError, match="1 file with 3 seconds .* too little"
    ) as error:
        manifests.prepare(tmp_path / "in", tmp_path / "n")
    assert "\n" not in str(error.value)


def test_a_pattern_tells_people_apart(tmp_path):
    for take, name in enumerate(("ann_1", "ann_2", "bob_1", "99")):
        write(tmp_path / f"in/{name}.wav", 6.0, 16000, take)
    manifests.prepare(tmp_path / "in", tmp_path / "m", person="^([a-z]+)_")
    assert {row["spk_id"] for row in every_row(tmp_path / "m")} == {"ann", "bob"}
    (left_out,) = rows(tmp_path / "m", "skipped")
    assert left_out["path"] == "99.wav" and "nobody is named" in left_out["reason"]
    with pytest.raises(ValueError, match="finds nobody"):
        manifests.who_speaks(["a.wav"], "x+")
    with pytest.raises(ValueError, match="no regular expression"):
        manifests.who_speaks(["a.wav"], "(")


def test_people_with_little_share_a_client():
    def table(**sizes):
        return {
            "train": [
                {"client": w, "spk_id": w} for w, n in sizes.items() for _ in range(n)
            ]
        }

    tables = table(a=20, b=5, c=5)
    manifests.merge_small_clients(tables)
    assert {row["client"] for row in tables["train"]} == {"a", "others"}
    tables = table(a=20, b=9, c=2)  # two rows are no client, nor with nobody
    manifests.merge_small_clients(tables)
    assert {row["client"] for row in tables["train"]} == {"a", "others"}


def test_levels_are_those_of_16_bits():
    assert np.abs(manifests.to_int16(np.array([1e-4, -5e-5]))).max() > 29000
    assert manifests.to_int16(np.array([0.5])).tolist() == [16384]


def test_pauses_need_their_detector_and_keep_away_from_words(tmp_path, monkeypatch):
    assert without([], 100, 10) == [(0, 100)]
    assert without([(0, 100)], 100, 10) == []
    write(tmp_path / "in/1.wav", 3.0, 16000)
    monkeypatch.setattr(
        "fedenhance.recipes.BareFolder.pauses.find_spec", lambda name: None
    )
    with pytest.raises(ImportError, match="pip install silero-vad"):
        manifests.prepare(tmp_path / "in", tmp_path / "m", pauses=True)


def test_rows_without_speech_become_noise(tmp_path, monkeypatch):
    for take in range(8):
        write(tmp_path / f"in/{take}.wav", 4.0, 16000, take)
    spans = iter([[]] + [[(0, 16000)]] * 7)  # the first has no speech at all
    monkeypatch.setattr(
        "fedenhance.recipes.BareFolder.pauses.detector",
        lambda: lambda wave: next(spans),
    )
    manifests.prepare(tmp_path / "in", tmp_path / "m", pauses=True)
    assert "0.wav" not in {row["source"] for row in every_row(tmp_path / "m")}
    seconds = {
        r["source"]: float(r["duration"]) for r in rows(tmp_path / "m", "noises")
    }
    trained = {row["source"] for row in rows(tmp_path / "m", "train")}
    assert seconds == {"0.wav": 4.0, **dict.fromkeys(trained, 2.8)}


@pytest.mark.parametrize("held_out", ["files", "people"])
def test_pauses_are_noise_of_who_trains_and_none_of_what_is_held_out(
    tmp_path, monkeypatch, held_out
):
    for take in range(20):  # of p1 to p3 there is little: they share a client
        who = f"p{max(0, take - 14)}" if take < 18 else f"q{take}"
        write(tmp_path / f"in/{who}/{take}.wav", 4.0, 16000, take)
    monkeypatch.setattr(
        "fedenhance.recipes.BareFolder.pauses.detector",
        lambda: lambda wave: [(0, 16000)],
    )
    manifests.prepare(tmp_path / "in", tmp_path / "m", pauses=True, held_out=held_out)
    trained = {(r["source"], r["client"]) for r in rows(tmp_path / "m", "train")}
    noises = {(r["source"], r["client"]) for r in rows(tmp_path / "m", "noises")}
    assert noises == trained and "others" in {client for _, client in noises}
    names = {Path(source).parent.name for source, _ in trained}
    assert len(names) == (6 if held_out == "files" else 4)


@pytest.mark.parametrize("share", [0, None])
def test_a_share_of_nothing_is_refused(folder, tmp_path, share):
    with pytest.raises(ValueError, match="cleanest must lie in"):
        manifests.prepare(folder, tmp_path / "m", cleanest=share)


def test_the_command_prints_the_account(tmp_path, capsys, monkeypatch):
    for take in range(6):
        write(tmp_path / f"in/a/{take}.wav", 2.0, 16000, take)
    command.main([str(tmp_path / "in"), str(tmp_path / "m")])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "m/account.txt").read_text()
    assert "proposed: clients 1" in printed
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        command.main([str(tmp_path / "nowhere"), str(tmp_path / "m")])
