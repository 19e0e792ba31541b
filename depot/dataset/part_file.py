"""A file that becomes an artifact only when its bytes are the artifact's. Blocking; for threads.

Only a regular file is ever replaced: a rename over a device or a pipe would take it from everybody,
and one over a symbolic link would leave the file it leads to as it was. A link is followed.

On disk, beside the target: `.<sha256>.part`, kept when a transfer breaks so that the next one can
build on it, and locked while one is in use; a transfer that finds it in use makes one under a name
of its own and keeps nothing. What is found is hashed again: a part is trusted for its bytes alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, Self

from depot.artifact import ArtifactHash
from depot.errors import HashMismatch

BLOCK_BYTES: Final = 1 << 20
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class PartFile:
    """An artifact on its way to `target`.

    Attributes:
        size_bytes: how much of it is there.
    """

    def __init__(self, target: Path, artifact: ArtifactHash, path: Path, fd: int) -> None:
        self.size_bytes = 0
        self._target = target
        self._artifact = artifact
        self._path = path
        self._fd = fd
        self._hash = hashlib.sha256()
        self._kept = path == _kept_path(target, artifact)

    @classmethod
    def open(cls, target: Path, artifact: ArtifactHash, *, resume: bool) -> Self:
        """Open what an earlier transfer left, or begin anew.

        Raises:
            OSError: `target` cannot be written.
        """
        target = _replaceable(target)
        kept = _kept_path(target, artifact)
        fd = _open_locked(kept)
        if fd is None:
            other = kept.with_name(f".{artifact}.{secrets.token_hex(8)}.part")
            return cls(target, artifact, other, os.open(other, _FLAGS | os.O_EXCL, 0o666))
        part = cls(target, artifact, kept, fd)
        try:
            if resume:
                part._take_in()
            else:
                part.restart()
        except OSError:
            os.close(fd)
            raise
        return part

    @property
    def whole(self) -> bool:
        """Whether the bytes that are there are the artifact."""
        return self._hash.digest() == self._artifact.digest

    def append(self, block: bytes) -> None:
        """Write and hash the next bytes."""
        left = memoryview(block)
        while left:
            left = left[os.write(self._fd, left) :]
        self._hash.update(block)
        self.size_bytes += len(block)

    def restart(self) -> None:
        """Drop what is there."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def publish(self) -> None:
        """Give the file its final name, durably.

        Raises:
            HashMismatch: it is not the artifact; what was there is dropped.
        """
        if not self.whole:
            actual = ArtifactHash(self._hash.digest())
            self.restart()
            raise HashMismatch(self._artifact, actual)
        os.fsync(self._fd)
        self._path.replace(self._target)
        self._close()
        _sync_directory(self._target.parent)

    def close(self) -> None:
        """Let go of a file that was not published; what is worth keeping stays."""
        if self._fd < 0:
            return
        if not self._kept or not self.size_bytes:
            self._path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _take_in(self) -> None:
        while block := os.read(self._fd, BLOCK_BYTES):
            self._hash.update(block)
            self.size_bytes += len(block)


def _replaceable(target: Path) -> Path:
    """Where the file that `target` names is, or is to be.

    Raises:
        OSError: something is there that is no file, or its directory is not there.
    """
    if target.is_dir():
        raise IsADirectoryError(f"{target}: expected a file, found a directory")
    # Asked of the path as given: what /dev/stdout leads to has no path of its own.
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target}: expected a regular file, found something else")
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    # Named here, or the name of the part would stand in the error.
    if not target.parent.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    return target


def _kept_path(target: Path, artifact: ArtifactHash) -> Path:
    return target.with_name(f".{artifact}.part")


def _open_locked(path: Path) -> int | None:
    """Open and lock `path`; None when another transfer has it."""
    while True:
        fd = os.open(path, _FLAGS, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        # Whoever had it renamed or removed it between our opening and our locking.
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
