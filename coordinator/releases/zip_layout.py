"""Which files a zip has and where their bytes are, read strictly.

Zip readers disagree about archives that say a thing twice, and an archive made to be read in two
ways passes any check of one of them. So there is one reading here, or none:

- The end record is the very last thing in the file, without a comment; the directory ends where it
  begins. The members, each behind a header of its own that says what the directory says, fill the
  file from its first byte to the directory: no overlap, no gap, nothing before, nothing after.
- Names are UTF-8, unique, relative, without dots for parts. Members are files or directories,
  stored or deflated, in one volume, not encrypted.
- Counts and sizes are bounded, by what is said of them, before anything is unpacked. What is
  unpacked later is held to what was said.

Checksums (CRC-32) are compared where they are written twice, and not with the bytes: every file
that is used has a SHA-256 or a signature.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from coordinator.errors import BadRelease
from coordinator.releases.repository import is_plain

_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_EXTRA: Final = struct.Struct("<2H")
_BEGINS: Final = (b"PK\3\4", b"PK\5\6")
"""Of a zip; the second one of a zip without members."""
_NO_COUNT: Final = 0xFFFF
_NO_SIZE: Final = 0xFFFF_FFFF
_ZIP64_EXTRA: Final = 1
_STORED: Final = 0
_DEFLATED: Final = 8
_ENCRYPTED: Final = 0x1
_DESCRIBED_LATER: Final = 0x8
_HARMLESS_FLAGS: Final = 0x6 | _DESCRIBED_LATER | 0x800
_DEFLATE_MOST: Final = 1032
"""No bytes deflate better than this."""

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLimits:
    """What a zip may say of itself.

    Attributes:
        members: how many there may be.
        directory_bytes: what the list of them may take.
        total_bytes: of all members, unpacked.
        growth: how many times its own size a zip may unpack to, beyond `free_bytes`.
        free_bytes: what any zip may unpack to.
    """

    members: int = 65_536
    directory_bytes: int = 32 << 20
    total_bytes: int = 64 << 30
    growth: int = 100
    free_bytes: int = 1 << 30


DEFAULT_ZIP_LIMITS: Final = ZipLimits()


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a zip.

    Attributes:
        name: its path.
        offset_bytes: where its packed bytes begin.
        packed_bytes: how many of them there are.
        size_bytes: what they unpack to, as the zip says.
        deflated: whether they are packed at all.
    """

    name: str
    offset_bytes: int
    packed_bytes: int
    size_bytes: int
    deflated: bool


@dataclass(frozen=True, slots=True)
class _Directory:
    offset_bytes: int
    size_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """What both the directory and the header before a member say; and, at last, where it is."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    header_offset_bytes: int
    mode: int = 0


def read_layout(read_at: ReadAt, size_bytes: int, limits: ZipLimits) -> tuple[Member, ...]:
    """Find every file of the zip of `size_bytes` bytes that `read_at(offset, size)` reads.

    Raises:
        BadRelease: it is not a zip, or not one that is read here; the message says why.
    """
    directory = _find_directory(read_at, size_bytes, limits)
    content = read_at(directory.offset_bytes, directory.size_bytes)
    entries = list(_parse_directory(content, directory.count))
    names = _checked_names(entries)
    _check_sizes(entries, size_bytes, limits)
    offsets = _check_headers(read_at, entries, directory.offset_bytes)
    return tuple(
        Member(name, offset, entry.packed_bytes, entry.size_bytes, entry.method == _DEFLATED)
        for name, entry, offset in zip(names, entries, offsets, strict=True)
        if not name.endswith("/")
    )


def _find_directory(read_at: ReadAt, size_bytes: int, limits: ZipLimits) -> _Directory:
    end = size_bytes - _END.size
    if end < 0:
        raise _bad(f"it is not a zip file: found {size_bytes} bytes, expected at least {_END.size}")
    fields = _END.unpack(read_at(end, _END.size))
    if fields[0] != b"PK\5\6" or fields[7] != 0:
        if read_at(0, 4) not in _BEGINS:
            raise _bad("it is not a zip file: it neither begins nor ends like one")
        raise _bad(
            "expected its end record in the last 22 bytes; it was cut short, or something "
            "(a comment, too) follows it"
        )
    found, ends_at = _directory_64(read_at, end, fields[1:7]) or (fields[1:7], end)
    disk, first_disk, count_here, count, directory_bytes, offset = found
    if (disk, first_disk) != (0, 0) or count_here != count:
        raise _bad("it is one of several volumes")
    if offset + directory_bytes != ends_at:
        raise _bad(
            f"its directory is said to be {directory_bytes} bytes at {offset}, expected it to end "
            f"at {ends_at}"
        )
    if count > limits.members or directory_bytes > limits.directory_bytes:
        raise _bad(
            f"{count} members, listed in {directory_bytes} bytes; at most {limits.members} in "
            f"{limits.directory_bytes} are read"
        )
    return _Directory(offset, directory_bytes, count)


def _directory_64(
    read_at: ReadAt, end: int, small: Sequence[int]
) -> tuple[tuple[int, ...], int] | None:
    """What the zip64 end record says, and where it is; None without one."""
    locator, record = end - _LOCATOR.size, end - _LOCATOR.size - _END_64.size
    if record < 0 or read_at(locator, 4) != b"PK\6\7":
        if _NO_COUNT in small[2:4] or _NO_SIZE in small[4:6]:
            raise _bad("it refers to a zip64 end record and has none")
        return None
    _, disk, offset, disks = _LOCATOR.unpack(read_at(locator, _LOCATOR.size))
    fields = _END_64.unpack(read_at(record, _END_64.size))
    if (disk, offset, disks) != (0, record, 1) or fields[:2] != (b"PK\6\6", _END_64.size - 12):
        raise _bad(f"expected its zip64 end record at {record}, found it said to be at {offset}")
    large = fields[4:]
    for said, full, meant in zip(small, (_NO_COUNT,) * 4 + (_NO_SIZE,) * 2, large, strict=True):
        if said not in (full, meant):
            raise _bad(f"its end records disagree: {said} and {meant}")
    return large, record


def _parse_directory(content: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for number in range(count):
        fields = _unpack(_CENTRAL, content, at, b"PK\1\2", f"entry {number} of its directory")
        name_at = at + _CENTRAL.size
        extra_at = name_at + fields[10]
        comment_at = extra_at + fields[11]
        at = comment_at + fields[12]
        if at > len(content):
            raise _bad(f"entry {number} of its directory runs past the directory's end")
        if fields[13] != 0:
            raise _bad("it is one of several volumes")
        entry = _Entry(
            name=content[name_at:extra_at],
            flags=fields[3],
            method=fields[4],
            crc=fields[7],
            packed_bytes=fields[8],
            size_bytes=fields[9],
            header_offset_bytes=fields[16],
            mode=fields[15] >> 16,
        )
        yield _with_zip64(entry, content[extra_at:comment_at])
    if at != len(content):
        raise _bad(f"{len(content) - at} bytes of its directory belong to none of {count} members")


def _with_zip64(entry: _Entry, extra: bytes) -> _Entry:
    """Put the sizes of the zip64 field in the place of those that do not fit."""
    wanted = [
        name
        for name in ("size_bytes", "packed_bytes", "header_offset_bytes")
        if getattr(entry, name) == _NO_SIZE
    ]
    if not wanted:
        return entry
    field = _extra_field(extra, _ZIP64_EXTRA)
    if field is None or len(field) < 8 * len(wanted):
        raise _bad(f"{_shown(entry.name)} refers to zip64 sizes and has none")
    values = struct.unpack_from(f"<{len(wanted)}Q", field)
    return replace(entry, **dict(zip(wanted, values, strict=True)))


def _extra_field(extra: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + _EXTRA.size <= len(extra):
        number, size_bytes = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if number == wanted:
            return extra[at : at + size_bytes]
        at += size_bytes
    return None


def _checked_names(entries: Sequence[_Entry]) -> list[str]:
    names: dict[str, None] = {}
    for entry in entries:
        name = _checked_name(entry)
        if name in names:
            raise _bad(f"it has {name!r} twice")
        names[name] = None
    return list(names)


def _checked_name(entry: _Entry) -> str:
    shown = _shown(entry.name)
    try:
        name = entry.name.decode()
    except UnicodeDecodeError:
        raise _bad(f"the name {shown} is not UTF-8") from None
    if not is_plain(name.removesuffix("/")):
        raise _bad(f"the name {shown} is not a plain relative path")
    if entry.flags & _ENCRYPTED:
        raise _bad(f"{shown} is encrypted")
    if entry.flags & ~_HARMLESS_FLAGS:
        raise _bad(f"{shown} has flags that are not known: {entry.flags:#06x}")
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        raise _bad(f"{shown} is a symbolic link")
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise _bad(f"{shown} is neither a file nor a directory: mode {entry.mode:o}")
    return name


def _check_sizes(entries: Sequence[_Entry], size_bytes: int, limits: ZipLimits) -> None:
    for entry in entries:
        _check_size(entry)
    total_bytes = sum(entry.size_bytes for entry in entries)
    most_bytes = min(limits.total_bytes, limits.free_bytes + limits.growth * size_bytes)
    if total_bytes > most_bytes:
        raise _bad(
            f"{size_bytes} bytes would unpack to {total_bytes}, at most {most_bytes} are allowed"
        )


def _check_size(entry: _Entry) -> None:
    shown = _shown(entry.name)
    if entry.method not in (_STORED, _DEFLATED):
        raise _bad(f"{shown}: expected it stored or deflated, found method {entry.method}")
    if entry.method == _STORED and entry.packed_bytes != entry.size_bytes:
        raise _bad(
            f"{shown} is stored and said to be both {entry.packed_bytes} and "
            f"{entry.size_bytes} bytes long"
        )
    if entry.size_bytes > entry.packed_bytes * _DEFLATE_MOST:
        raise _bad(f"{shown}: {entry.packed_bytes} bytes cannot unpack to {entry.size_bytes}")
    if entry.name.endswith(b"/") and entry.size_bytes:
        raise _bad(f"{shown} is a directory of {entry.size_bytes} bytes")


def _check_headers(read_at: ReadAt, entries: Sequence[_Entry], end: int) -> list[int]:
    """Where each member's bytes begin, once they are known to fill the file up to `end`."""
    offsets = [0] * len(entries)
    order = sorted(range(len(entries)), key=lambda each: entries[each].header_offset_bytes)
    begins = [entries[number].header_offset_bytes for number in order] + [end]
    if begins[0] != 0:
        raise _bad(f"{begins[0]} bytes stand before its first member")
    for number, next_at in zip(order, begins[1:], strict=True):
        entry = entries[number]
        offsets[number] = _check_header(read_at, entry, next_at)
        after = offsets[number] + entry.packed_bytes
        if after != next_at and read_at(after, min(next_at - after, 32)) not in _descriptors(entry):
            raise _bad(f"{next_at - after} bytes after {_shown(entry.name)} belong to no member")
    return offsets


def _check_header(read_at: ReadAt, entry: _Entry, next_at: int) -> int:
    at = entry.header_offset_bytes
    shown = _shown(entry.name)
    fields = _unpack(_LOCAL, read_at(at, _LOCAL.size), 0, b"PK\3\4", f"the header of {shown}")
    name_at = at + _LOCAL.size
    offset = name_at + fields[9] + fields[10]
    if offset + entry.packed_bytes > next_at:
        raise _bad(f"{shown} overlaps what follows it at byte {next_at}")
    rest = read_at(name_at, fields[9] + fields[10])
    said = _Entry(
        name=rest[: fields[9]],
        flags=fields[2],
        method=fields[3],
        crc=fields[6],
        packed_bytes=fields[7],
        size_bytes=fields[8],
        header_offset_bytes=0,
    )
    header = _with_zip64(said, rest[fields[9] :])
    if not _agree(header, entry):
        raise _bad(f"{shown}: the header before it says something else than the directory")
    return offset


def _agree(header: _Entry, entry: _Entry) -> bool:
    if (header.name, header.flags, header.method) != (entry.name, entry.flags, entry.method):
        return False
    said = (header.crc, header.packed_bytes, header.size_bytes)
    meant = (entry.crc, entry.packed_bytes, entry.size_bytes)
    # Who writes a stream may know none or some of them only afterwards.
    unknown = (0,) if entry.flags & _DESCRIBED_LATER else ()
    return all(each in (right, *unknown) for each, right in zip(said, meant, strict=True))


def _descriptors(entry: _Entry) -> Iterator[bytes]:
    """What may follow a member that was written as a stream, to say what it was."""
    if not entry.flags & _DESCRIBED_LATER:
        return
    values = (entry.crc, entry.packed_bytes, entry.size_bytes)
    for sizes in ("2L", "2Q"):
        with suppress(struct.error):  # they do not fit the short form
            described = struct.pack(f"<L{sizes}", *values)
            yield described
            yield b"PK\7\10" + described


def _unpack(
    layout: struct.Struct, content: bytes, at: int, signature: bytes, what: str
) -> tuple[int, ...]:
    if content[at : at + 4] != signature or len(content) - at < layout.size:
        raise _bad(f"{what} is not where it is expected")
    return layout.unpack_from(content, at)


def _shown(name: bytes) -> str:
    return repr(name[:200].decode(errors="backslashreplace"))


def _bad(why: str) -> BadRelease:
    return BadRelease(f"the zip is refused: {why}")
