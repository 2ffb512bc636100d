"""Laws of downloads, against a server on this machine."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from fedenhance.recipes import downloading
from fedenhance.recipes.downloading import Archive, DownloadError, download
from fedenhance.recipes.LibriFSD50K import download as librifsd50k
from fedenhance.recipes.WHAM import download as wham

BODY = np.random.default_rng(0).bytes(3_000_000)
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()
QUICK = {"retries": 2, "timeout": 5.0, "pause": 0.01}

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
needs_7zip = pytest.mark.skipif(
    not any(map(shutil.which, downloading.PROGRAMS["7-Zip"][0])), reason="needs 7-Zip"
)


def archive(server, name="a.zip", size=SIZE, md5=MD5):
    return Archive(name, server.url, size, md5)


@needs_curl
def test_a_file_arrives(server, tmp_path):
    server.files["a.zip"] = BODY
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY)
    download(archive(server), tmp_path, **QUICK)
    assert server.requests == []


@needs_curl
def test_a_lost_connection_is_resumed_where_it_ended(server, tmp_path):
    server.files["a.zip"] = BODY
    server.drop_after = [1_000_000, 500_000]
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    asked = [wanted for _, wanted in server.requests]
    assert asked == [None, "bytes=1000000-", "bytes=1500000-"]


@needs_curl
def test_a_later_run_resumes(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY[:2_000_000])
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert server.requests == [("a.zip", "bytes=2000000-")]


@needs_curl
def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.files["a.zip"], server.ranges = BODY, False
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY


@needs_curl
def test_unknown_sizes_are_resumed_too(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY)  # the range after it is empty: 416
    wanted = archive(server, size=2_900_000, md5=None)
    assert download(wanted, tmp_path, **QUICK).read_bytes() == BODY


@needs_curl
def test_a_damaged_rest_is_downloaded_once_more(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


@needs_curl
def test_a_wrong_checksum_is_refused_by_name(server, tmp_path):
    server.files["a.zip"] = b"y" + BODY[1:]
    with pytest.raises(DownloadError, match=f"a.zip: has MD5 .* instead of {MD5}"):
        download(archive(server), tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


@needs_curl
def test_a_wrong_size_is_refused_by_name(server, tmp_path):
    server.files["a.zip"] = BODY + b"more"
    with pytest.raises(DownloadError, match="has 3000004 bytes instead of 3000000"):
        download(archive(server), tmp_path, **QUICK)


@needs_curl
def test_a_missing_file_is_told_at_once(server, tmp_path):
    with pytest.raises(DownloadError, match="a.zip: the server says 404.*--mirror"):
        download(archive(server), tmp_path, **QUICK)
    assert len(server.requests) == 1


@needs_curl
def test_a_busy_server_is_asked_again(server, tmp_path):
    server.files["a.zip"], server.down = BODY, 2
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY


@needs_curl
def test_a_dead_server_is_given_up(server, tmp_path):
    server.files["a.zip"], server.down = BODY, 99
    with pytest.raises(DownloadError, match="Nothing arrived in 3 attempts"):
        download(archive(server), tmp_path, **QUICK)


@needs_curl
def test_a_server_that_falls_silent_is_asked_for_the_rest(server, tmp_path):
    server.files["a.zip"], server.stall, server.drop_after = BODY, 2.5, [1_000_000]
    options = QUICK | {"timeout": 0.2}
    assert download(archive(server), tmp_path, **options).read_bytes() == BODY
    assert server.requests[-1] == ("a.zip", "bytes=1000000-")


@needs_curl
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot be written.* is kept"):
        download(archive(server), tmp_path, **QUICK)


def test_too_little_space_is_told_before(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 10**9))
    downloading.check_space(tmp_path / "not" / "there" / "yet", 9 * 10**8)
    with pytest.raises(DownloadError, match=r"1\.0 GB free, but 1\.1 GB are needed"):
        downloading.check_space(tmp_path, 10**9)


FILES = {"d/one.wav": BODY[:150_000], "d/ü.wav": b"0" * 90_000, "d/three.wav": b"3"}


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return data.getvalue()


def split_zip(folder, files, name="x.zip"):
    """Write files, and an archive of them in parts of 64 kB, as Info-ZIP does."""
    if not shutil.which("zip"):
        pytest.skip("needs Info-ZIP")
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    command = ["zip", "-q", "-s", "64k", name, *files]
    subprocess.run(command, cwd=folder, check=True, timeout=30)
    return [*sorted(folder.glob(f"{name[:-4]}.z0*")), folder / name]


@needs_7zip
def test_split_archives_are_unpacked(tmp_path):
    paths = split_zip(tmp_path, FILES)
    assert len(paths) > 2
    downloading.unpack(paths[-1], tmp_path / "out")
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    paths[-1].unlink()
    downloading.unpack(paths[-1], tmp_path / "out")  # it is done once


@needs_7zip
def test_a_missing_part_is_told_by_name(tmp_path):
    paths = split_zip(tmp_path, FILES)
    paths[1].unlink()
    with pytest.raises(DownloadError, match=r"x\.zip is damaged .*x\.z02"):
        downloading.unpack(paths[-1], tmp_path / "out")


@needs_7zip
def test_damage_is_told_by_the_name_of_the_file(tmp_path):
    paths = split_zip(tmp_path, FILES)
    part = bytearray(paths[0].read_bytes())
    part[20_000:20_006] = b"damage"
    paths[0].write_bytes(part)
    with pytest.raises(DownloadError, match=r"x\.zip is damaged .*d/one\.wav"):
        downloading.unpack(paths[-1], tmp_path / "out")


@needs_7zip
def test_a_cut_last_part_is_told(tmp_path):
    paths = split_zip(tmp_path, FILES)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-30])
    with pytest.raises(DownloadError, match=r"x\.zip is damaged"):
        downloading.unpack(paths[-1], tmp_path / "out")


@needs_7zip
def test_an_interrupted_unpacking_is_done_again(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(FILES))
    half = tmp_path / "out" / "d" / "one.wav"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    downloading.unpack(path, tmp_path / "out")
    assert half.read_bytes() == FILES["d/one.wav"]


@pytest.mark.parametrize("suffix", ["tar.gz", pytest.param("zip", marks=needs_7zip)])
def test_files_stay_inside_the_folder(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    pack = {"zip": zipped, "tar.gz": tarred}[suffix]
    path.write_bytes(pack({"in.wav": b"2", "../out.wav": b"1"}))
    try:
        downloading.unpack(path, tmp_path / "out")
    except DownloadError as error:
        assert "out.wav" in str(error)
    assert not (tmp_path / "out.wav").exists()
    assert (tmp_path / "out" / "in.wav").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("name", "advice"), [("curl", "apt install curl"), ("7-Zip", "apt install 7zip")]
)
def test_a_program_that_is_not_there_is_named(name, advice, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DownloadError, match=f"{name} .* is not installed: {advice}"):
        downloading.program(name)


def tarred(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_tar_is_unpacked(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tarred(FILES))
    downloading.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "d" / "one.wav").read_bytes() == FILES["d/one.wav"]


def test_a_cut_tar_is_told_by_name(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tarred(FILES)[:-2000])
    with pytest.raises(DownloadError, match=r"x\.tar\.gz is damaged"):
        downloading.unpack(path, tmp_path / "out")


@pytest.fixture
def small_corpora(server, monkeypatch, tmp_path_factory):
    """The same archives with other contents, at the server."""

    def fact(name, data):
        server.files[name] = data
        return len(data), hashlib.md5(data).hexdigest()

    speech = {
        subset: fact(f"{subset}.tar.gz", tarred({f"LibriSpeech/{subset}/x": b"1"}))
        for subset in librifsd50k.LIBRISPEECH
    }
    noise = {}
    for group, parts in librifsd50k.FSD50K.items():
        folder = tmp_path_factory.mktemp(group)
        size = int((len(parts) - 0.5) * 65536 / 4)
        files = {f"FSD50K.{group}/{i}.wav": BODY[:size] for i in range(4)}
        paths = split_zip(folder, files, f"FSD50K.{group}.zip")
        noise[group] = {
            end: fact(path.name, path.read_bytes())
            for end, path in zip(parts, paths, strict=True)
        }
    monkeypatch.setattr(librifsd50k, "LIBRISPEECH", speech)
    monkeypatch.setattr(librifsd50k, "FSD50K", noise)
    mirrors = ["--mirror", server.url, "--noise_mirror", server.url]
    return [*mirrors, "--pause", "0.01", "--retries", "1"]


@needs_curl
@needs_7zip
def test_everything_is_downloaded_and_unpacked(small_corpora, server, tmp_path):
    server.drop_after = [100] * 5
    librifsd50k.main([str(tmp_path), *small_corpora, "--delete_archives"])
    assert len(list((tmp_path / "LibriSpeech").iterdir())) == 4
    assert len(list((tmp_path / "FSD50K" / "FSD50K.dev_audio").iterdir())) == 4
    assert list((tmp_path / "archives").iterdir()) == []
    asked = len(server.requests)
    librifsd50k.main([str(tmp_path), *small_corpora])
    assert len(server.requests) == asked


@needs_7zip
def test_a_dry_run_asks_for_nothing(small_corpora, server, tmp_path, capsys):
    librifsd50k.main([str(tmp_path), *small_corpora, "--dry_run"])
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out.count("download") >= 12


@needs_curl
@needs_7zip
def test_faults_are_told_in_one_line(small_corpora, server, tmp_path):
    del server.files["dev-clean.tar.gz"]
    with pytest.raises(SystemExit, match=r"^error: .*dev-clean\.tar\.gz.*404"):
        librifsd50k.main([str(tmp_path), *small_corpora])


@needs_curl
@needs_7zip
def test_the_noise_of_wham_arrives(server, tmp_path, monkeypatch):
    server.files["wham_noise.zip"] = zipped({"wham_noise/tr/a.wav": b"1"})
    monkeypatch.setattr(wham, "NOISE", replace(wham.NOISE, size=1000))
    wham.main([str(tmp_path), "--mirror", server.url])
    assert (tmp_path / "wham_noise/tr/a.wav").read_bytes() == b"1"
