"""A file on its way to a name. Blocking.

Beside the target: `.<name>.snapshot`, locked while it is written. What a killed download left is
written over by the next one; a second download of the same target is refused.

Rules kept here:
- The target is touched by one rename alone, after the file was synced; the directory is synced
  after it. Whoever opens the target finds the old file or the whole new one.
- A rollback journal or a write-ahead log beside a database belongs to the old file: applied to the
  new one it would damage it. It is set aside before the rename and removed after it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from agent.snapshots.durable import sync_directory
from agent.snapshots.hashing import checksum_of_file
from agent.snapshots.values import Checksum

SQLITE_MAGIC: Final = b"SQLite format 3\0"
JOURNALS: Final = ("-wal", "-journal", "-shm")
_ASIDE: Final = ".replaced"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ALIGNMENT_BYTES: Final = 4096
"""Of what goes past the page cache; most filesystems and disks ask for no more."""


class Landing:
    """The file beside one target."""

    def __init__(self, target: Path) -> None:
        """Open it, empty.

        Raises:
            OSError: the target cannot be written, or is being written.
        """
        self._target = _replaceable(target)
        self._path = self._target.with_name(f".{self._target.name}.snapshot")
        self._fd = _open_locked(self._path, target)
        self._direct_fd = _open_direct(self._fd)
        self._takes_direct = self._direct_fd is not None
        self._placed = False

    def restart(self) -> None:
        """Drop what is there."""
        os.ftruncate(self._fd, 0)

    def write(self, block: bytes | memoryview, offset_bytes: int) -> None:
        """Write at an offset; from any thread.

        It goes to the disk from now on, so that `place` finds little left to wait for.
        """
        _write_all(self._fd, memoryview(block), offset_bytes)
        os.posix_fadvise(self._fd, offset_bytes, len(block), os.POSIX_FADV_DONTNEED)

    def write_aligned(self, block: memoryview, offset_bytes: int) -> None:
        """Write what lies page-aligned in memory at a page-aligned offset; from any thread.

        Past the page cache where the filesystem lets it, and waited for: the check of what comes
        next needs the cores.
        """
        aligned = block[: len(block) - len(block) % _ALIGNMENT_BYTES]
        written = self._write_direct(aligned, offset_bytes)
        if left := block[written:]:
            self.write(left, offset_bytes + written)

    def _write_direct(self, block: memoryview, offset_bytes: int) -> int:
        """Write what can be; how many bytes that were."""
        if self._direct_fd is None or not self._takes_direct:
            return 0
        try:
            return _write_all(self._direct_fd, block, offset_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # It wants another alignment, and will of the next one, too: it is not asked again. What
            # was written is written once more.
            self._takes_direct = False
            return 0

    def checksum(self) -> Checksum:
        """Read it back, and hash it.

        Raises:
            OSError: it cannot be read.
        """
        with open(self._fd, "rb", buffering=0, closefd=False) as file:
            file.seek(0)
            return checksum_of_file(file)

    def place(self) -> None:
        """Give it the target's name, durably.

        Raises:
            OSError: it could not be synced: the target is what it was.
        """
        os.fsync(self._fd)
        aside = self._set_journals_aside()
        self._path.replace(self._target)
        self._placed = True
        sync_directory(self._target.parent)
        for each in aside:
            each.unlink(missing_ok=True)

    def _set_journals_aside(self) -> list[Path]:
        if os.pread(self._fd, len(SQLITE_MAGIC), 0) != SQLITE_MAGIC:
            return []
        aside = []
        for suffix in JOURNALS:
            journal = Path(f"{self._target}{suffix}")
            if journal.exists():
                aside.append(journal.replace(Path(f"{journal}{_ASIDE}")))
        if aside:
            sync_directory(self._target.parent)
        return aside

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._placed:
            # Still locked, so it is ours.
            with suppress(OSError):
                self._path.unlink()
        if self._direct_fd is not None:
            os.close(self._direct_fd)
        os.close(self._fd)


def _write_all(fd: int, block: memoryview, offset_bytes: int) -> int:
    done_bytes = 0
    while done_bytes < len(block):
        done_bytes += os.pwrite(fd, block[done_bytes:], offset_bytes + done_bytes)
    return done_bytes


def _open_direct(fd: int) -> int | None:
    """Open the same file past the page cache; None where that is not to be had."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def _replaceable(target: Path) -> Path:
    """Where the file that `target` names is, or is to be; a link is followed."""
    target = Path(os.path.realpath(target))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a directory", str(target))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "expected a regular file", str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    return target


def _open_locked(path: Path, target: Path) -> int:
    try:
        return _locked(path)
    except OSError as error:
        error.filename = str(target)  # nobody asked for the one beside it
        raise


def _locked(path: Path) -> int:
    while True:
        fd = os.open(path, _FLAGS, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                return fd
        except BlockingIOError:
            os.close(fd)
            raise FileExistsError(
                errno.EEXIST, "another download of this file is under way", str(path)
            ) from None
        except OSError:
            os.close(fd)
            raise
        # It was given its name, or removed, between our opening and our locking.
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
