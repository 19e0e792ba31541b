"""What tests publish."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from agent.snapshots.archive import Archive
from agent.snapshots.parts import PART_BYTES
from agent.snapshots.values import Checksum, Metadata, Midstates, Version
from depot.streams.resumable_sha256 import ResumableSha256

_numbers = itertools.count(1)


def checksum_of(content: bytes) -> Checksum:
    return Checksum(hashlib.sha256(content).digest())


def midstates_of(content: bytes, stride_bytes: int = PART_BYTES) -> Midstates:
    digest, states = ResumableSha256(), []
    for end in range(stride_bytes, len(content), stride_bytes):
        digest.update(memoryview(content)[end - stride_bytes : end])
        states.append(digest.state())
    return Midstates(stride_bytes, tuple(states))


def metadata_of(content: bytes, compression: str | None = None) -> Metadata:
    return Metadata(
        checksum=checksum_of(content),
        size_bytes=len(content),
        version=f"v{next(_numbers):06}",
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        compression=compression,
        midstates=midstates_of(content) if len(content) > PART_BYTES else None,
    )


def put(archive: Archive, name: str, content: bytes, stored: bytes | None = None) -> Version:
    """Publish some bytes; `stored` is what the archive gets in their place."""
    return archive.put(name, [content if stored is None else stored], metadata_of(content))


def read(archive: Archive, version: Version, start: int, stop: int) -> bytes:
    return b"".join(archive.read(version, start, stop))


def database(path: Path, rows: int = 400) -> bytes:
    """A real database of some hundred KiB; its bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, what TEXT NOT NULL)")
        connection.executemany(
            "INSERT INTO things (what) VALUES (?)", ((f"{n:04}" * 100,) for n in range(rows))
        )
        connection.execute("CREATE INDEX by_what ON things (what)")
        connection.commit()
    return path.read_bytes()
