"""Block digests: SHA-256 of each 1 MiB block of an artifact, so that a part can be checked alone.

There are two kinds. *Separate*: each block is hashed for itself. *Chained*: what a full block is
compared with is the state that SHA-256 of the whole has after it, begun from the state before it; a
short last block is compared with the whole hash. Chained digests come with the hash of the whole at
no price, and prove no less: another block that leads from one state to the other would be a
collision of SHA-256's compression, from which its strength as a whole derives.

Kept beside the artifact as `.sled-depot/blocks/<64 hex>`, outside the artifact namespace, and bound
to it: the file names the artifact and its size, and has a checksum over everything. It is derived:
one that is missing, torn or of another version is made anew from a full verification, so writing
it needs no sync. An artifact of one block needs none: its own name is the digest. Pure.

The file, all integers big-endian::

    8 bytes   "sleddig" and the format version (1: separate, 2: chained)
    32        the artifact's SHA-256
    8         its size in bytes
    32 each   the digest of each block, the last of which may be shorter
    32        SHA-256 of all of the above
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import Final

from depot.artifact import ArtifactHash
from depot.document import Unreadable
from depot.streams import resumable_sha256
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.resumable_sha256 import ResumableSha256

SEPARATE_FORMAT: Final = 1
CHAINED_FORMAT: Final = 2
_MAGIC: Final = b"sleddig"
_HEAD: Final = struct.Struct(">8s32sQ")
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class BlockDigest:
    """What one block is compared with.

    Attributes:
        start: where it begins in the artifact, when it is chained.
        before: the state before it; None: it is hashed for itself, or is the first.
    """

    digest: bytes
    chained: bool = False
    start: int = 0
    before: bytes | None = None

    def matches(self, content: memoryview) -> bool:
        """Tell whether `content` is that block, whole."""
        if not self.chained:
            return hashlib.sha256(content).digest() == self.digest
        running = ResumableSha256(self.before, self.start)
        running.update(content)
        full = len(content) == BLOCK_SIZE_BYTES
        return (running.state() if full else running.digest()) == self.digest


@dataclass(frozen=True, slots=True)
class BlockDigests:
    """What each block of one artifact hashes to.

    Attributes:
        size_bytes: of the artifact.
        digests: 32 bytes for each block, in order.
        chained: of which kind they are.
        first_block: the number of the block that `digests` begin with, in a part; None: it is all.
    """

    artifact: ArtifactHash
    size_bytes: int
    digests: bytes
    chained: bool = False
    first_block: int | None = None

    def __post_init__(self) -> None:
        expected = block_count(self.size_bytes) * _DIGEST_BYTES
        if self.first_block is None and len(self.digests) != expected:
            raise ValueError(f"expected {expected} bytes of digests, found {len(self.digests)}")

    @classmethod
    def of_one_block(cls, artifact: ArtifactHash, size_bytes: int) -> BlockDigests:
        """Derive the digests of an artifact that is at most one block: its name says them."""
        return cls(artifact, size_bytes, artifact.digest * block_count(size_bytes))

    def part(self, start: int, end: int) -> BlockDigests:
        """What the blocks with bytes `start` to `end` are compared with, of all, and no more."""
        assert self.first_block is None
        # One that is chained needs the one before it as well.
        first = max(0, start // BLOCK_SIZE_BYTES - self.chained)
        wanted = slice(first * _DIGEST_BYTES, block_count(end) * _DIGEST_BYTES)
        return replace(self, digests=self.digests[wanted], first_block=first)

    def block_bounds(self, offset_bytes: int) -> tuple[int, int]:
        """Start and end, in bytes, of the block that holds `offset_bytes`."""
        start = offset_bytes - offset_bytes % BLOCK_SIZE_BYTES
        return start, min(start + BLOCK_SIZE_BYTES, self.size_bytes)

    def of_block(self, block_start: int) -> BlockDigest:
        """What the block that starts at `block_start` is compared with."""
        digest = self._entry(block_start)
        if not self.chained:
            return BlockDigest(digest)
        before = self._entry(block_start - BLOCK_SIZE_BYTES) if block_start else None
        return BlockDigest(digest, chained=True, start=block_start, before=before)

    def matches(self, block_start: int, content: memoryview) -> bool:
        """Tell whether `content` is the whole block that starts at `block_start`."""
        return self.of_block(block_start).matches(content)

    def _entry(self, block_start: int) -> bytes:
        place = block_start // BLOCK_SIZE_BYTES - (self.first_block or 0)
        first = place * _DIGEST_BYTES
        if not 0 <= first < len(self.digests):
            raise RuntimeError(f"there is no digest here of the block at byte {block_start}")
        return self.digests[first : first + _DIGEST_BYTES]


def block_count(size_bytes: int) -> int:
    """How many blocks an artifact of `size_bytes` has."""
    return -(-size_bytes // BLOCK_SIZE_BYTES)


def encode_digests(digests: BlockDigests) -> bytes:
    """Serialise for the file."""
    assert digests.first_block is None
    head = _HEAD.pack(_magic(digests.chained), digests.artifact.digest, digests.size_bytes)
    body = head + digests.digests
    return body + hashlib.sha256(body).digest()


def decode_digests(content: bytes, artifact: ArtifactHash, size_bytes: int | None) -> BlockDigests:
    """Parse the file of an artifact; `size_bytes` is None when nobody knows its size.

    Raises:
        Unreadable: torn, altered, of another version, about something else, or of a kind that
            cannot be compared with on this machine.
    """
    body, checksum = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != checksum:
        raise Unreadable(f"the block digests of {artifact} do not match their checksum")
    magic, digest, found_bytes = _HEAD.unpack_from(body)
    chained = magic == _magic(chained=True)
    expected_bytes = found_bytes if size_bytes is None else size_bytes
    expected = (_magic(chained), artifact.digest, expected_bytes)
    if (magic, digest, found_bytes) != expected:
        raise Unreadable(f"the block digests found are not those of {artifact}, {size_bytes} bytes")
    if chained and not resumable_sha256.available():
        raise Unreadable(f"the block digests of {artifact} are chained; there is no libcrypto here")
    try:
        return BlockDigests(artifact, found_bytes, body[_HEAD.size :], chained)
    except ValueError as error:
        raise Unreadable(f"the block digests of {artifact}: {error}") from error


def _magic(chained: bool) -> bytes:
    return _MAGIC + bytes([CHAINED_FORMAT if chained else SEPARATE_FORMAT])
