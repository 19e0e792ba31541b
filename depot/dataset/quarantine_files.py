"""What is done to the quarantine of one dataset, and to damaged files on it. All calls block.

Functions for `Mirror.call` and `Mirror.read`, apart from `Dataset` only for its length. A file is
named as `QuarantinedFile.path` or an artifact's hash names it, relative to the dataset.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from depot.artifact import ArtifactHash
from depot.dataset import small_files
from depot.dataset.dataset import Dataset
from depot.dataset.quarantine_names import QUARANTINE, QuarantinedFile
from depot.dataset.small_files import METADATA
from depot.errors import KeptInQuarantine
from depot.streams.block_digests import BlockDigest


def set_aside(dataset: Dataset, artifact: ArtifactHash, name: str) -> int | None:
    """Move what stands under an artifact's name into the quarantine, durably.

    Returns its size in bytes; None when nothing stands there.
    """
    dataset.check_identity()
    return move_aside(dataset, artifact, name)


def move_aside(dataset: Dataset, artifact: ArtifactHash, name: str) -> int | None:
    """Do what `set_aside` does, where the path has been looked at."""
    size_bytes = dataset.artifact_size(artifact)
    if size_bytes is None:
        return None
    _make_directory(dataset)
    dataset.disk.rename(str(artifact), f"{QUARANTINE}/{name}", dir_fd=dataset.root)
    # Where it went first: it may be the last copy, and must not be lost between two directories.
    with dataset.durability.syncing(names=False):
        small_files.sync_directory(dataset.root, QUARANTINE, dataset.disk)
    _sync_names(dataset)
    return size_bytes


def put_back(dataset: Dataset, artifact: ArtifactHash, name: str) -> None:
    """Undo what `move_aside` did, however far it came; the caller makes the name durable."""
    if not small_files.exists(dataset.root, str(artifact), dataset.disk):
        with suppress(FileNotFoundError):
            dataset.disk.rename(f"{QUARANTINE}/{name}", str(artifact), dir_fd=dataset.root)


def scan(dataset: Dataset) -> list[QuarantinedFile]:
    """List the quarantine."""
    found: list[QuarantinedFile] = []
    try:
        with small_files.directory(dataset.root, QUARANTINE, dataset.disk) as fd:
            for name in dataset.disk.listdir(fd):
                if QuarantinedFile.parse(name, 0):
                    entry = dataset.disk.stat(name, dir_fd=fd)
                    file = QuarantinedFile.parse(name, entry.st_size)
                    if file and stat.S_ISREG(entry.st_mode):
                        found.append(file)
    except FileNotFoundError:
        return found  # no quarantine yet, or one that somebody tidies at this moment
    return found


def purge(dataset: Dataset, file: QuarantinedFile) -> None:
    """Delete a file of the quarantine, if it is still there."""
    dataset.check_identity()
    dataset.discard(file.path)


def restore(dataset: Dataset, file: QuarantinedFile) -> None:
    """Give a file its artifact's name back, durably.

    Raises:
        KeptInQuarantine: something stands under the name, a directory perhaps.
        SyncFailed: after a power cut it may be in quarantine again. It may be the last copy, so
            the name is not taken back.
    """
    dataset.check_identity()
    if small_files.exists(dataset.root, str(file.artifact), dataset.disk):
        # Not an OSError: that would be held against the dataset.
        raise KeptInQuarantine(f"something that is no artifact has the name {file.artifact}")
    dataset.disk.rename(file.path, str(file.artifact), dir_fd=dataset.root)
    _sync_names(dataset)


def read_part(dataset: Dataset, path: str, offset_bytes: int, size_bytes: int) -> bytes:
    """Read a part of a file past the page cache; less only where the file ends."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = dataset.disk.open(path, flags, dir_fd=dataset.root)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        dataset.disk.forget(fd)
        content = b""
        while part := dataset.disk.pread(
            fd, size_bytes - len(content), offset_bytes + len(content)
        ):
            content += part
        return content
    finally:
        os.close(fd)


def read_block(
    dataset: Dataset, path: str, offset_bytes: int, size_bytes: int, digest: BlockDigest
) -> bytes | None:
    """Read one block of a damaged copy; None unless it is the one that `digest` is of."""
    content = read_part(dataset, path, offset_bytes, size_bytes)
    return content if digest.matches(memoryview(content)) else None


def _sync_names(dataset: Dataset) -> None:
    # Said to whoever syncs the same directory now: the kernel reports a failure once.
    with dataset.durability.syncing(names=True):
        small_files.sync_names(dataset.root, dataset.disk)


def _make_directory(dataset: Dataset) -> None:
    if not small_files.exists(dataset.root, QUARANTINE, dataset.disk):
        small_files.make_directory(dataset.root, QUARANTINE, dataset.disk)
        small_files.sync_directory(dataset.root, METADATA, dataset.disk)
