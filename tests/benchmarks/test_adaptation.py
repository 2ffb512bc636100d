"""The folder without references, and what is measured on it."""

import numpy as np
import soundfile

from benchmarks import adaptation, bare_folder
from fedenhance.data.tables import read_table


def corpus(root):
    """Speech of two people in each part, and eight sounds."""
    draws = np.random.default_rng(0)
    for part in ("dev-clean", "test-clean"):
        for who in "ab":
            folder = root / "LibriSpeech" / part / f"{part[0]}{who}"
            folder.mkdir(parents=True)
            for n in range(20):
                signal = 0.1 * draws.standard_normal(1600)
                soundfile.write(folder / f"{n}.flac", signal, 16000)
    sounds = root / "FSD50K" / "FSD50K.eval_audio"
    truth = root / "FSD50K" / "FSD50K.ground_truth"
    sounds.mkdir(parents=True)
    truth.mkdir()
    names = [f"{n}" for n in range(32)]
    for name in names:
        soundfile.write(sounds / f"{name}.wav", draws.standard_normal(800) / 9, 16000)
    (truth / "eval.csv").write_text(
        "fname,labels\n" + "".join(f"{n},x\n" for n in names)
    )
    return root


def test_places_have_sounds_and_people_of_their_own(tmp_path):
    found = list(bare_folder.record(corpus(tmp_path), "test", files=2, fresh=1))
    kinds = {kind: [r for r in found if r["kind"] == kind] for kind in adaptation.KINDS}
    assert [len(rows) for rows in kinds.values()] == [8, 8, 8]
    inside = [row for row in found if row["kind"] == "folder"]
    assert len(inside) == 16 and len({row["client"] for row in inside}) == 8
    assert {row["spk_id"] for row in inside + kinds["own"]} == {"ta", "tb"}
    assert {row["spk_id"] for row in kinds["speakers"] + kinds["noises"]} == {
        "da",
        "db",
    }
    for row in found:
        noise = row["mixture"] - row["speech"]
        ratio = np.square(row["speech"]).sum() / np.square(noise).sum()
        assert abs(10 * np.log10(ratio) - row["snr"]) < 0.01
        assert np.isclose(np.abs(row["mixture"]).max(), 0.5)


def test_the_folder_has_no_truth_and_the_truth_reads(tmp_path):
    folder, truth = tmp_path / "folder", tmp_path / "truth"
    table = bare_folder.make(corpus(tmp_path), folder, truth, files=1, fresh=1)
    rows = read_table(table)
    inside = [row["file"] for row in rows if row["kind"] == "folder"]
    assert sorted(map(str, (p for p in folder.rglob("*.*")))) == sorted(inside)
    for row in rows:
        mixture, speech = bare_folder.read(row)
        assert len(mixture) == len(speech) == 1600
        assert np.corrcoef(mixture, speech)[0, 1] > 0.3


def test_a_gain_is_of_the_same_recordings():
    start = [
        {"kind": kind, "si_sdr_in": snr, "si_sdri": 5.0, "estoi": 0.5}
        for kind, snr in (("own", -3.0), ("own", 12.0), ("noises", 12.0))
    ]
    gains = (1.0, -1.0, 3.0)
    after = [
        {**row, "si_sdri": 5.0 + gain} for row, gain in zip(start, gains, strict=True)
    ]
    rows = {row["group"]: row for row in adaptation.compare(start, after)}
    assert {name: row["gain"] for name, row in rows.items()} == {
        "own": 0.0,
        "noises": 3.0,
        "all": 1.0,
        "-5 to 0 dB": 1.0,
        "10 to 15 dB": 1.0,
    }
    assert rows["all"]["low"] < 1.0 < rows["all"]["high"]


def test_a_run_is_scored_once(tmp_path, monkeypatch):
    (tmp_path / "test/truth").mkdir(parents=True)
    (tmp_path / "test/truth/truth.csv").write_text("kind\nown\nfolder\n")
    scored = {"kind": "own", "si_sdr_in": 1.0, "si_sdri": 5.0, "estoi": 0.5}
    better = iter([0.0, 1.0])
    monkeypatch.setattr(adaptation, "adapt", lambda *_: (60.0, 90.0))
    monkeypatch.setattr(adaptation, "adapted_model", lambda _: (None, True))
    monkeypatch.setattr(adaptation, "load_trained", lambda _: None)
    monkeypatch.setattr(
        adaptation,
        "score",
        lambda _, rows: [{**scored, "si_sdri": 5.0 + next(better)} for _ in rows],
    )
    words = ["--out", tmp_path / "a.csv", "--work", tmp_path, "--seeds", "1"]
    for _ in range(2):
        adaptation.main([str(word) for word in words])
    rows = read_table(tmp_path / "a.csv")
    assert [row["group"] for row in rows] == ["own", "all", "0 to 5 dB"]
    assert {(row["gain"], row["cpu_seconds"], row["kept"]) for row in rows} == {
        ("1", "90", "True")
    }
