"""Laws of the built-in corpus."""

import csv
import hashlib
import re

import numpy as np
import pytest
import soundfile

from fedenhance.recipes.LibriFSD50K import prepare
from fedenhance.recipes.LibriFSD50K.corpora import HUMAN_VOICE
from fedenhance.recipes.MiniLibriFSD50K import generate as built_in
from fedenhance.recipes.MiniLibriFSD50K import noises, sentences, speech

SHARE = 0.04


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built_in") / "corpus"
    folder.with_name(".corpus.partial").mkdir()  # as an interrupted run leaves it
    (folder.with_name(".corpus.partial") / "half.flac").touch()
    return built_in.generate(folder, jobs=2, share=SHARE)


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(corpus, name):
    path = corpus / "FSD50K/FSD50K.ground_truth" / name
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_same_seed_same_bytes(corpus, tmp_path):
    """Of every tenth speaker and class, made alone and not two at once."""
    tasks = built_in.tasks_of(tmp_path, built_in.SEED, SHARE)[::10]
    assert {task.__name__ for task, _ in tasks} == {"make_speaker", "make_clips"}
    built_in.run_tasks(tasks, jobs=1)
    again = digests(tmp_path)
    assert len(again) >= len(tasks)
    assert again.items() <= digests(corpus).items()


def test_nothing_is_left_of_an_interrupted_run(corpus):
    assert not list(corpus.rglob("half.flac"))
    assert not corpus.with_name(".corpus.partial").exists()


def test_it_is_made_once(corpus, monkeypatch):
    monkeypatch.setattr(built_in.subprocess, "run", None)  # a call would raise
    assert built_in.generate(corpus, share=SHARE) == corpus
    assert not built_in.is_complete(corpus, seed=99, share=SHARE)
    assert not built_in.is_complete(corpus, seed=built_in.SEED, share=1.0)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RuntimeError, match="could not be made"):
        built_in.generate(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_speech_is_laid_out_as_librispeech(corpus):
    folder = corpus / "LibriSpeech"
    for subset, least in (("train-clean-100", 16), ("dev-clean", 4), ("test-clean", 4)):
        assert len(list((folder / subset).iterdir())) >= least
    paths = sorted(folder.rglob("*.flac"))
    for path in paths:
        speaker, chapter, _ = path.stem.split("-")
        assert (path.parent.name, path.parent.parent.name) == (chapter, speaker)
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 4.0 <= info.duration <= 12.0
    lines = [
        line.split(" ", 1)
        for path in folder.rglob("*.trans.txt")
        for line in path.read_text().splitlines()
    ]
    assert sorted(name for name, _ in lines) == sorted(path.stem for path in paths)
    assert all(re.fullmatch(r"[A-Z' ]+", text) for _, text in lines)
    numbers = {path.parent.parent.name for path in paths}
    speakers = (folder / "SPEAKERS.TXT").read_text().splitlines()
    assert {line.split("|")[0].strip() for line in speakers[1:]} == numbers


def test_noises_are_laid_out_as_fsd50k(corpus):
    vocabulary = {label: mid for _, label, mid in table(corpus, "vocabulary.csv")}
    for part, columns in (
        ("dev", ["fname", "labels", "mids", "split"]),
        ("eval", ["fname", "labels", "mids"]),
    ):
        header, *rows = table(corpus, f"{part}.csv")
        assert header == columns
        folder = corpus / f"FSD50K/FSD50K.{part}_audio"
        assert sorted(p.stem for p in folder.iterdir()) == sorted(r[0] for r in rows)
        for row in rows:
            labels = row[1].split(",")
            assert [vocabulary[label] for label in labels] == row[2].split(",")
        classes = {row[1].split(",")[0] for row in rows}
        assert len(classes - HUMAN_VOICE) >= 8
        assert classes & HUMAN_VOICE
        for path in folder.iterdir():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (
                44100,
                1,
                "PCM_16",
            )


def test_it_passes_through_the_preparation(corpus, tmp_path):
    record = prepare.prepare(corpus, tmp_path, built_in_corpus=None)
    assert record["skipped"] == 0
    assert record["human_voice"] == 4
    assert [c["speakers"] for c in record["counts"].values()] == [16, 4, 4]


def test_splits_share_no_voice():
    variants = [
        {voice.name.split("+")[1] for voice in voices}
        for voices in speech.VOICES.values()
    ]
    assert len(set.union(*variants)) == sum(map(len, variants))


def test_voices_differ_in_pitch_tract_and_rate():
    voices = [v for group in speech.VOICES.values() for v in group]
    assert len(set(voices)) == len(voices)
    for attribute in ("pitch", "tract", "rate"):
        assert len({getattr(voice, attribute) for voice in voices}) >= 6


def test_parameters_of_the_splits_are_apart():
    draws = {
        part: noises.parameters(np.random.default_rng(0), part)
        for part in built_in.CLIPS
    }
    drawn = {
        part: np.log([draw(1.0, 2.0) for _ in range(2000)]) / np.log(2.0)
        for part, draw in draws.items()
    }
    bands = {part: (noises.NUM_BANDS * x) % 1 for part, x in drawn.items()}
    assert bands["dev"].max() < bands["eval"].min()


@pytest.mark.parametrize("name", noises.SOUNDS)
def test_every_sound_is_a_sound(name):
    rng = np.random.default_rng(0)
    wave = noises.SOUNDS[name][0](rng, noises.parameters(rng, "dev"), 44100)
    assert wave.shape == (44100,)
    assert np.isfinite(wave).all()
    assert wave.std() > 0


def test_classes_differ_in_spectrum():
    def centroid(name):
        rng = np.random.default_rng(1)
        wave = noises.SOUNDS[name][0](rng, noises.parameters(rng, "dev"), 4 * 44100)
        power = np.abs(np.fft.rfft(wave)) ** 2
        return np.average(np.fft.rfftfreq(wave.size, 1 / 44100), weights=power)

    found = [centroid(name) for name in noises.SOUNDS]
    assert max(found) > 20 * min(found)


def test_sentences_are_varied():
    rng = np.random.default_rng(0)
    texts = [sentences.transcript(sentences.sentence(rng)) for _ in range(300)]
    assert len(set(texts)) == 300
    assert len({word for text in texts for word in text.split()}) > 250
    assert all(4 <= len(text.split()) <= 40 for text in texts)


def test_room_tail_is_below_the_direct_sound():
    for seed in range(20):
        echo = speech.room(np.random.default_rng(seed))
        assert echo[0] == 1.0
        assert -18.01 <= 10 * np.log10(np.sum(echo[1:] ** 2)) <= -8.99
