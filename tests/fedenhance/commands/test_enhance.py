"""enhance.py on a folder as train.py leaves it, made here in a second."""

import shutil

import numpy as np
import pytest
import soundfile

from fedenhance.__main__ import start
from fedenhance.commands import enhance
from fedenhance.run_folder import shipped
from tests import damage
from tests.fedenhance.commands.test_evaluate import save_run


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run", tmp_path, "LowPass")


def record(path, seconds=0.5, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate))
    soundfile.write(path, signal, rate)
    return path


def test_one_bad_file_does_not_stop_the_others(run, tmp_path, capsys):
    record(tmp_path / "in/a.wav")
    (tmp_path / "in/b.wav").write_text("not audio")
    record(tmp_path / "in/ordner/ü ñ.flac", rate=44100)
    out = tmp_path / "out"
    assert enhance.main([str(run), str(tmp_path / "in"), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 enhanced, 0 there already, 1 damaged" in printed.out
    assert "b.wav" in printed.err
    written = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    assert sorted(written) == ["a.wav", "ordner/ü ñ.flac"]


def test_every_kind_of_damage_is_named_and_counted(run, tmp_path, capsys):
    paths = damage.write(tmp_path / "in", damage.DAMAGED)
    damage.stream(tmp_path / "in/stream.flac", damage.noise(2.0))
    record(tmp_path / "store/b.wav")
    (tmp_path / "in/day2").symlink_to("../store")
    out = tmp_path / "out"
    damaged = enhance.main([str(run), str(tmp_path / "in"), "--out", str(out)])
    printed = capsys.readouterr()
    told = f"2 enhanced, 0 there already, {damaged} damaged, "
    told += f"{len(paths) - 1 - damaged} left out (2 dead link"  # a folder is none
    assert told in printed.out
    for path in paths:
        assert path.is_dir() or f"{path}: " in printed.err
    written = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    assert sorted(written) == ["day2/b.wav", "stream.flac"]
    assert soundfile.info(out / "stream.flac").frames == 32000


def test_what_ffmpeg_reads_is_written_as_wav(run, tmp_path, fake_ffmpeg):
    record(tmp_path / "in/talk.wav")
    record(tmp_path / "in/talk.wav").rename(tmp_path / "in/talk.m4a")
    out = tmp_path / "out"
    assert enhance.main([str(run), str(tmp_path / "in"), "--out", str(out)]) == 0
    assert soundfile.info(out / "talk.m4a.wav").frames == 8000


def test_the_exit_code_tells_of_damaged_files(run, tmp_path, capsys):
    (tmp_path / "b.wav").write_text("not audio")
    with pytest.raises(SystemExit) as end:
        words = [run, tmp_path / "b.wav", "--out", tmp_path / "out"]
        start("enhance", list(map(str, words)))
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "1 damaged" in said.out and "b.wav" in said.err
    assert "Traceback" not in said.err


def test_files_that_are_there_are_skipped(run, tmp_path, capsys):
    command = [str(run), str(record(tmp_path / "a.wav")), "--out", str(tmp_path / "o")]
    enhance.main(command)
    (tmp_path / "o/a.wav").write_text("mine")
    assert enhance.main(command) == 0
    assert (tmp_path / "o/a.wav").read_text() == "mine"
    assert "0 enhanced, 1 there already" in capsys.readouterr().out
    enhance.main([*command, "--overwrite"])
    assert soundfile.info(tmp_path / "o/a.wav").frames == 8000


def test_all_sources_sum_to_the_recording(run, tmp_path):
    path = record(tmp_path / "a.wav")
    enhance.main([str(run), str(path), "--out", str(tmp_path / "o"), "--sources=all"])
    names = ["a_noise1.wav", "a_noise2.wav", "a_speech.wav"]
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == names
    mixture, total = (
        sum(soundfile.read(p)[0] for p in paths)
        for paths in ([path], (tmp_path / "o").iterdir())
    )
    assert np.abs(total - (mixture - mixture.mean())).max() < 1e-4


def test_a_folder_without_a_model_is_named(tmp_path):
    path = record(tmp_path / "a.wav")
    (tmp_path / "save").mkdir()
    with pytest.raises(FileNotFoundError, match="no hyperparams.yaml"):
        enhance.main([str(tmp_path), str(path), "--out", str(tmp_path / "out")])


def test_without_a_name_the_model_that_comes_along_is_taken(run, tmp_path, monkeypatch):
    path = record(tmp_path / "in/a.wav")
    command = [str(path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(shipped, "PRETRAINED", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="which model"):
        enhance.main(command)
    shutil.copytree(run, tmp_path / "pretrained/small")
    monkeypatch.setattr(shipped, "PRETRAINED", tmp_path / "pretrained")
    assert enhance.main(command) == enhance.main(["small", *command]) == 0
    assert (tmp_path / "out/a.wav").exists()
    with pytest.raises(ValueError, match="is a model: which recordings"):
        enhance.main(["small", *command[1:]])


@pytest.mark.parametrize("option", [["--batch_size", "0"], ["--piece", "-1"]])
def test_a_count_that_cannot_be_meant_is_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        enhance.main(["run", "in", "--out", str(tmp_path), *option])
    said = capsys.readouterr().err
    assert f"{option[0]}: it must be above 0, not {option[1]}" in said
    assert len(said.splitlines()) == 1
