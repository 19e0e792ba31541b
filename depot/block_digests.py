"""Block digests: SHA-256 of each 1 MiB block of an artifact, so that a part can be checked alone.

Kept beside the artifact as `.sled-depot/blocks/<64 hex>`, outside the artifact namespace, and bound
to it: the file names the artifact and its size, and has a checksum over everything. It is derived:
one that is missing, torn or of another version is made anew from a full verification, so writing
it needs no sync. An artifact of one block needs none: its own name is the digest. Pure.

The file, all integers big-endian::

    8 bytes   "sleddig" and the format version (1)
    32        the artifact's SHA-256
    8         its size in bytes
    32 each   the digest of each block, the last of which may be shorter
    32        SHA-256 of all of the above
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from depot.artifact import ArtifactHash
from depot.blocks import BLOCK_SIZE_BYTES
from depot.document import Unreadable

FORMAT: Final = 1
_MAGIC: Final = b"sleddig" + bytes([FORMAT])
_HEAD: Final = struct.Struct(">8s32sQ")
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class BlockDigests:
    """What each block of one artifact hashes to.

    Attributes:
        size_bytes: of the artifact.
        digests: 32 bytes for each block, in order.
    """

    artifact: ArtifactHash
    size_bytes: int
    digests: bytes

    def __post_init__(self) -> None:
        expected = block_count(self.size_bytes) * _DIGEST_BYTES
        if len(self.digests) != expected:
            raise ValueError(f"expected {expected} bytes of digests, found {len(self.digests)}")

    @classmethod
    def of_one_block(cls, artifact: ArtifactHash, size_bytes: int) -> BlockDigests:
        """Derive the digests of an artifact that is at most one block: its name says them."""
        return cls(artifact, size_bytes, artifact.digest * block_count(size_bytes))

    def block_bounds(self, offset_bytes: int) -> tuple[int, int]:
        """Start and end, in bytes, of the block that holds `offset_bytes`."""
        start = offset_bytes - offset_bytes % BLOCK_SIZE_BYTES
        return start, min(start + BLOCK_SIZE_BYTES, self.size_bytes)

    def digest_of(self, block_start: int) -> bytes:
        """What the block that starts at `block_start` hashes to."""
        first = block_start // BLOCK_SIZE_BYTES * _DIGEST_BYTES
        return self.digests[first : first + _DIGEST_BYTES]

    def matches(self, block_start: int, content: memoryview) -> bool:
        """Tell whether `content` is the whole block that starts at `block_start`."""
        return hashlib.sha256(content).digest() == self.digest_of(block_start)


def block_count(size_bytes: int) -> int:
    """How many blocks an artifact of `size_bytes` has."""
    return -(-size_bytes // BLOCK_SIZE_BYTES)


def encode_digests(digests: BlockDigests) -> bytes:
    """Serialise for the file."""
    head = _HEAD.pack(_MAGIC, digests.artifact.digest, digests.size_bytes)
    body = head + digests.digests
    return body + hashlib.sha256(body).digest()


def decode_digests(content: bytes, artifact: ArtifactHash, size_bytes: int | None) -> BlockDigests:
    """Parse the file of an artifact; `size_bytes` is None when nobody knows its size.

    Raises:
        Unreadable: torn, altered, of another version, or about something else.
    """
    body, checksum = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != checksum:
        raise Unreadable(f"the block digests of {artifact} do not match their checksum")
    magic, digest, found_bytes = _HEAD.unpack_from(body)
    expected_bytes = found_bytes if size_bytes is None else size_bytes
    if (magic, digest, found_bytes) != (_MAGIC, artifact.digest, expected_bytes):
        raise Unreadable(f"the block digests found are not those of {artifact}, {size_bytes} bytes")
    try:
        return BlockDigests(artifact, found_bytes, body[_HEAD.size :])
    except ValueError as error:
        raise Unreadable(f"the block digests of {artifact}: {error}") from error
