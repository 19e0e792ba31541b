"""What the filesystem under a dataset promises about its data, and a call that Python lacks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_OF_LOCAL_DISKS: Final = frozenset({"btrfs", "ext4", "xfs"})
_REPORTS_SYNCFS_SINCE: Final = (5, 17)
# Since then the kernel has cachestat. Before 6.12 xfs may wait for an inode's lock when a file that
# was only read is closed.
_TELLS_PAGE_CACHE_SINCE: Final = {"btrfs": (6, 5), "ext4": (6, 5), "xfs": (6, 12)}
# _IOR('f', 1, long), FS_NOCOW_FL, and what a filesystem without such flags answers.
_GET_FLAGS: Final = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_NO_COPY_ON_WRITE: Final = 0x00800000
_NO_FLAGS: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS})
_DIRTY: Final = re.compile(rb"^(?:Dirty|Writeback): +(\d+) kB$", re.MULTILINE)


class Mount(NamedTuple):
    """A mounted filesystem: where, of which type, with which options."""

    point: Path
    kind: str
    options: frozenset[str]


def checksums_data(path: Path) -> bool:
    """Tell whether the filesystem at `path` checks its data when it is read."""
    mount = _mount_at(path)
    return mount is not None and verifies(mount)


def is_exempt(fd: int) -> bool:
    """Tell whether a filesystem that checks its data keeps no checksums of an open file.

    btrfs keeps none of files without copy-on-write (`chattr +C`). The flag is the file's own: a
    directory hands it to what is made in it, and a file with bytes in it keeps what it has.
    """
    flags = bytearray(struct.calcsize("l"))
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    except OSError as error:
        return error.errno not in _NO_FLAGS
    return bool(int.from_bytes(flags[:4], sys.byteorder) & _NO_COPY_ON_WRITE)


def syncs_whole(path: Path) -> bool:
    """Tell whether `sync_whole` makes the files at `path` durable, or says that it did not."""
    mount = _mount_at(path)
    return mount is not None and reports_syncfs(mount.kind, os.uname().release)


def reports_syncfs(kind: str, release: str) -> bool:
    """Tell whether a kernel's `syncfs` reports every failure of such a filesystem.

    Since Linux 5.8 it reports data that could not be written back, since 5.17 also what the
    filesystem itself says. One that passes its calls on may sync nothing and say nothing.
    """
    return kind in _OF_LOCAL_DISKS and _version(release) >= _REPORTS_SYNCFS_SINCE


def _version(release: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return tuple(map(int, found.groups())) if found else (0, 0)


def has_page_cache(path: Path) -> bool:
    """Tell whether what memory has of a file at `path` can be had without asking a device."""
    mount = _mount_at(path)
    return mount is not None and tells_page_cache(mount.kind, os.uname().release)


def tells_page_cache(kind: str, release: str) -> bool:
    """Tell whether a kernel says which pages of such a filesystem's files are in memory.

    And that to open, read and close one waits for nobody else, which is true of none that passes
    its calls on.
    """
    since = _TELLS_PAGE_CACHE_SINCE.get(kind)
    return since is not None and _version(release) >= since


def sync_whole(fd: int) -> None:
    """Make everything durable that is on the filesystem of an open file.

    Raises:
        OSError: something was not, since `fd` was opened or since this was last told.
    """
    if _libc().syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def dirty_bytes() -> int:
    """How much waits to be written back, on all disks together."""
    with open("/proc/meminfo", "rb", buffering=0) as file:
        return sum(int(kib) for kib in _DIRTY.findall(file.read())) << 10


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """Find the mount that holds `path`: the innermost, and the last one mounted there."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(holding), key=lambda mount: len(mount.point.parts), default=None)


def verifies(mount: Mount) -> bool:
    """Tell whether such a filesystem returns an error instead of data that has rotted.

    As far as mounts say; single files of a btrfs may be exempt from it, see `is_exempt`. Whether
    somebody has switched the checksums of a ZFS off cannot be asked of the kernel.
    """
    if mount.kind == "btrfs":
        return not mount.options & {"nodatasum", "nodatacow"}
    return mount.kind == "zfs"


def _mount_at(path: Path) -> Mount | None:
    mounts = [
        Mount(Path(p.mountpoint), p.fstype, frozenset(p.opts.split(",")))
        for p in psutil.disk_partitions(all=True)
    ]
    return mount_of(path.resolve(), mounts)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
