"""A file into an archive. Blocking.

Rules kept here:
- What is published is what was looked at: the file is hashed when it is there, and again while it
  is sent. If the two differ, nothing is published.
- A database is published only when it is whole: closed, so that nothing of it is in a log beside
  it, and sound by its own judgement.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import zstandard

from agent.snapshots.archive import Archive
from agent.snapshots.databases import require_sound
from agent.snapshots.errors import Changed, Refused, Unfit
from agent.snapshots.hashing import BLOCK_BYTES, HashLane
from agent.snapshots.segments import sums_of
from agent.snapshots.values import ZSTD, Checksum, Head, Metadata, Version

LEVEL: Final = 3
OnProgress = Callable[[int], None]
"""Told how many bytes of the file were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What to publish, and how.

    Attributes:
        path: the file.
        name: of the snapshot.
        raw: whether a database is taken as it is.
        compressed: whether it is stored compressed.
    """

    path: Path
    name: str
    raw: bool = False
    compressed: bool = False


def publish(
    archive: Archive,
    publication: Publication,
    *,
    line: Callable[[str], None],
    progress: OnProgress,
    now: datetime | None = None,
) -> Head:
    """Publish a file; what the archive says of it then.

    Raises:
        Unfit: it is a database that is damaged or in use.
        Changed: it was written to meanwhile.
        SnapshotError: the archive did not take it, or not its metadata.
        OSError: it cannot be read.
    """
    path = publication.path
    if not publication.raw:
        line(require_sound(path))
    sums = sums_of(path)
    if sums is None:
        raise Unfit(f"{path}: expected a regular file")
    checksum, midstates = sums
    line(f"Local checksum: {checksum}")
    metadata = Metadata(
        checksum=checksum,
        size_bytes=path.stat().st_size,
        version=version_of(checksum, now or datetime.now(UTC)),
        created=now or datetime.now(UTC),
        compression=ZSTD if publication.compressed else None,
        midstates=None if publication.compressed else midstates,
    )
    blocks = compared(path, checksum, progress)
    if publication.compressed:
        blocks = packed(blocks)
    version = archive.put(publication.name, blocks, metadata)
    return _as_stored(archive, version, metadata, line)


def compared(path: Path, checksum: Checksum, progress: OnProgress) -> Iterator[bytes]:
    """Give a file's blocks, hashed beside what becomes of them.

    Raises:
        Changed: at the end, if they are not what has that checksum.
        Unfit: it cannot be read.
    """
    done_bytes = 0
    digest = hashlib.sha256()
    with HashLane() as lane:
        for block in _read(path):
            lane.update(digest, block)
            done_bytes += len(block)
            progress(done_bytes)
            yield block
        lane.finish()
    found = Checksum(digest.digest())
    if found != checksum:
        raise Changed(f"{path} changed while it was sent: expected {checksum}, found {found}")


def _read(path: Path) -> Iterator[bytes]:
    # Told apart from what goes wrong with an archive that is a directory.
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise Unfit(f"{path} cannot be read: {error.strerror}") from error


def packed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress a stream into one frame, with a checksum of its own."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    for block in blocks:
        if some := compressor.compress(block):
            yield some
    yield compressor.flush()


def version_of(checksum: Checksum, now: datetime) -> str:
    """What a publisher calls a version: when, what, and that it is this one."""
    return f"{now:%Y%m%dT%H%M%SZ}-{checksum.digest[:4].hex()}-{secrets.token_hex(3)}"


def _as_stored(
    archive: Archive, version: Version, metadata: Metadata, line: Callable[[str], None]
) -> Head:
    """Look at what is there now; a server that keeps no metadata would lose the checksum."""
    head = archive.head(version.name)
    if head.version != version:
        line("Another version was published meanwhile")
        return Head(version, head.stored_bytes, metadata)
    if head.metadata != metadata:
        raise Refused(f"{archive.url} did not keep the metadata of {version.name}: {head.metadata}")
    line(f"Remote checksum: {head.metadata.checksum}")
    line(f"Remote version: {version}")
    return head
