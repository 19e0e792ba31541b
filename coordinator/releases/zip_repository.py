"""A release in a zip: `repo/metadata` and `repo/targets`, read where they are, never extracted."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from pathlib import Path
from typing import Final

from coordinator.errors import BadRelease
from coordinator.releases.repository import BLOCK_BYTES, Body, Damaged, Repository
from coordinator.releases.zip_layout import DEFAULT_ZIP_LIMITS, Member, ZipLimits, read_layout
from depot.artifact import ArtifactHash

_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_PACKED_BYTES: Final = 64 << 10
"""What is unpacked at a time: what is left of it is copied with each read."""
PREFIXES: Final = ("repo/", "")
"""Where in a zip or a directory a repository may be, the usual place first."""


class ZipRepository(Repository):
    """A zip on a disk.

    Args:
        path: of the zip.
        sha256: of its bytes, when whoever wrote them has it; else it is read when asked for.
        limits: what it may say of itself.

    Raises:
        BadRelease: it is not a zip that is read here.
        OSError: it cannot be read at all.
    """

    def __init__(
        self,
        path: Path,
        *,
        sha256: ArtifactHash | None = None,
        limits: ZipLimits = DEFAULT_ZIP_LIMITS,
    ) -> None:
        self._path = path
        self._sha256 = sha256
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size_bytes = _size_of_file(self._fd, path.name)
            members = read_layout(self._read_at, size_bytes, limits)
        except BaseException:
            os.close(self._fd)
            raise
        self._members = {member.name: member for member in members}
        self._prefix = next(
            (each for each in PREFIXES if f"{each}metadata/timestamp.json" in self._members),
            PREFIXES[0],
        )

    @property
    def file_name(self) -> str:
        """The zip's own name."""
        return self._path.name

    def fingerprint(self) -> ArtifactHash:
        """The SHA-256 of the zip."""
        if self._sha256 is None:
            content = hashlib.sha256()
            at = 0
            while block := os.pread(self._fd, BLOCK_BYTES, at):
                content.update(block)
                at += len(block)
            self._sha256 = ArtifactHash(content.digest())
        return self._sha256

    def open(self, path: str, _most_bytes: int, /) -> Body | None:
        """See `Repository`."""
        member = self._members.get(self._prefix + path)
        if member is None:
            return None
        packed = _Packed(self._fd, member)
        return _Unpacked(packed, member.size_bytes) if member.deflated else packed

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read_at(self, offset: int, size_bytes: int) -> bytes:
        content = bytearray()
        while len(content) < size_bytes:
            block = os.pread(self._fd, size_bytes - len(content), offset + len(content))
            if not block:
                break
            content += block
        return bytes(content)


class _Packed:
    """The bytes of a member as they are in the zip: for a stored one, its own."""

    def __init__(self, fd: int, member: Member) -> None:
        self._fd = fd
        self._at = member.offset_bytes
        self._left_bytes = self.size_bytes = member.packed_bytes

    def read(self, size_bytes: int, /) -> bytes:
        block = os.pread(self._fd, min(size_bytes, self._left_bytes), self._at)
        if not block and self._left_bytes and size_bytes:
            raise Damaged("the zip became shorter while it was read")
        self._at += len(block)
        self._left_bytes -= len(block)
        return block

    def close(self) -> None:
        """Nothing is held: the zip's descriptor is its repository's."""


class _Unpacked:
    """A deflated member, unpacked while it is read, to no more than it was said to be."""

    def __init__(self, packed: _Packed, size_bytes: int) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(_RAW_DEFLATE)
        self.size_bytes = size_bytes
        self._left_bytes = size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        if not self._left_bytes:
            # The member's last byte was given out: the stream has to end there, too.
            if self._next(1):
                raise Damaged(f"it unpacks to more than the {self.size_bytes} bytes it has")
            return b""
        block = self._next(min(size_bytes, self._left_bytes))
        if not block:
            found = self.size_bytes - self._left_bytes
            raise Damaged(f"it unpacks to {found} bytes, expected {self.size_bytes}")
        self._left_bytes -= len(block)
        return block

    def close(self) -> None:
        """Nothing is held."""

    def _next(self, most_bytes: int) -> bytes:
        while not self._inflate.eof:
            # No input makes the decompressor give what it has kept back.
            packed = self._inflate.unconsumed_tail or self._packed.read(_PACKED_BYTES)
            try:
                block = self._inflate.decompress(packed, most_bytes)
            except zlib.error as error:
                raise Damaged(f"it does not unpack: {error}") from error
            if block:
                return block
            if not packed:
                raise Damaged("it does not unpack: its packed bytes end too early")
        if self._inflate.unused_data or self._packed.read(1):
            raise Damaged("bytes follow the end of its packed bytes")
        return b""


def _size_of_file(fd: int, name: str) -> int:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise BadRelease(f"{name}: expected a zip or a directory, found neither")
    return status.st_size
