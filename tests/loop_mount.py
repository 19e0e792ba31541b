"""Small real filesystems for tests: one in a file, on a loop device, mounted where wanted.

The device is taken once and kept, so that unmounting and mounting again is the same disk leaving
and returning. `loop_disk` unmounts and detaches on every way out, also when the tests are killed:
somebody else does it then. Where loop mounts cannot be had, it skips the test and says why.
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
_TOOLS: Final = ("losetup", "mount", "umount")
_TIMEOUT_S: Final = 60
# No blocks are kept for root, whom the agent is in these tests.
_MAKE: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
_SMALL_BTRFS_MIB: Final = 256
UNMOUNT: Final = 'while umount --lazy "$0" 2>&-; do :; done'
DETACH: Final = 'losetup --detach "$0"'


@dataclass(frozen=True)
class LoopDisk:
    """A disk that can be filled, made read-only, taken away and brought back."""

    device: str
    mount_point: Path
    kind: str = "ext4"

    def mount(self) -> None:
        _run("mount", "-t", self.kind, self.device, str(self.mount_point))

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
def loop_disk(
    mount_point: Path, *, size_mib: int, inodes: int | None = None, kind: str = "ext4"
) -> Iterator[LoopDisk]:
    """Mount a new filesystem at `mount_point`, which is made when it is not there."""
    _skip_unless_possible(kind)
    mount_point.mkdir(parents=True, exist_ok=True)
    image = mount_point.with_name(f"{mount_point.name}.{kind}")
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    options = [] if inodes is None else ["-N", str(inodes)]
    if kind == "btrfs" and size_mib < _SMALL_BTRFS_MIB:
        options.append("--mixed")
    _run(*_MAKE[kind], *options, str(image))
    try:
        disk = LoopDisk(_or_skip("losetup", "--find", "--show", str(image)), mount_point, kind)
        with at_the_end(DETACH, disk.device), at_the_end(UNMOUNT, mount_point):
            _or_skip("mount", "-t", kind, disk.device, str(mount_point))
            yield disk
    finally:
        image.unlink(missing_ok=True)


@contextmanager
def at_the_end(script: str, about: str | Path) -> Iterator[None]:
    """Run a shell script, with `about` as its $0, after the block or when this process is killed.

    The shell waits for a line, or for nobody to hold the other end of its input any more. What
    kills this process may mean all of its group, of which it is none.
    """
    command = ["sh", "-c", f"read -r _; {script}", about]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdin is not None
        try:
            yield
        finally:
            # Not only closed: a process that was forked meanwhile may hold it too.
            shell.stdin.write(b"\n")
            shell.stdin.close()
            shell.wait(_TIMEOUT_S)
    assert shell.returncode == 0, f"failed: {script} of {about}"


def _skip_unless_possible(kind: str) -> None:
    if os.geteuid() != 0:
        lack(Need.ROOT, "mounting a loop device takes root")
    missing = [tool for tool in (*_TOOLS, _MAKE[kind][0]) if shutil.which(tool) is None]
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
