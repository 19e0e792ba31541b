"""What makes a directory a dataset: its metadata directory, and the marker in it.

A directory that holds something else is never made one, and a path without a marker is missing, not
empty. The directories are durable before the marker is written in them.
"""

from __future__ import annotations

from pathlib import Path

from depot.dataset import small_files
from depot.dataset.disk import SYSTEM, Disk
from depot.dataset.marker import MARKER_NAME, Marker, decode_marker
from depot.dataset.small_files import METADATA, STAGING, exists, make_directory, sync_directory
from depot.errors import DatasetForeign, DatasetUnusable


def read_marker(root_fd: int, path: Path, disk: Disk = SYSTEM) -> Marker:
    """Read the marker of the dataset at `path`.

    Raises:
        DatasetUnusable: there is none, or it is damaged.
    """
    content = small_files.read_document(root_fd, f"{METADATA}/{MARKER_NAME}", disk)
    if content is None:
        raise DatasetUnusable(
            f"{path} has no marker: not mounted, the wrong disk, or a new one "
            f"('sled-agent datasets replace {path}' takes a new disk into use; "
            "a sled that never had any begins with 'sled-agent init')"
        )
    return decode_marker(content, path)


def prepare_metadata(root_fd: int, path: Path, disk: Disk = SYSTEM) -> None:
    """Make the metadata directories in a directory that is empty but for what systems put there.

    Raises:
        DatasetForeign: something else is in it.
    """
    if not exists(root_fd, METADATA, disk):
        others = sorted(set(disk.listdir(root_fd)) - {"lost+found", ".zfs"})
        if others:
            raise DatasetForeign(
                f"{path} is not empty and has no marker (found {others[0]!r} and "
                f"{len(others) - 1} more); expected an empty directory"
            )
    for name in (METADATA, STAGING):
        make_directory(root_fd, name, disk)
    # Or a power cut takes the directory, and the marker in it, away again.
    for name in (".", METADATA):
        sync_directory(root_fd, name, disk)
