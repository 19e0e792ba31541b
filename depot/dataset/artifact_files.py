"""Which files of a dataset are artifacts: regular files named by a hash, and nothing else.

Rules kept here:
- A link, a directory or a FIFO of such a name is not one, and holds nobody who looks.
- A name that may be gone after a power cut does not count (`Durability.is_certain`).
- A file that cannot even be looked at counts as empty, which no copy is: one bad sector is no
  reason to do without all the others.

Names are relative to the dataset's directory descriptor.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from typing import Final

from depot.artifact import ArtifactHash
from depot.dataset.disk import Disk
from depot.dataset.durability import Durability
from depot.dataset.found_files import FoundFiles
from depot.dataset.small_files import directory
from depot.streams.file_state import FileState

ARTIFACT_NAME: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BAD_INODE: Final = (errno.EIO, errno.EUCLEAN)


def scan(root_fd: int, durability: Durability, disk: Disk) -> FoundFiles:
    """Find every artifact."""
    # A descriptor of its own: scans through a shared one would share its position.
    with directory(root_fd, ".", disk) as root:
        names = disk.listdir(root)
    # In order, as the database of copies and every list of artifacts is: what is made of each
    # then lies side by side in memory, and who goes through one goes through the others.
    is_artifact, digest_of = ARTIFACT_NAME.fullmatch, bytes.fromhex
    named = ((name, digest_of(name)) for name in sorted(names) if is_artifact(name))
    return _found(named, root_fd, durability, disk)


def look_at(
    root_fd: int, artifacts: Iterable[ArtifactHash], durability: Durability, disk: Disk
) -> FoundFiles:
    """Find the files of some artifacts, where there are any."""
    return _found(((str(each), each) for each in artifacts), root_fd, durability, disk)


def _found(
    named: Iterable[tuple[str, bytes]], root_fd: int, durability: Durability, disk: Disk
) -> FoundFiles:
    found = FoundFiles()
    is_certain, look = durability.is_certain, disk.stat  # once, not for each of so many
    for name, digest in named:
        if not is_certain(digest):
            continue
        try:
            status = look(name, dir_fd=root_fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _BAD_INODE:
                raise
            found.add(digest, 0)
            continue
        if stat.S_ISREG(status.st_mode):
            changed_at_s = status.st_ctime_ns / 1e9
            found.add(digest, status.st_size, status.st_ino, status.st_mtime_ns, changed_at_s)
    return found


def open_file(root_fd: int, artifact: ArtifactHash, disk: Disk) -> tuple[int, FileState]:
    """Open an artifact for reading: descriptor and state of its file.

    Raises:
        FileNotFoundError: there is none; a link or directory of its name is not one.
    """
    # O_NONBLOCK: a FIFO in the file's place must not hang the reader.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = disk.open(str(artifact), flags, dir_fd=root_fd)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(errno.ENOENT, "a symbolic link") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file")
    except OSError:
        os.close(fd)
        raise
    return fd, FileState(found.st_size, found.st_mtime_ns)
