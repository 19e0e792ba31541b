"""An upload's body on its way to a file: bounded in size, its hash taken as it passes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from coordinator.uploads.errors import no_room
from depot.artifact import ArtifactHash
from depot.errors import TooLarge
from depot.streams.sources import Source

BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """What came."""

    sha256: ArtifactHash
    size_bytes: int


def check_size(size_bytes: int, most_bytes: int) -> None:
    """Raise TooLarge for an upload that is not taken."""
    if size_bytes > most_bytes:
        raise TooLarge(
            f"expected an upload of at most {most_bytes} bytes, found {size_bytes} or more"
        )


def receive(
    source: Source, path: Path, most_bytes: int, moved: Callable[[int], None] = lambda _: None
) -> Arrived:
    """Write a body to a new file, and tell `moved` of it. Blocks; `source.abort` ends it.

    Raises:
        TooLarge: it goes on after `most_bytes`.
        QuotaExceeded, Io: the disk does not take it.
        BodyTimeout, LengthMismatch, ConnectionError: see `Source`.
    """
    hashed, size_bytes = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with _created(path) as file:
        while count := source.readinto(buffer):
            size_bytes += count
            moved(count)
            check_size(size_bytes, most_bytes)
            hashed.update(buffer[:count])
            _write(file.fileno(), buffer[:count])
    return Arrived(ArtifactHash(hashed.digest()), size_bytes)


def _created(path: Path) -> FileIO:
    try:
        return path.open("xb", buffering=0)
    except OSError as error:
        raise no_room(error) from error


def _write(descriptor: int, block: memoryview) -> None:
    try:
        while block:
            block = block[os.write(descriptor, block) :]
    except OSError as error:
        raise no_room(error) from error
