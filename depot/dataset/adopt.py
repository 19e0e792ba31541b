"""Taking an empty disk in the place of one that is gone, and no other disk. Blocking.

Whoever runs this at three in the morning may have mounted the wrong disk, or none at all. So a path
under which nothing is mounted, a disk with anything on it, and every disk that is somebody's
dataset are left exactly as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from depot.dataset.disk import Disk
from depot.dataset.marker import MARKER_NAME, Marker, encode_marker
from depot.dataset.metadata import prepare_metadata, read_marker
from depot.dataset.small_files import METADATA, directory, exists, open_root, write_document
from depot.errors import DatasetForeign, DatasetUnusable

SYSTEMS_OWN: Final = frozenset({"lost+found", ".zfs"})
"""What systems put into a filesystem that is empty otherwise."""
_HALF_MADE: Final = frozenset({"staging"})


def adopt(path: Path, marker: Marker, *, expects_mount: bool, disk: Disk) -> None:
    """Make the empty disk at `path` the dataset that `marker` describes.

    What a crash of this function left half-made is finished.

    Raises:
        DatasetUnusable: nothing is mounted there, or it is a dataset of this sled.
        DatasetForeign: there is something on it, or it is another sled's.
        OSError: the device fails.
    """
    with open_root(path) as root:
        check_mounted(path, expects_mount=expects_mount)
        if exists(root, f"{METADATA}/{MARKER_NAME}", disk):
            _refuse_dataset(read_marker(root, path, disk), path, marker.sled_id)
        _check_empty(root, path, disk)
        prepare_metadata(root, path, disk)
        write_document(root, f"{METADATA}/{MARKER_NAME}", encode_marker(marker), disk)


def check_mounted(path: Path, *, expects_mount: bool) -> None:
    """Raise DatasetUnusable when a disk is to be mounted at `path` and none is."""
    if expects_mount and not path.is_mount():
        raise DatasetUnusable(
            f"nothing is mounted at {path}: it is a directory of the disk around it, "
            "and would fill that one; mount the new disk there first"
        )


def _refuse_dataset(found: Marker, path: Path, sled_id: str) -> None:
    if found.sled_id != sled_id:
        raise DatasetForeign(
            f"the disk of {path} is a dataset of sled {found.sled_id}, this is sled {sled_id}: it "
            "is left alone"
        )
    raise DatasetUnusable(
        f"the disk of {path} is dataset {found.dataset_id} of this sled, not an empty one: nothing "
        "is replaced ('datasets attach' takes it into use)"
    )


def _check_empty(root_fd: int, path: Path, disk: Disk) -> None:
    others = set(disk.listdir(root_fd)) - SYSTEMS_OWN - {METADATA}
    if exists(root_fd, METADATA, disk):
        with directory(root_fd, METADATA, disk) as metadata:
            others |= {f"{METADATA}/{n}" for n in set(disk.listdir(metadata)) - _HALF_MADE}
    if others:
        raise DatasetForeign(
            f"the disk of {path} is not empty (found {min(others)!r} and {len(others) - 1} more): "
            "it is left alone; only an empty disk takes another one's place"
        )
