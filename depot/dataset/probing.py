"""Proving that a device takes what is written and gives back what it holds. All calls block.

Whoever is told by a device that a copy is wrong asks this first: one that fails as a whole says
nothing about any copy. A write that finds no room tells nothing of what is read, so where there is
none, what is there already is read past the page cache.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from depot.dataset import small_files
from depot.dataset.dataset import Dataset
from depot.dataset.marker import MARKER_FILE, decode_marker
from depot.errors import DatasetUnusable
from depot.os_errors import SyncFailed, full_disk

_PROBE: Final = b"probe"


def probe(dataset: Dataset) -> None:
    """Prove that a file can be made, synced, read back and removed; refill the reserve.

    Where there is no room for it, prove that the marker can be read.

    Raises:
        OSError: it cannot, also when the device gives back something else. An error of a full disk
            is of one that can be read.
    """
    fd, name = _stage(dataset)
    try:
        if _write(dataset, fd):
            _check_probe(dataset, name)
        else:
            _check_marker(dataset)
    except BaseException:
        with suppress(OSError):  # or it stands for what a read said
            dataset.discard(name)
        raise
    dataset.discard(name)
    dataset.refill_reserve()


def _stage(dataset: Dataset) -> tuple[int, str]:
    try:
        return dataset.stage()
    except OSError as error:
        if full_disk(error):
            _check_marker(dataset)
        raise


def _write(dataset: Dataset, fd: int) -> bool:
    """Write, sync and close the probe; False: there is no room for it."""
    try:
        try:
            small_files.write_all(fd, memoryview(_PROBE), dataset.disk)
            dataset.sync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if isinstance(error, SyncFailed) or not full_disk(error):
            raise
        return False
    return True


def _check_probe(dataset: Dataset, name: str) -> None:
    # One that takes what is written and gives nothing back must not condemn every copy on it.
    if _read(dataset, name) != _PROBE:
        raise OSError(errno.EIO, "what was written is not what is read")


def _check_marker(dataset: Dataset) -> None:
    content = _read(dataset, MARKER_FILE)
    try:
        found = decode_marker(content or b"", dataset.path)
    except DatasetUnusable as error:
        raise OSError(errno.EIO, "the marker cannot be read any more") from error
    # The rest of it may have been written anew since.
    if found.dataset_id != dataset.marker.dataset_id:
        raise OSError(errno.EIO, "another marker is read than was there")


def _read(dataset: Dataset, name: str) -> bytes | None:
    try:
        return dataset.read_document(name)
    except OSError as error:
        if full_disk(error):  # which no read can mean: it is not to pass for a write's
            raise OSError(errno.EIO, "a read says that there is no room") from error
        raise
