"""What an ingest computes of its blocks: the hash of them all, and the digest of each.

Chained, that is one pass: the state of the one hash after each block is that block's digest.
Separate, it is two passes, each in a thread of its own. `depot.streams.block_digests` says what
either is good for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from depot.artifact import ArtifactHash
from depot.streams import resumable_sha256
from depot.streams.block_digests import BlockDigests, block_count
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.resumable_sha256 import ResumableSha256

Update = Callable[[memoryview], object]


class Told(Protocol):
    """Is told the digest of each block."""

    def __call__(self, digest: bytes, *, chained: bool) -> None:
        """One more block."""


class StreamHash(Protocol):
    """Hashes the blocks of one stream, of which only the last may be short.

    Attributes:
        updates: each takes every block in turn, in a thread of its own.
        chained: of which kind the block digests are.
    """

    updates: tuple[Update, ...]
    chained: bool

    def digest(self) -> ArtifactHash:
        """SHA-256 of all of it so far."""

    def block_digests(self, size_bytes: int) -> BlockDigests | None:
        """Those of a whole stream; None when it has one block at most, or is not whole."""


class _Whole:
    """Of one block, whose digest is that of the whole."""

    def __init__(self) -> None:
        self.chained = False
        self._whole = hashlib.sha256()
        self.updates: tuple[Update, ...] = (self._whole.update,)

    def digest(self) -> ArtifactHash:
        return ArtifactHash(self._whole.digest())

    def block_digests(self, size_bytes: int) -> BlockDigests | None:
        del size_bytes
        return None


class _Separate(_Whole):
    """Each block is hashed twice: as a part of the whole, and alone."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self.updates = (self._whole.update, self._take_block)
        self._told = told
        self._digests: list[bytes] = []

    def block_digests(self, size_bytes: int) -> BlockDigests | None:
        return _joined(self.digest(), size_bytes, self._digests, chained=False)

    def _take_block(self, content: memoryview) -> None:
        digest = hashlib.sha256(content).digest()
        self._digests.append(digest)
        self._told(digest, chained=False)


class _Chained:
    """Each block is hashed once."""

    def __init__(self, told: Told) -> None:
        self.chained = True
        self.updates: tuple[Update, ...] = (self._take_block,)
        self._told = told
        self._hash = ResumableSha256()
        self._digests: list[bytes] = []

    def digest(self) -> ArtifactHash:
        return ArtifactHash(self._hash.digest())

    def block_digests(self, size_bytes: int) -> BlockDigests | None:
        return _joined(self.digest(), size_bytes, self._digests, chained=True)

    def _take_block(self, content: memoryview) -> None:
        self._hash.update(content)
        full = len(content) == BLOCK_SIZE_BYTES
        digest = self._hash.state() if full else self._hash.digest()
        self._digests.append(digest)
        self._told(digest, chained=True)


def stream_hash(length_bytes: int | None, told: Told, *, chained: bool) -> StreamHash:
    """Make the hash of a stream of that length (None: unknown); chained where that is possible."""
    if length_bytes is not None and length_bytes <= BLOCK_SIZE_BYTES:
        return _Whole()
    if chained and resumable_sha256.available():
        return _Chained(told)
    return _Separate(told)


def _joined(
    artifact: ArtifactHash, size_bytes: int, digests: list[bytes], *, chained: bool
) -> BlockDigests | None:
    if len(digests) <= 1 or len(digests) != block_count(size_bytes):
        return None
    return BlockDigests(artifact, size_bytes, b"".join(digests), chained=chained)
