"""Small disks whose power can be cut: a filesystem in a file, on a loop device.

`LoopDisk.cut` shuts the filesystem down as it stands: what was not written back is gone and nothing
more gets written, not even the journal that is in memory; a mount afterwards replays what reached
the disk. Only for filesystems with a journal. Mounting is a system call, not a program: there are
tens of thousands of them in a campaign.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.loop_mount import DETACH, at_the_end
from tests.memory_dir import memory_dir
from tests.torture.campaign import Skip

MIB: Final = 1 << 20
# _IOR('X', 125, __u32); the flag says not to flush the log.
_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = struct.pack("I", 2)
_MAKE: Final = {
    # Nothing is kept for root, and nothing is left to be initialised after the first mount.
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=0"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "--mixed"],
}
SIZE_BYTES: Final = {"ext4": 96 * MIB, "xfs": 300 * MIB, "btrfs": 128 * MIB}
_OPTIONS: Final = {"btrfs": "nodiscard"}
_libc: Final = ctypes.CDLL(None, use_errno=True)
# Of linux/sched.h and sys/mount.h; `os.unshare` is of Python 3.12.
_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18
_UNMOUNT_WAIT_S: Final = 20.0
_COPY_BYTES: Final = 8 * MIB


class NotMountable(OSError):
    """What is on a disk is no filesystem any more, for its own driver."""


@dataclass
class LoopDisk:
    """One filesystem on a loop device.

    Attributes:
        template: what `restore` makes the disk again.
    """

    kind: str
    image: Path
    device: str
    mount_point: Path
    template: Path | None = field(default=None)

    def mount(self) -> None:
        """Mount it; replays the journal.

        Raises:
            NotMountable: the filesystem says no.
        """
        options = _OPTIONS.get(self.kind, "").encode()
        names = (self.device, str(self.mount_point), self.kind)
        try:
            _check(_libc.mount(*(name.encode() for name in names), 0, options), self.device)
        except OSError as error:
            raise NotMountable(*error.args) from error

    def unmount(self) -> None:
        """Unmount it; waits for the last descriptors of processes that were just killed."""
        ends_at_s = time.monotonic() + _UNMOUNT_WAIT_S
        while True:
            try:
                _check(_libc.umount2(str(self.mount_point).encode(), 0), str(self.mount_point))
            except OSError as error:
                if error.errno == errno.EINVAL:  # not mounted
                    return
                if error.errno != errno.EBUSY or time.monotonic() > ends_at_s:
                    raise
                time.sleep(0.001)

    def cut(self) -> None:
        """Cut the power of the mounted disk; a second time changes nothing."""
        with suppress(OSError), opened_for_cutting([self]) as cut:
            cut()

    def keep_as_template(self) -> None:
        """Remember what is on the unmounted disk."""
        self.template = self.image.with_suffix(".template")
        # What mkfs wrote as zeros, such as an empty journal, becomes a hole.
        command = ["cp", "--sparse=always", str(self.image), str(self.template)]
        subprocess.run(command, check=True)

    def restore(self) -> None:
        """Put the template onto the unmounted disk."""
        assert self.template is not None
        copy_sparse(self.template, self.image)


def own_mounts() -> None:
    """Mount from now on for this process and its children alone, where root may.

    A process that gets mounts of its own (`unshare -m`, `ip netns exec`) begins with a copy of
    those that are there. A filesystem in that copy stays alive when it is unmounted here: a mount
    afterwards would find the one whose power was cut, and no journal would be replayed.
    Only for a process that has a single thread.
    """
    with suppress(PermissionError):  # who may not do this cannot mount either
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "/")


@contextmanager
def opened_for_cutting(disks: Sequence[LoopDisk]) -> Iterator[Cutter]:
    """Open mounted disks, so that their power can be cut within microseconds."""
    fds = [os.open(disk.mount_point, os.O_RDONLY | os.O_DIRECTORY) for disk in disks]
    try:
        yield Cutter(fds)
    finally:
        for fd in fds:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts the power of several mounted disks, one right after the other."""

    fds: Sequence[int]

    def __call__(self) -> None:
        for fd in self.fds:
            with suppress(OSError):  # it is off already
                fcntl.ioctl(fd, _SHUTDOWN, _NO_LOG_FLUSH)


@contextmanager
def loop_disks(kinds: Sequence[str]) -> Iterator[list[LoopDisk]]:
    """Make unmounted disks with new filesystems, and clear everything away afterwards.

    Raises:
        Skip: not possible on this machine.
    """
    skip_unless_possible(kinds)
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="torture-", dir=memory_dir()))
        stack.callback(shutil.rmtree, root)
        yield [_make(stack, root, index, kind) for index, kind in enumerate(kinds)]


def skip_unless_possible(kinds: Sequence[str]) -> None:
    """Raise Skip where filesystems of these kinds cannot be made and mounted."""
    if os.geteuid() != 0:
        raise Skip("mounting a loop device takes root")
    tools = ["losetup", *(f"mkfs.{kind}" for kind in kinds)]
    missing = sorted({tool for tool in tools if shutil.which(tool) is None})
    if missing:
        raise Skip(f"a loop disk takes {', '.join(missing)}")
    known = Path("/proc/filesystems").read_text().split()
    unknown = sorted({kind for kind in kinds if kind not in known})
    if unknown:
        raise Skip(f"the kernel does not know {', '.join(unknown)}")


def make_filesystem(kind: str, image: Path) -> None:
    """Make a new filesystem in a new sparse file."""
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES[kind])
    subprocess.run([*_MAKE[kind], image], check=True, capture_output=True)


@contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """Attach a file to a loop device.

    Raises:
        Skip: there are none here.
    """
    command = ["losetup", "--find", "--show", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip(f"no loop devices here: {done.stderr.strip()}")
    device = done.stdout.strip()
    with at_the_end(DETACH, device):
        yield device


def copy_sparse(source: Path, target: Path) -> None:
    """Make `target` equal to `source`; only what is data is copied."""
    size_bytes = source.stat().st_size
    read_fd = os.open(source, os.O_RDONLY)
    write_fd = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.ftruncate(write_fd, 0)
        os.ftruncate(write_fd, size_bytes)
        for start, end in _data(read_fd, size_bytes):
            os.lseek(write_fd, start, os.SEEK_SET)
            for offset in range(start, end, _COPY_BYTES):
                os.sendfile(write_fd, read_fd, offset, min(_COPY_BYTES, end - offset))
    finally:
        os.close(read_fd)
        os.close(write_fd)


def _data(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _make(stack: ExitStack, root: Path, index: int, kind: str) -> LoopDisk:
    image, mount_point = root / f"{index}.{kind}", root / f"{index}"
    mount_point.mkdir()
    make_filesystem(kind, image)
    device = stack.enter_context(loop_device(image))
    disk = LoopDisk(kind, image, device, mount_point)
    try:
        disk.mount()
    except OSError as error:
        raise Skip(f"{kind} cannot be mounted here: {error}") from error
    stack.callback(disk.unmount)
    disk.unmount()
    return disk


def _check(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
