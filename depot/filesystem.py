"""What the filesystem under a dataset promises about its data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil


class Mount(NamedTuple):
    """A mounted filesystem: where, of which type, with which options."""

    point: Path
    kind: str
    options: frozenset[str]


def checksums_data(path: Path) -> bool:
    """Tell whether the filesystem at `path` checks its data when it is read."""
    mounts = [
        Mount(Path(p.mountpoint), p.fstype, frozenset(p.opts.split(",")))
        for p in psutil.disk_partitions(all=True)
    ]
    mount = mount_of(path.resolve(), mounts)
    return mount is not None and verifies(mount)


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """Find the mount that holds `path`: the innermost, and the last one mounted there."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(holding), key=lambda mount: len(mount.point.parts), default=None)


def verifies(mount: Mount) -> bool:
    """Tell whether such a filesystem returns an error instead of data that has rotted."""
    if mount.kind == "btrfs":
        return not mount.options & {"nodatasum", "nodatacow"}
    return mount.kind == "zfs"
