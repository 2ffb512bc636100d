"""Links are followed without end, and what is left out is said."""

import os

import pytest

from fedenhance.data import folders
from fedenhance.data.audio import noise_files, read_segment
from fedenhance.data.folders import count_reasons, find_files
from fedenhance.data.opening import DamagedAudioError
from tests.damage import RATE, save


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr("fedenhance.data.folders.ffmpeg", lambda: None)
    monkeypatch.setattr("fedenhance.data.opening.ffmpeg", lambda: None)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path):
    touch(tmp_path, "in/z/a.wav", "store/day2/b.FLAC", "in/notes.txt")
    links = {"day2": "../store/day2", "a": "z", "loop": ".", "c.wav": "z/a.wav"}
    for name, target in links.items():
        (tmp_path / "in" / name).symlink_to(target)
    (tmp_path / "store/day2/up").symlink_to("../../in")
    files, left_out = find_files(tmp_path, "in")
    assert list(files) == ["in/c.wav", "in/day2/b.FLAC", "in/z/a.wav"]
    assert left_out == [
        ("in/a", "read already: the same folder as in/z"),
        ("in/day2/up", "read already: the same folder as in"),
        ("in/loop", "read already: the same folder as in"),
    ]
    assert files["in/z/a.wav"][0] == 0 and files["in/z/a.wav"][1] > 1e18


def test_what_is_left_out_is_named_and_counted(tmp_path, no_ffmpeg):
    touch(tmp_path, "._a.wav", "talk.M4A", "x/call.webm", ".DS_Store", "a.wav")
    (tmp_path / "dead.wav").symlink_to("nowhere")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    files, left_out = find_files(tmp_path)
    assert list(files) == ["a.wav"]
    assert dict(left_out) == {
        "._a.wav": "hidden file",
        "talk.M4A": "needs ffmpeg, which is not installed",
        "x/call.webm": "needs ffmpeg, which is not installed",
        "dead.wav": "dead link",
        "gone": "dead link",
        "circle.wav": "dead link",
        "pipe.wav": "not a regular file",
    }
    assert count_reasons(left_out).startswith("7 left out (1 hidden file, 3 dead link")
    with pytest.raises(DamagedAudioError, match="talk.M4A: empty file"):
        read_segment(tmp_path / "talk.M4A", 0, 0, RATE, 1)
    (tmp_path / "talk.M4A").write_text("text")
    with pytest.raises(DamagedAudioError, match="talk.M4A: needs ffmpeg"):
        read_segment(tmp_path / "talk.M4A", 0, 0, RATE, 1)


def test_ffmpeg_reads_what_libsndfile_does_not(tmp_path, fake_ffmpeg):
    assert folders.ffmpeg() == fake_ffmpeg
    save(tmp_path / "in/talk.wav")
    (tmp_path / "in/talk.wav").rename(tmp_path / "in/talk.m4a")
    (tmp_path / "in/bad.webm").write_text("not audio")
    files, left_out = find_files(tmp_path / "in")
    assert list(files) == ["bad.webm", "talk.m4a"] and not left_out
    heard = read_segment(tmp_path / "in/talk.m4a", 0, 0, RATE, 8000)
    assert heard.abs().max() > 0.1
    with pytest.raises(DamagedAudioError, match="bad.webm: damaged: .*Invalid data"):
        read_segment(tmp_path / "in/bad.webm", 0, 0, RATE, 8000)


def test_a_noise_folder_has_the_same_rules(tmp_path, no_ffmpeg, caplog):
    touch(tmp_path, "in/._a.wav", "in/b.opus", "in/c.npy", "store/d.wav", "in/e.m4a")
    (tmp_path / "in/link").symlink_to("../store")
    names = [os.path.basename(segment.path) for segment in noise_files(tmp_path / "in")]
    assert names == ["b.opus", "c.npy", "d.wav"]
    assert "e.m4a: needs ffmpeg" in caplog.text and "2 left out" in caplog.text
    touch(tmp_path, "none/e.m4a")
    with pytest.raises(FileNotFoundError, match="none: 1 left out"):
        noise_files(tmp_path / "none")
