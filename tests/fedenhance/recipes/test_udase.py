"""Laws of the UDASE recipe, on a tree of the same layout."""

import csv
import json

import numpy as np
import pytest
import soundfile

from fed.partition import by_column
from fedenhance.data.datasets import collate
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.data.recordings import dataio_prepare
from fedenhance.objectives.levels import si_sdr
from fedenhance.recipes.LibriFSD50K.corpora import LayoutError
from fedenhance.recipes.UDASE import librichime, prepare, segments
from tests.fedenhance.recipes.conftest import write

RATE = 16000
SESSIONS = {"train": ("S03", "S04"), "dev": ("S02",), "eval": ("S01",)}


def clock(seconds):
    whole, part = divmod(round(seconds * 100), 100)
    return f"0:{whole // 60:02d}:{whole % 60:02d}.{part:02d}"


def table(path, spans, **others):
    """Write a table of segments, as the task has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"mix": str(i), "start": clock(start), "end": clock(stop), **others}
        for i, (start, stop) in enumerate(spans)
    ]
    path.write_text(json.dumps(rows, indent=1))


def utterance(name, start, stop, where, **others):
    return {
        "file": f"{where}/84/7/{name}.flac",
        "start_librispeech": 100,
        "end_librispeech": 100 + stop - start,
        "start_mix": start,
        "end_mix": stop,
        **others,
    }


def mixture(where, session, length, name, snrs):
    """An entry of the task's metadata: speakers who begin, say more, and end."""
    third = length // 3
    places = [(0, third), (third, 2 * third), (2 * third, length)]
    row = {"length": length, "max_num_sim_active_speakers": len(snrs), "name": name}
    row["noise"] = {"filename": f"{session}_P09_0"}
    for number, snr in enumerate(snrs):
        row[f"speaker_{number + 1}"] = {
            "utterances": [
                utterance("84-7-0000", *place, where) for place in places[number:]
            ],
            "RIR": {"file": "audio/rirs/home2_room1.wav", "channel": 1},
            "SNR": snr,
        }
    return row


@pytest.fixture
def data(tmp_path):
    """All that is needed to prepare, in seconds instead of hours."""
    for split, sessions in SESSIONS.items():
        for seed, session in enumerate(sessions):
            path = tmp_path / f"CHiME5/audio/{split}/{session}_P09.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw = np.random.default_rng(seed)
            soundfile.write(path, 0.1 * draw.standard_normal((50 * RATE, 2)), RATE)
            tables = tmp_path / segments.TABLES / split
            if split == "train":
                spans = [(1.25, 5.5), (10, 32.5)]  # one chunk; two, and 2.5 s too many
                vad = "0" * 10 + "1" * 220 + "0" * 5
                name = f"{session}_P09_unlabeled.json"
                table(tables / name, spans, brouhaha_vad=vad)
            else:
                for kind in range(4):
                    spans = [(4 * kind + 1, 4 * kind + 4.5)]
                    many = {"max_num_simultaneously_active_spk": kind}
                    table(tables / f"{session}_P09_{kind}.json", spans, **many)
                (tables / f"{session}_P10_0.json").write_text("[]")
    metadata = tmp_path / librichime.TABLES
    metadata.mkdir(parents=True)
    for split, where in (("dev", "dev-clean"), ("eval", "test-clean")):
        (session,), length = SESSIONS[split], round(3.5 * RATE)
        rows = [mixture(where, session, length, f"{session}_P09_0a", [5.0])]
        rows += [mixture(where, session, length, f"{session}_P09_0b", [0.0, 12.5])]
        (metadata / f"{split}.json").write_text(json.dumps(rows))
        write(tmp_path / f"LibriSpeech/{where}/84/7/84-7-0000.flac", 4.0, RATE, seed=5)
    write(tmp_path / "voiceHome/audio/rirs/home2_room1.wav", 0.2, RATE, 6, channels=2)
    return tmp_path


def rows(folder, split):
    with open(folder / f"{split}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_home_is_a_client_of_chunks_of_ten_seconds(data):
    record = prepare.prepare(data, data / "m")
    train = rows(data / "m", "train")
    clients = {row["client"] for row in train}
    assert clients == {"S03", "S04"}
    seconds = [float(row["duration"]) for row in train if row["client"] == "S03"]
    assert seconds == [4.25, 10.0, 10.0]
    assert record["counts"]["test"] == {"recordings": 2, "hours": 0.0019, "homes": 1}
    assert [row["ID"] for row in rows(data / "m", "real_test")] == ["S01_P09_0"]


def test_a_segment_is_the_right_channel_between_its_times(data):
    prepare.prepare(data, data / "m")
    whole, _ = soundfile.read(data / "CHiME5/audio/eval/S01_P09.wav", dtype="int16")
    path = data / segments.FOLDER / "eval/1/S01_P09_0.wav"
    found, rate = soundfile.read(path, dtype="int16")
    expected = whole[5 * RATE : round(8.5 * RATE), 1]
    # Written as the task's script does, by way of floats: rounding moves a step.
    assert rate == RATE and np.abs(found - expected.astype(int)).max() <= 1


def test_speech_alone_is_trained_on_with_vad(data):
    prepare.prepare(data, data / "m", vad=True)
    first = rows(data / "m", "train")[0]
    frames = round(230 * segments.VAD_PERIOD * RATE) - round(
        10 * segments.VAD_PERIOD * RATE
    )
    assert int(first["noisy_stop"]) == frames
    assert "unlabeled_vad_10s" in first["noisy"]


def test_a_mixture_is_its_speech_and_noise_at_the_given_ratio(data):
    prepare.prepare(data, data / "m")
    folder = data / librichime.FOLDER / "dev/1"
    mix, speech, noise = (
        soundfile.read(folder / f"S02_P09_0a_{part}.wav")[0]
        for part in ("mix", "speech", "noise")
    )
    assert np.abs(mix - speech - noise).max() < 1e-4
    level = librichime.loudness(speech) - librichime.loudness(noise)
    assert level == pytest.approx(5.0, abs=0.01)


def test_what_would_clip_is_scaled_with_its_parts(data):
    table = data / librichime.TABLES / "dev.json"
    loud = json.loads(table.read_text())
    loud[0]["speaker_1"]["SNR"] = 40.0
    table.write_text(json.dumps(loud))
    prepare.prepare(data, data / "m")
    stem = data / librichime.FOLDER / "dev/1/S02_P09_0a"
    parts = {
        part: soundfile.read(f"{stem}_{part}.wav")[0]
        for part in ("mix", "speech", "noise")
    }
    peak = max(np.abs(parts["mix"]).max(), np.abs(parts["speech"]).max())
    assert peak == pytest.approx(0.9, abs=1e-3)
    assert np.abs(parts["mix"] - parts["speech"] - parts["noise"]).max() < 1e-4


def test_clients_train_on_recordings_and_the_server_scores_speech(data):
    prepare.prepare(data, data / "m")
    hparams = {
        **{f"{s}_csv": data / f"m/{s}.csv" for s in ("train", "valid", "test")},
        "manifest_folder": data / "m",
        "data_folder": data,
        "mixing": MixtureOfMixtures(RATE, 8.0),
        "partition": by_column,
        "federation": None,
        "segment": 8.0,
    }
    sets = dataio_prepare(hparams)
    assert {name: len(ids) for name, ids in sets["train"].clients.items()} == {
        "S03": 3,
        "S04": 3,
    }
    example = sets["train"][0]
    assert example["group"] == "self-training" and not example["sources"][1:].any()
    batch = collate([sets["valid"][0]])
    assert batch.group == ["supervised"]
    speech, noise = batch.sources.data[0, :2]
    assert float(si_sdr(speech + noise, speech)) == pytest.approx(5.0, abs=0.3)


def test_what_was_made_by_the_task_is_taken(data):
    before = prepare.prepare(data, data / "m")
    for name in ("CHiME5", "UDASE-CHiME-5", "voiceHome", "LibriSpeech"):
        (data / name).rename(data / f"gone-{name}")
    assert prepare.prepare(data, data / "n")["counts"] == before["counts"]


def test_what_is_missing_is_named(data):
    (data / "voiceHome/audio/rirs/home2_room1.wav").unlink()
    with pytest.raises(ValueError, match=r"home2_room1.wav: "):
        prepare.prepare(data, data / "m")
    table = data / librichime.TABLES / "dev.json"
    table.write_text(table.read_text().replace('"SNR"', '"snr"'))
    write(data / "voiceHome/audio/rirs/home2_room1.wav", 0.2, RATE, 6, channels=2)
    with pytest.raises(ValueError, match=r"dev.json: an entry lacks 'SNR'"):
        prepare.prepare(data, data / "m")
    (data / "CHiME5/audio/eval/S01_P09.wav").unlink()
    with pytest.raises(FileNotFoundError, match="S01_P09.wav once, not 0 times"):
        segments.plan(data)
    (data / segments.TABLES / "dev/S02_P09_1.json").write_text('[{"mix": "0"}]')
    with pytest.raises(ValueError, match="S02_P09_1.json is no table of segments"):
        segments.plan(data)


def test_a_folder_without_the_corpus_says_how_it_must_look(tmp_path):
    with pytest.raises(LayoutError, match="has no CHiME5/audio or UDASE/CHiME-5"):
        prepare.prepare(tmp_path, tmp_path / "m")
