"""Laws of downloads, against a server on this machine."""

import errno
import hashlib
import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from recipes import downloading, split_zip
from recipes.downloading import Archive, DownloadError, download
from recipes.LibriFSD50K import download as librifsd50k
from recipes.WHAM import download as wham

BODY = np.random.default_rng(0).bytes(3_000_000)
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()
QUICK = {"retries": 2, "timeout": 5.0, "pause": 0.01}


def archive(server, name="a.zip", size=SIZE, md5=MD5):
    return Archive(name, server.url, size, md5)


def test_a_file_arrives(server, tmp_path):
    server.files["a.zip"] = BODY
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY)
    download(archive(server), tmp_path, **QUICK)
    assert server.requests == []


def test_a_lost_connection_is_resumed_where_it_ended(server, tmp_path):
    server.files["a.zip"] = BODY
    server.drop_after = [1_000_000, 500_000]
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    asked = [wanted for _, wanted in server.requests]
    assert asked == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_run_resumes(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY[:2_000_000])
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert server.requests == [("a.zip", "bytes=2000000-")]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.files["a.zip"], server.ranges = BODY, False
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY


def test_unknown_sizes_are_resumed_too(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY)  # the range after it is empty: 416
    wanted = archive(server, size=None, md5=None)
    assert download(wanted, tmp_path, **QUICK).read_bytes() == BODY


def test_a_damaged_rest_is_downloaded_once_more(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


def test_a_wrong_checksum_is_refused_by_name(server, tmp_path):
    server.files["a.zip"] = b"y" + BODY[1:]
    with pytest.raises(DownloadError, match=f"a.zip: has MD5 .* instead of {MD5}"):
        download(archive(server), tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_refused_by_name(server, tmp_path):
    server.files["a.zip"] = BODY + b"more"
    with pytest.raises(DownloadError, match="has 3000004 bytes instead of 3000000"):
        download(archive(server), tmp_path, **QUICK)


def test_a_missing_file_is_told_at_once(server, tmp_path):
    with pytest.raises(DownloadError, match="a.zip: the server says 404.*--mirror"):
        download(archive(server), tmp_path, **QUICK)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.files["a.zip"], server.down = BODY, 2
    assert download(archive(server), tmp_path, **QUICK).read_bytes() == BODY


def test_a_dead_server_is_given_up(server, tmp_path):
    server.files["a.zip"], server.down = BODY, 99
    with pytest.raises(DownloadError, match="Nothing arrived in 3 attempts"):
        download(archive(server), tmp_path, **QUICK)


def test_a_server_that_falls_silent_is_asked_for_the_rest(server, tmp_path):
    server.files["a.zip"], server.stall, server.drop_after = BODY, 1.0, [1_000_000]
    options = QUICK | {"timeout": 0.2}
    assert download(archive(server), tmp_path, **options).read_bytes() == BODY
    assert server.requests[-1] == ("a.zip", "bytes=1000000-")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(server, tmp_path):
    server.files["a.zip"] = BODY
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"No space is left .* is kept") as caught:
        download(archive(server), tmp_path, **QUICK)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_too_little_space_is_told_before(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 10**9))
    downloading.check_space(tmp_path / "not" / "there" / "yet", 9 * 10**8)
    with pytest.raises(DownloadError, match=r"1\.0 GB free, but 1\.1 GB are needed"):
        downloading.check_space(tmp_path, 10**9)


def split(data, size):
    """Cut a zip into parts as Info-ZIP does: positions count from their own part."""
    data = b"PK\x07\x08" + data  # the mark of split archives
    end = data.rfind(split_zip.END)
    entries, length, start = struct.unpack_from("<HII", data, end + 10)
    data, place = bytearray(data), start + 4
    for _ in range(entries):
        names = struct.unpack_from("<3H", data, place + 28)
        (offset,) = struct.unpack_from("<I", data, place + 42)
        part, offset = divmod(offset + 4, size)
        struct.pack_into("<H", data, place + 34, part)
        struct.pack_into("<I", data, place + 42, offset)
        place += 46 + sum(names)
    last = (len(data) - 1) // size
    part, offset = divmod(start + 4, size)
    struct.pack_into("<2H", data, end + 4, last, part)
    struct.pack_into("<I", data, end + 16, offset)
    assert length == end - 4 - start
    return [bytes(data[i : i + size]) for i in range(0, len(data), size)]


def zipped(files, method=zipfile.ZIP_DEFLATED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return data.getvalue()


FILES = {"d/one.wav": BODY[:70_000], "d/ü.wav": b"0" * 90_000, "d/three.wav": b"3"}


def write_parts(folder, parts):
    names = [f"x.z{i:02d}" for i in range(1, len(parts))] + ["x.zip"]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    return [folder / name for name in names]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [30_000, 65_536, 10**6])
def test_split_archives_are_joined(method, size, tmp_path):
    paths = write_parts(tmp_path, split(zipped(FILES, method), size))
    split_zip.extract(paths, tmp_path / "out")
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs Info-ZIP")
def test_split_archives_of_info_zip_are_joined(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = ["zip", "-q", "-r", "-s", "64k", "x.zip", "d"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
    paths = [*sorted(tmp_path.glob("x.z0*")), tmp_path / "x.zip"]
    assert len(paths) > 1
    split_zip.extract(paths, tmp_path / "out")
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content


def test_a_missing_part_is_told_by_name(tmp_path):
    paths = write_parts(tmp_path, split(zipped(FILES), 30_000))
    paths[1].unlink()
    with pytest.raises(DownloadError, match=r"missing parts: .*x\.z02"):
        downloading.unpack(paths[-1], tmp_path / "out", paths[:-1])


def test_too_few_parts_are_told(tmp_path):
    paths = write_parts(tmp_path, split(zipped(FILES), 30_000))
    with pytest.raises(DownloadError, match=f"{len(paths)} parts, 2 are here"):
        downloading.unpack(paths[-1], tmp_path / "out", paths[:1])


def test_an_interrupted_part_is_told_by_name(tmp_path):
    paths = write_parts(tmp_path, split(zipped(FILES), 30_000))
    paths[0].write_bytes(paths[0].read_bytes()[:20_000])
    with pytest.raises(DownloadError, match=r"x\.z01 is cut short"):
        downloading.unpack(paths[-1], tmp_path / "out", paths[:-1])


def test_damage_is_told_by_the_name_of_the_file(tmp_path):
    parts = split(zipped(FILES), 30_000)
    parts[1] = parts[1][:100] + b"damage" + parts[1][106:]
    paths = write_parts(tmp_path, parts)
    with pytest.raises(DownloadError, match=r"x\.zip is damaged \(d/one\.wav: "):
        downloading.unpack(paths[-1], tmp_path / "out", paths[:-1])


def test_a_cut_last_part_is_told(tmp_path):
    paths = write_parts(tmp_path, split(zipped(FILES), 30_000))
    paths[-1].write_bytes(paths[-1].read_bytes()[:-30])
    with pytest.raises(DownloadError, match="no directory"):
        downloading.unpack(paths[-1], tmp_path / "out", paths[:-1])


def test_files_stay_inside_the_folder(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({"../out.wav": b"1", "in.wav": b"2"}))
    downloading.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out.wav").exists()
    assert (tmp_path / "out" / "in.wav").read_bytes() == b"2"


def tarred(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_an_interrupted_unpacking_goes_on(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tarred(FILES))
    done = tmp_path / "out" / "d" / "three.wav"
    done.parent.mkdir(parents=True)
    done.write_bytes(b"x")  # of the right size: not touched
    (done.parent / "one.wav").write_bytes(b"half")
    downloading.unpack(path, tmp_path / "out")
    assert done.read_bytes() == b"x"
    assert (done.parent / "one.wav").read_bytes() == FILES["d/one.wav"]


def test_a_cut_tar_is_told_by_name(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tarred(FILES)[:-2000])
    with pytest.raises(DownloadError, match=r"x\.tar\.gz is damaged"):
        downloading.unpack(path, tmp_path / "out")


@pytest.fixture
def small_corpora(server, monkeypatch):
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
        data = zipped({f"FSD50K.{group}/{i}.wav": BODY[:50_000] for i in range(4)})
        pieces = split(data, -(-(len(data) + 4) // len(parts)))
        noise[group] = {
            end: fact(f"FSD50K.{group}.{end}", piece)
            for end, piece in zip(parts, pieces, strict=True)
        }
    monkeypatch.setattr(librifsd50k, "LIBRISPEECH", speech)
    monkeypatch.setattr(librifsd50k, "FSD50K", noise)
    mirrors = ["--mirror", server.url, "--noise_mirror", server.url]
    return [*mirrors, "--pause", "0.01", "--retries", "1"]


def test_everything_is_downloaded_and_unpacked(small_corpora, server, tmp_path):
    server.drop_after = [100] * 5
    librifsd50k.main([str(tmp_path), *small_corpora, "--delete_archives"])
    assert len(list((tmp_path / "LibriSpeech").iterdir())) == 4
    assert len(list((tmp_path / "FSD50K" / "FSD50K.dev_audio").iterdir())) == 4
    assert list((tmp_path / "archives").iterdir()) == []
    asked = len(server.requests)
    librifsd50k.main([str(tmp_path), *small_corpora])
    assert len(server.requests) == asked


def test_a_dry_run_asks_for_nothing(small_corpora, server, tmp_path, capsys):
    librifsd50k.main([str(tmp_path), *small_corpora, "--dry_run"])
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out.count("download") >= 12


def test_faults_are_told_in_one_line(small_corpora, server, tmp_path):
    del server.files["dev-clean.tar.gz"]
    with pytest.raises(SystemExit, match=r"^error: .*dev-clean\.tar\.gz.*404"):
        librifsd50k.main([str(tmp_path), *small_corpora])


def test_the_noise_of_wham_arrives(server, tmp_path):
    server.files["wham_noise.zip"] = zipped({"wham_noise/tr/a.wav": b"1"})
    wham.main([str(tmp_path), "--mirror", server.url])
    assert (tmp_path / "wham_noise/tr/a.wav").read_bytes() == b"1"
