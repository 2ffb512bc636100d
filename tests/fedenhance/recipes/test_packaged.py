"""Laws of PackagedRecordings, on signals and files made here."""

import io
import json
import struct

import numpy as np
import pytest
import soundfile

from fedenhance.data.tables import read_table
from fedenhance.recipes.LibriFSD50K.corpora import ontology
from fedenhance.recipes.PackagedRecordings import build, packages, sounds, speech

RATE = 16000


def burst(seconds, before=0.5, after=0.5, level=0.1, floor=1e-4):
    rng = np.random.default_rng(0)
    parts = (floor, before), (level, seconds), (floor, after)
    return np.concatenate(
        [scale * rng.standard_normal(int(RATE * length)) for scale, length in parts]
    )


def test_prompts_are_trimmed_and_set_to_one_level():
    for level in (0.02, 0.2):
        (piece,) = speech.clean(burst(2.0, level=level))
        assert 2.0 <= piece.size / RATE <= 2.25
        middle = piece[RATE // 2 : RATE]
        assert 10 * np.log10(np.mean(middle**2)) == pytest.approx(-26, abs=0.7)


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(100), "short"),
        (np.ones(RATE), "clipped"),
        (burst(2.0, level=1e-4, floor=1e-6), "silent"),
        (
            np.r_[burst(0.3, 1.0, 0.0, 0.1, 0.016), burst(1.0, 0.0, 1.0, 0.03, 0.016)],
            "noisy",
        ),
    ],
)
def test_unusable_prompts_say_why(wave, reason):
    with pytest.raises(speech.UnusablePromptError, match=reason):
        speech.clean(wave)


def test_long_prompts_are_cut_where_it_is_quiet():
    wave = np.concatenate((burst(8.0, after=0.2), burst(8.0, before=0.2)))
    one, two = speech.clean(wave)
    assert max(one.size, two.size) <= 12 * RATE
    assert one.size / RATE == pytest.approx(8.2, abs=0.4)


def test_utterances_last_4_to_12_seconds_and_use_no_prompt_twice():
    rng = np.random.default_rng(0)
    prompts = [
        speech.Prompt(np.ones(int(RATE * rng.uniform(0.5, 6)), np.float32), "", str(i))
        for i in range(60)
    ]
    joined = speech.utterances(prompts, 0, 1)
    sources = [prompt.source for parts in joined for prompt in parts]
    assert len(sources) == len(set(sources))
    for parts in joined:
        assert 4 * RATE <= speech.joined(parts).size <= 12 * RATE
    again = speech.utterances(prompts[::-1], 0, 1)
    assert [[p.source for p in u] for u in again] == [
        [p.source for p in u] for u in joined
    ]


def test_speakers_are_in_one_split_each():
    assert len({s.number for s in speech.SPEAKERS}) == len(speech.SPEAKERS) == 12
    further = {s.number for s in speech.MORE_SPEAKERS}
    assert len(further) == len(speech.MORE_SPEAKERS) == 23
    assert not further & {s.number for s in speech.SPEAKERS}
    assert {s.subset for s in speech.MORE_SPEAKERS} == {speech.TRAIN}


def test_every_label_of_a_rule_is_known():
    for kind in sounds.rules().values():
        for _, labels in kind:
            for label in labels:
                _, ancestors = ontology()[label]
                assert all(name in ontology() for name in ancestors)


def wav(seconds=1.0, rate=44100):
    data = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))
    soundfile.write(data, noise, rate, format="WAV")
    return data.getvalue()


def clip(name, labels=("Bark", "Dog"), number=0):
    source = sounds.Source("tuxpaint", name, b"", "")
    return sounds.Clip(source, name, labels, np.zeros(1), number)


def noise_of(letter):
    return 0.1 * np.random.default_rng(ord(letter)).standard_normal(4410)


def test_takes_of_one_sound_stay_together():
    first = sounds.Source("tuxpaint", "animals/dogs/dog_1", wav(), "GPL-2")
    second = sounds.Source("tuxpaint", "animals/dogs/dog_2", wav(), "GPL-2")
    groups = {sounds.clips_of(source)[0].group for source in (first, second)}
    assert groups == {"tuxpaint:animals/dogs/dog"}


def test_splits_have_their_shares():
    splits = sounds.assign_splits([clip(f"a{i}") for i in range(100)], 0)
    counts = {split: list(splits.values()).count(split) for split in sounds.SHARES}
    assert counts == {"train": 70, "eval": 20, "val": 10}


def test_what_is_tested_is_not_trained_on_under_another_name(tmp_path, monkeypatch):
    made = [clip(name) for name in "abcdefghij"]
    monkeypatch.setattr(sounds, "collect", lambda packages: (made, []))
    tables = []
    for same in (False, True):
        for one in made:
            drawn = "c" if same and one.source.name == "d" else one.source.name
            one.wave = noise_of(drawn)
        made[3].wave *= 0.5
        monkeypatch.setattr(
            sounds,
            "assign_splits",
            lambda clips, _: {
                c.group: "eval" if c.group < "d" else "val" for c in clips
            },
        )
        counts = build._write_sounds(tmp_path / str(same), None, 0)
        assert counts["clips"] == 10 - same
        tables.append(read_table(tmp_path / str(same) / "PROVENANCE_noise.csv"))
    assert [row for row in tables[0] if row["source"] != "tuxpaint:d#0"] == tables[1]
    (row,) = read_table(tmp_path / "True" / "left_out_sounds.csv")
    assert row == {"kind": "tuxpaint", "name": "d", "reason": "tested"}


def test_further_sounds_change_nothing_of_what_is_tested(tmp_path, monkeypatch):
    def found(packages, kinds=sounds.KINDS):
        names = "abcdefghij" if kinds is sounds.KINDS else "uvw"
        made = [clip(name) for name in names]
        for one in made:
            one.wave = noise_of(one.source.name)
        return made, []

    monkeypatch.setattr(sounds, "collect", found)
    files = {}
    for more in (False, True):
        folder = tmp_path / str(more)
        kinds = build.KINDS + ("rescue",) * more
        counts = build._write_sounds(folder, None, 0, kinds)
        assert counts["clips"] == 10 + 3 * more
        files[more] = {
            p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.wav")
        }
    assert files[False].items() < files[True].items()
    added = files[True].keys() - files[False].keys()
    assert {path.parts[1] for path in added} == {"FSD50K.dev_audio"}
    rows = read_table(tmp_path / "True" / "PROVENANCE_noise.csv")
    assert {row["split"] for row in rows[10:]} == {"train"}


def test_kinds_are_chosen_for_training_alone(tmp_path, monkeypatch):
    made = [clip(name) for name in "abcdefghij"]
    for one in made:
        one.wave = noise_of(one.source.name)
    made[9].source.kind = "rescue"
    monkeypatch.setattr(sounds, "collect", lambda packages, _=None: (made, []))
    tables = {}
    for kinds in (("tuxpaint", "rescue"), ("rescue",)):
        build._write_sounds(tmp_path / kinds[0], None, 0, kinds)
        rows = read_table(tmp_path / kinds[0] / "PROVENANCE_noise.csv")
        tables[kinds] = {row["source"]: row for row in rows}
    every, chosen = tables.values()
    assert chosen == {
        source: row
        for source, row in every.items()
        if row["split"] != "train" or source.startswith("rescue:")
    }
    assert 0 < len(chosen) < len(every)


def test_packages_that_are_not_chosen_change_nothing(tmp_path, monkeypatch):
    """A sound of theirs that is the same as a chosen one does not take its place."""
    made = [clip(name) for name in "abcdefghij"]
    for one in made:
        one.wave = noise_of(one.source.name)
    collect, tables = sounds.collect, []
    monkeypatch.setattr(
        sounds,
        "collect",
        lambda packages, kinds=sounds.KINDS: (
            (made, []) if kinds is sounds.KINDS else collect(packages, kinds)
        ),
    )
    for name in ("supertuxkart", "hedgewars"):
        path = tmp_path / "packages" / sounds.MORE_KINDS[name] / "sfx/rain_splash.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(wav())
        target, kinds = tmp_path / name, ("tuxpaint", "supertuxkart")
        build._write_sounds(target, tmp_path / "packages", 0, kinds)
        tables.append(read_table(target / "PROVENANCE_noise.csv"))
    assert tables[0] == tables[1]
    assert "supertuxkart:sfx/rain_splash#0" in {row["source"] for row in tables[0]}


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["hedgewars", "buckle"], "none of them holds speech; add some of asterisk"),
        (["fillets"], "none of them holds sounds; add some of buckle, colobot"),
        (["fillet", "buckle"], "there is no fillet; there is asterisk"),
    ],
)
def test_kinds_without_speech_or_sounds_are_refused_at_once(tmp_path, kinds, told):
    with pytest.raises(ValueError, match=told):
        build.build(tmp_path / "new", train_on=kinds)
    assert not list(tmp_path.iterdir())


def test_a_corpus_of_other_options_is_not_replaced(tmp_path, monkeypatch):
    options = {"version": build.VERSION, "seed": 0, "max_minutes": None}
    marker = tmp_path / build.MARKER
    marker.write_text(json.dumps({"options": options, "counts": {"clips": 3}}))
    assert build.build(tmp_path) == {"clips": 3}
    with pytest.raises(FileExistsError, match="max_minutes is None there, not 2"):
        build.build(tmp_path, max_minutes=2)
    with pytest.raises(FileExistsError, match="train_on is None there, not"):
        build.build(tmp_path, train_on=["fillets", "buckle"])
    assert marker.exists()


def test_speakers_are_of_kinds():
    kinds = {speaker.kind for speaker in speech.SPEAKERS + speech.MORE_SPEAKERS}
    sounding = {*sounds.MORE_KINDS, *(kind.__name__ for kind in sounds.KINDS)}
    assert kinds | sounding == {*build.KINDS, *packages.MORE_PACKAGES}


def test_sounds_of_further_games_have_labels(tmp_path):
    for name in ("hedgewars/Sounds/voices/Hello", "supertuxkart/sfx/rain"):
        kind, rest = name.split("/", 1)
        path = tmp_path / sounds.MORE_KINDS[kind] / f"{rest}.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(wav())
    clips, left_out = sounds.collect(tmp_path, [sounds.more])
    assert [clip.labels[0] for clip in clips] == ["Rain"]
    assert left_out == [("hedgewars", "Sounds/voices/Hello", "no labels")]


def test_files_of_a_language_are_prompts_of_one_speaker(tmp_path):
    speaker = next(s for s in speech.MORE_SPEAKERS if "cs" in s.name)
    path = tmp_path / speaker.languages[0].replace("**/", "cave/")
    for name in ("cave-m-hello.ogg", "cave-v-hello.ogg", "m-notes.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).touch()
    [(found, text, _)] = speech.file_prompts(tmp_path, speaker.languages)
    assert (found.name, text) == ("cave-m-hello.ogg", "")


def test_long_sounds_are_cut():
    source = sounds.Source("tuxpaint", "animals/dogs/dog", wav(32.0), "GPL-2")
    lengths = [c.wave.size / sounds.SAMPLE_RATE for c in sounds.clips_of(source)]
    assert lengths == pytest.approx([15, 15])  # the 2 s that are left are too short


def test_the_catalogue_of_openttd_is_read(tmp_path):
    folder = tmp_path / "openttd-opensfx/usr/share/games/openttd/baseset/opensfx"
    folder.mkdir(parents=True)
    title = b'Sound "Cow" by X. License: Creative Commons Sampling-Plus 1.0\0'
    body = bytes([len(title)]) + title + wav()
    head = struct.pack("<II", 8, len(wav()))
    (folder / "opensfx.cat").write_bytes(head + body)
    (sound,) = sounds.opensfx(tmp_path)
    assert (sound.name, sound.data) == ("Cow", wav())
    assert sound.licence == "Creative Commons Sampling-Plus 1.0"


def test_resource_files_of_qt_are_read():
    names = b""
    places = []
    for name in ("", "a.ogg"):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data = struct.pack(">I", 3) + b"abc"
    entries = struct.pack(">IHII", places[0], 2, 1, 1)  # a folder with one child
    entries += struct.pack(">IHHHI", places[1], 0, 0, 0, 0)
    head = struct.calcsize(">4s4I")
    tree, contents = head, head + len(entries)
    start = struct.pack(">4s4I", b"qres", 1, tree, contents, contents + len(data))
    assert list(sounds._resources(start + entries + data + names)) == [
        ("a.ogg", b"abc")
    ]


def test_another_system_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="needs Debian or Ubuntu"):
        packages.fetch(tmp_path, ["lugaru-data"])


def test_a_missing_package_is_told_by_name(tmp_path, monkeypatch):
    class Done:
        returncode, stderr = 100, "E: Unable to locate package"

    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: Done())
    with pytest.raises(RuntimeError, match="Package lugaru-data.*Unable to locate"):
        packages.fetch(tmp_path, ["lugaru-data"])


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="name another folder"):
        build.build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
