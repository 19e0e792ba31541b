"""A TUF repository in a directory, as the zip that a coordinator takes.

The same directory makes the same zip, byte for byte: names sorted, no times, nothing compressed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.cli.failures import naming, usage

PARTS: Final = ("metadata", "targets")
PREFIX: Final = "repo/"
_BLOCK_BYTES: Final = 1 << 20
# The earliest that a zip can have.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Packing:
    """What goes into a zip: the root of the repository, and its files below that."""

    root: Path
    files: tuple[Path, ...]
    size_bytes: int


def look_at(directory: Path) -> Packing:
    """Find the repository in `directory`, or in `repo` below it. Blocks.

    Raises:
        Failure: there is none.
    """
    for root in (directory, directory / PREFIX):
        if (root / "metadata" / "timestamp.json").is_file():
            files = tuple(sorted(file for part in PARTS for file in _files(root / part)))
            return Packing(root, files, sum(file.stat().st_size for file in files))
    raise usage(
        f"{directory}: expected a TUF repository, found no metadata/timestamp.json in it, nor in "
        "repo/"
    )


def pack(packing: Packing, path: Path, on_packed: Callable[[int], None]) -> None:
    """Make the zip at `path`. Blocks.

    Args:
        packing: what goes into it.
        path: where there is no file yet.
        on_packed: called with the size of each block; what it raises ends the packing.

    Raises:
        OSError: a file cannot be read, or the zip written.
    """
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in packing.files:
            name = PREFIX + file.relative_to(packing.root).as_posix()
            _add(archive, file, name, on_packed)


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _add(archive: zipfile.ZipFile, file: Path, name: str, on_packed: Callable[[int], None]) -> None:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.file_size = file.stat().st_size
    with naming(file), file.open("rb") as source, archive.open(entry, "w") as target:
        while block := source.read(_BLOCK_BYTES):
            target.write(block)
            on_packed(len(block))
