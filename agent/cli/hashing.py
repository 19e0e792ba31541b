"""Hashing files of this machine before they are sent or compared.

It runs before the event loop starts: there is nothing to do meanwhile, and Ctrl-C ends it at once.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.cli.failures import naming, usage
from agent.cli.output import Output
from agent.cli.progress import Meter, display
from depot.artifact import ArtifactHash

BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file as it was when it was hashed."""

    path: Path
    sha256: ArtifactHash
    size_bytes: int


def hash_files(paths: Sequence[Path], output: Output) -> list[LocalFile]:
    """Hash each file, with one progress bar over all of them.

    Raises:
        Failure: a path is not a regular file.
        OSError: a path cannot be looked at or read.
    """
    total_bytes = sum(_size_bytes(path) for path in paths)
    with Meter(display(output), "hashing", total_bytes) as meter:
        return [
            _labelled(meter, f"{index}/{len(paths)} {path.name}", path)
            for index, path in enumerate(paths, 1)
        ]


def hash_file(path: Path, advance: Callable[[int], None]) -> LocalFile:
    """Hash one file, block by block; `advance` is told the size of each."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
            advance(len(block))
    return LocalFile(path, ArtifactHash(digest.digest()), size_bytes)


def _labelled(meter: Meter, label: str, path: Path) -> LocalFile:
    meter.label(label)
    with naming(path):
        return hash_file(path, meter.advance)


def _size_bytes(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        # A pipe or a device has no size to reserve and cannot be read a second time.
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "something else"
        raise usage(f"{path}: expected a regular file, found {what}")
    return found.st_size
