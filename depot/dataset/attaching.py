"""Opening a dataset, finding out what stands on it, opening its files: where its device is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from depot.artifact import ArtifactHash
from depot.dataset.dataset import Dataset
from depot.dataset.disk import Disk
from depot.dataset.found_files import FoundFiles
from depot.dataset.probing import probe
from depot.dataset.space import Space
from depot.device.resident import RemoteFile, file_here, forget
from depot.streams.file_state import FileState


@dataclass(frozen=True, slots=True)
class Attachment:
    """A dataset that was just opened, and what stands on it.

    Attributes:
        mounted: its path is a mount of its own.
        problem: why it cannot be written.
    """

    dataset: Dataset
    files: FoundFiles
    space: Space
    mounted: bool
    problem: OSError | None


def attach(path: Path, require_mountpoint: bool, sled_id: str | None, disk: Disk) -> Attachment:
    """Open, lock, scan and probe the dataset at `path`; raises as `Dataset.attach`."""
    dataset = Dataset.attach(
        path, require_mountpoint=require_mountpoint, sled_id=sled_id, disk=disk
    )
    try:
        files, space = dataset.scan(), dataset.space()
        try:
            probe(dataset)
        except OSError as error:
            return Attachment(dataset, files, space, path.is_mount(), error)
        return Attachment(dataset, files, space, path.is_mount(), None)
    except BaseException:
        dataset.close()
        raise


@dataclass(frozen=True, slots=True)
class Opened:
    """An artifact's file where its dataset is.

    Attributes:
        file: a descriptor there; None when `content` is all there is to read.
        exempt: its filesystem checks what is read, but not of this file.
        state: of the file; None: it is still being written, or is not read again.
    """

    file: int | RemoteFile | None
    size_bytes: int
    content: bytes | None = None
    exempt: bool = False
    state: FileState | None = None


def open_here(dataset: Dataset, artifact: ArtifactHash) -> Opened:
    """Open an artifact in this process."""
    fd, state = dataset.open_artifact(artifact)
    return Opened(fd, state.size_bytes, exempt=_is_exempt(dataset, fd), state=state)


def open_for_another(dataset: Dataset, artifact: ArtifactHash, content_bytes: int) -> Opened:
    """Open an artifact for another process; read it at once if it has at most `content_bytes`."""
    fd, state = dataset.open_artifact(artifact)
    size_bytes, exempt = state.size_bytes, _is_exempt(dataset, fd)
    if size_bytes > content_bytes:
        return Opened(file_here(fd), size_bytes, exempt=exempt, state=state)
    try:
        content = bytearray(size_bytes)
        with memoryview(content) as view:
            filled = 0
            while filled < size_bytes and (count := os.preadv(fd, [view[filled:]], filled)):
                filled += count
        return Opened(None, size_bytes, bytes(content[:filled]), exempt)
    finally:
        os.close(fd)


def open_staged(dataset: Dataset, name: str, *, remote: bool) -> Opened:
    """Open a file that is still being written; its size says nothing yet."""
    fd = dataset.open_staged(name)
    exempt = _is_exempt(dataset, fd)
    return Opened(file_here(fd) if remote else fd, 0, exempt=exempt)


def _is_exempt(dataset: Dataset, fd: int) -> bool:
    return dataset.checksums_data and dataset.disk.is_exempt(fd)


def release(dataset: Dataset) -> None:
    """Let go of a dataset and of every file on it that this process has open."""
    forget(dataset)
    dataset.release()
