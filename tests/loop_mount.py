"""Small real filesystems for tests: an ext4 in a file, on a loop device, mounted where wanted.

The device is taken once and kept, so that unmounting and mounting again is the same disk leaving
and returning. `loop_disk` unmounts and detaches on every way out; where loop mounts cannot be had,
it skips the test and says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.needs import Need, lack

FILLER: Final = "somebody-elses.bin"
_TOOLS: Final = ("losetup", "mkfs.ext4", "mount", "umount")
_TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class LoopDisk:
    """A disk that can be filled, made read-only, taken away and brought back."""

    device: str
    mount_point: Path

    def mount(self) -> None:
        _run("mount", "-t", "ext4", self.device, str(self.mount_point))

    def take_away(self) -> None:
        """Unmount, also while files on it are open."""
        _run("umount", "--lazy", str(self.mount_point))

    def remount(self, mode: str) -> None:
        """Make it read-only (`ro`) or writable (`rw`)."""
        _run("mount", "-o", f"remount,{mode}", str(self.mount_point))

    def fill(self) -> None:
        """Take every free byte with a file that is not the agent's."""
        with (self.mount_point / FILLER).open("ab", buffering=0) as file:
            for block_bytes in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(block_bytes))
                except OSError:
                    os.fsync(file.fileno())  # room is counted once it is allocated

    def fill_inodes(self) -> None:
        """Take every free inode with files that are not the agent's."""
        others = self.mount_point / "somebody-elses"
        others.mkdir()
        number = 0
        while os.statvfs(self.mount_point).f_favail:
            (others / str(number)).touch()
            number += 1

    def relieve(self) -> None:
        """Remove what `fill` wrote."""
        (self.mount_point / FILLER).unlink()


@contextmanager
def loop_disk(mount_point: Path, *, size_mib: int, inodes: int | None = None) -> Iterator[LoopDisk]:
    """Mount a new filesystem at `mount_point`, which is made when it is not there."""
    _skip_unless_possible()
    mount_point.mkdir(parents=True, exist_ok=True)
    image = mount_point.with_name(f"{mount_point.name}.ext4")
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    number_of_inodes = [] if inodes is None else ["-N", str(inodes)]
    # No blocks are kept for root, whom the agent is in these tests.
    _run("mkfs.ext4", "-q", "-F", "-m", "0", *number_of_inodes, str(image))
    disk = LoopDisk(_or_skip("losetup", "--find", "--show", str(image)), mount_point)
    try:
        _or_skip("mount", "-t", "ext4", disk.device, str(mount_point))
        yield disk
    finally:
        while os.path.ismount(mount_point):
            disk.take_away()
        _run("losetup", "--detach", disk.device)
        image.unlink(missing_ok=True)


def _skip_unless_possible() -> None:
    if os.geteuid() != 0:
        lack(Need.ROOT, "mounting a loop device takes root")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        lack(Need.MOUNTS, f"a loop mount takes {', '.join(missing)}")


def _or_skip(*command: str) -> str:
    try:
        return _run(*command)
    except subprocess.CalledProcessError as error:
        lack(Need.MOUNTS, f"no loop mounts here: {error.stderr.strip()}")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout.strip()
