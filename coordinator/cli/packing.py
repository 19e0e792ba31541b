"""A TUF repository in a directory, as the zip that a coordinator takes.

The same directory makes the same zip, byte for byte: names sorted, no times, nothing compressed.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def packed(packing: Packing, on_packed: Callable[[int], None]) -> Iterator[Path]:
    """Make a zip for the block; `on_packed` is called with each number of bytes. Blocks.

    Raises:
        OSError: a file cannot be read, or the zip written.
    """
    with tempfile.TemporaryDirectory(prefix="depot-coordinator-") as place:
        path = Path(place) / "release.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for file in packing.files:
                _add(archive, file, PREFIX + file.relative_to(packing.root).as_posix())
                on_packed(file.stat().st_size)
        yield path


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _add(archive: zipfile.ZipFile, file: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.file_size = file.stat().st_size
    with naming(file), file.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _BLOCK_BYTES)
