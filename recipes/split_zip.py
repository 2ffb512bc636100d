"""Zip archives in several parts (NAME.z01, ..., NAME.zip), read without joining them.

Python's zipfile refuses them, and joining FSD50K's parts with ``zip -s 0`` needs 25 GB
more. Field names are those of PKWARE's APPNOTE 6.3.
"""

import io
import struct
import zlib
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
STORED, DEFLATED = 0, 8
UNIX = 3
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
BLOCK = 1 << 20


class BadArchiveError(Exception):
    """The archive is damaged, or a part of it is missing."""


class Member(NamedTuple):
    """One file of an archive; `start` is the position of its header in all parts."""

    name: str
    method: int
    crc: int
    compressed: int
    size: int
    start: int


class Parts(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths):
        self.files = [open(path, "rb") for path in paths]
        sizes = [Path(path).stat().st_size for path in paths]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.total = sum(sizes)
        self.place = 0

    def read_at(self, start, count):
        """Read `count` bytes from a position on; fewer raise BadArchiveError."""
        found = []
        while count:
            part = bisect_right(self.starts, start) - 1
            self.files[part].seek(start - self.starts[part])
            block = self.files[part].read(count)
            if not block:
                raise BadArchiveError("it ends too early")
            found.append(block)
            start, count = start + len(block), count - len(block)
        return b"".join(found)

    def close(self):
        """Close all parts."""
        for file in self.files:
            file.close()
        super().close()


def members(parts):
    """Read the directory of an archive.

    Arguments
    ---------
    parts : Parts
        All parts in order; there may be one.

    Returns
    -------
    list of Member
    """
    size, start, entries = _find_directory(parts)
    directory = parts.read_at(start, size)
    found, place = [], 0
    while len(found) < entries:
        if directory[place : place + 4] != CENTRAL:
            raise BadArchiveError("its directory is damaged")
        fields = struct.unpack_from("<4xHHHHHHIIIHHHHHII", directory, place)
        flags, method, crc, compressed, full = (fields[i] for i in (2, 3, 6, 7, 8))
        name_length, extra_length, comment_length, part = fields[9:13]
        name_start = place + 46
        extra_start = name_start + name_length
        name = directory[name_start:extra_start]
        extra = directory[extra_start : extra_start + extra_length]
        full, compressed, offset, part = _wide(
            extra, full, compressed, fields[15], part
        )
        header = _position(parts, part, offset)
        name = _name(name, flags, fields[0] >> 8, extra)
        found.append(Member(name, method, crc, compressed, full, header))
        place = extra_start + extra_length + comment_length
    return found


def _name(name, flags, system, extra):
    """Decode a name: UTF-8 by flag, extra field or system, else code page 437."""
    if flags & 0x800:
        return name.decode("utf-8")
    for kind, content in _extra_fields(extra):
        # after a version, the checksum of the name that is meant
        if kind == 0x7075 and content[1:5] == struct.pack("<I", zlib.crc32(name)):
            return content[5:].decode("utf-8")
    if system == UNIX:  # Info-ZIP writes the names of the file system as they are
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return name.decode("cp437")


def _extra_fields(extra):
    """Pairs (kind, content) of an entry's extra field."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        yield kind, extra[place + 4 : place + 4 + length]
        place += 4 + length


def _position(parts, part, offset):
    if part >= len(parts.starts):
        raise BadArchiveError(f"part {part + 1} of it is missing")
    return parts.starts[part] + offset


def _find_directory(parts):
    """Size, position and number of entries of the central directory."""
    count = min(parts.total, 22 + FULL_16)
    tail_start = parts.total - count
    tail = parts.read_at(tail_start, count)
    place = tail.rfind(END)
    if place < 0:
        raise BadArchiveError("it has no directory: the last part is cut short")
    last, part, _, entries, size, offset = struct.unpack_from("<4H2I", tail, place + 4)
    locator = tail[max(0, place - 20) : place]
    if locator[:4] == LOCATOR_64:
        where, at, number = struct.unpack_from("<IQI", locator, 4)
        record = parts.read_at(_position(parts, where, at), 56)
        if record[:4] != END_64:
            raise BadArchiveError("its directory is damaged")
        part, _, entries, size, offset = struct.unpack_from("<IQQQQ", record, 20)
        last = number - 1
    if last + 1 != len(parts.starts):
        raise BadArchiveError(f"it has {last + 1} parts, {len(parts.starts)} are here")
    return size, _position(parts, part, offset), entries


def _wide(extra, size, compressed, offset, part):
    """Replace fields that are too small by those of the Zip64 extra field."""
    wide = dict(_extra_fields(extra)).get(1)
    if wide is not None:
        fields = []
        for value, full, form in (
            (size, FULL_32, "<Q"),
            (compressed, FULL_32, "<Q"),
            (offset, FULL_32, "<Q"),
            (part, FULL_16, "<I"),
        ):
            if value == full:
                (value,) = struct.unpack_from(form, wide)
                wide = wide[struct.calcsize(form) :]
            fields.append(value)
        return fields
    return size, compressed, offset, part


def extract(paths, folder):
    """Write all files of an archive that are not there yet.

    Arguments
    ---------
    paths : list of pathlib.Path
        All parts in order, the .zip last.
    folder : pathlib.Path
        Where the files go.

    Raises
    ------
    BadArchiveError
        When a part is missing or damaged; the message names the file.
    """
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing:
        raise BadArchiveError(f"missing parts: {', '.join(missing)}")
    sizes = {path: Path(path).stat().st_size for path in paths[:-1]}
    for path, size in sizes.items():  # all but the last have one size
        if size < max(sizes.values()):
            raise BadArchiveError(f"part {path} is cut short")
    root = Path(folder).resolve()
    with Parts(paths) as parts:
        for member in tqdm(members(parts), Path(paths[-1]).name, leave=False):
            target = (root / member.name).resolve()
            if member.name.endswith("/") or not target.is_relative_to(root):
                continue
            if not target.exists() or target.stat().st_size != member.size:
                try:
                    _extract_member(parts, member, target)
                except (BadArchiveError, zlib.error) as error:
                    raise BadArchiveError(f"{member.name}: {error}") from error


def _extract_member(parts, member, target):
    header = parts.read_at(member.start, 30)
    if header[:4] != LOCAL:
        raise BadArchiveError("it is not where the directory says")
    if member.method not in (STORED, DEFLATED):
        raise BadArchiveError(f"unknown compression {member.method}")
    start = member.start + 30 + sum(struct.unpack_from("<HH", header, 26))
    unpacker = zlib.decompressobj(-15) if member.method == DEFLATED else None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    crc, left = 0, member.compressed
    try:
        with open(partial, "wb") as file:
            while left:
                block = parts.read_at(start, min(BLOCK, left))
                start, left = start + len(block), left - len(block)
                block = unpacker.decompress(block) if unpacker else block
                crc = zlib.crc32(block, crc)
                file.write(block)
        if crc != member.crc:
            raise BadArchiveError("wrong checksum")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
