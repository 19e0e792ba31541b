"""What a filesystem would lose with the power, because a sync of it failed.

Linux marks the pages of a failed sync clean: they are read back from memory, a later sync says that
all is well and writes none of them, and they are gone with the power. So it is here for what was
written to a file since its last good sync. What is written once more is written, with all of its
page. Of a directory it is the names that were given since its last good sync: each is gone, or is
that of the file that it took the place of. Removals are never lost here, nor are directories.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = 4096


@dataclass
class _File:
    """Numbers of pages: written since the last sync, and lost in one that failed."""

    unsynced: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    def write(self, offset_bytes: int, size_bytes: int) -> None:
        pages = range(offset_bytes // _PAGE_BYTES, -(-(offset_bytes + size_bytes) // _PAGE_BYTES))
        self.unsynced.update(pages)
        self.lost.difference_update(pages)

    def truncate(self, size_bytes: int) -> None:
        for pages in (self.unsynced, self.lost):
            pages.difference_update([n for n in pages if n * _PAGE_BYTES >= size_bytes])

    def sync(self, *, failed: bool) -> None:
        if failed:
            self.lost |= self.unsynced
        self.unsynced.clear()


@dataclass
class _Names:
    """By name that was given, what had it at the last good sync: where that is kept, or nothing."""

    unsynced: dict[str, Path | None] = field(default_factory=dict)
    lost: dict[str, Path | None] = field(default_factory=dict)

    def sync(self, *, failed: bool) -> None:
        if failed:
            self.lost |= self.unsynced
        self.unsynced.clear()


class LostSyncs:
    """Watches what is done to files and directories, told apart by their inodes.

    Args:
        kept: a directory on their filesystem, to be made here, for files that lost their names.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._files: dict[int, _File] = {}
        self._directories: dict[int, _Names] = {}
        self._count = 0

    def begin(self) -> None:
        """Whatever is there now is durable."""
        with self._lock:
            self._files.clear()
            self._directories.clear()
            shutil.rmtree(self._kept, ignore_errors=True)
            self._kept.mkdir()

    def create(self, fd: int) -> None:
        """A file was made."""
        with self._lock:
            self._files[os.fstat(fd).st_ino] = _File()

    def write(self, fd: int, offset_bytes: int, size_bytes: int) -> None:
        """A part of a file was written."""
        with self._lock:
            self._file(fd).write(offset_bytes, size_bytes)

    def truncate(self, file: int | str, size_bytes: int) -> None:
        """A file was cut short, or made longer."""
        with self._lock:
            self._file(file).truncate(size_bytes)

    def sync(self, fd: int, *, failed: bool) -> None:
        """A file or a directory was synced, or should have been."""
        with self._lock:
            number = os.fstat(fd).st_ino
            for record in (self._files.get(number), self._directories.get(number)):
                if record is not None:
                    record.sync(failed=failed)

    def give_name(self, path: str) -> None:
        """A file is about to get this name."""
        with self._lock:
            names, name = self._names(os.path.dirname(path)), os.path.basename(path)
            if name in names.lost:
                names.unsynced[name] = names.lost.pop(name)
            elif name not in names.unsynced:
                names.unsynced[name] = self._keep(path)

    def take_name(self, path: str) -> None:
        """A name was removed."""
        with self._lock:
            names, name = self._names(os.path.dirname(path)), os.path.basename(path)
            names.unsynced.pop(name, None)
            names.lost.pop(name, None)

    def copy_after_cut(self, source: Path, target: Path) -> int:
        """Copy what would be left of a directory if the power went now.

        Returns how many files and names are lost; without any there is no copy.
        """
        with self._lock:
            pages, names = self._files.values(), self._directories.values()
            if not any(x.lost for x in pages) and not any(x.lost for x in names):
                return 0
            shutil.copytree(source, target, copy_function=_link)
            count = 0
            for found, _, files in os.walk(source):
                there = target / Path(found).relative_to(source)
                count += sum(self._lose_pages(there / name) for name in files)
                count += self._lose_names(os.stat(found).st_ino, there)
            if not count:  # what was lost was removed
                shutil.rmtree(target)
            return count

    def _file(self, file: int | str) -> _File:
        return self._files.setdefault(os.stat(file).st_ino, _File())

    def _names(self, directory: str) -> _Names:
        return self._directories.setdefault(os.stat(directory).st_ino, _Names())

    def _keep(self, path: str) -> Path | None:
        self._count += 1
        kept = self._kept / str(self._count)
        try:
            os.link(path, kept)
        except (FileNotFoundError, PermissionError):  # nothing is there, or a directory
            return None
        return kept

    def _lose_pages(self, path: Path) -> bool:
        try:
            file = self._files.get(path.stat().st_ino)
        except FileNotFoundError:  # removed meanwhile
            return False
        if file is None or not file.lost:
            return False
        content = bytearray(path.read_bytes())
        for page in file.lost:
            part = slice(page * _PAGE_BYTES, (page + 1) * _PAGE_BYTES)
            content[part] = bytes(len(content[part]))
        path.unlink()  # its bytes are those of the file that is still in use
        path.write_bytes(content)
        return True

    def _lose_names(self, directory: int, target: Path) -> int:
        names = self._directories.get(directory, _Names())
        for name, before in names.lost.items():
            (target / name).unlink(missing_ok=True)
            if before is not None:
                os.link(before, target / name)
        return len(names.lost)


def _link(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # removed meanwhile
        os.link(source, target)
