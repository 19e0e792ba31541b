"""A small real filesystem that can really be filled: ext4 in a file, mounted with a loop device."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.loop_mount import UNMOUNT, at_the_end
from tests.needs import Need, lack

SIZE_BYTES: Final = 64 << 20


@contextmanager
def loop_mount(root: Path, *, inodes: int = 512) -> Iterator[Path]:
    """Mount a new, empty filesystem for the block; skips the test where that is not possible."""
    mkfs, mount, umount = (shutil.which(name) for name in ("mkfs.ext4", "mount", "umount"))
    if os.geteuid() != 0 or not (mkfs and mount and umount):
        lack(Need.MOUNTS, "a loop mount needs root, mkfs.ext4 and mount")
    image, path = root / "disk.img", root / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    path.mkdir()
    subprocess.run([mkfs, "-q", "-m", "0", "-N", str(inodes), image], check=True)
    with at_the_end(UNMOUNT, path):
        # A device that `mount` takes goes when it is unmounted.
        command: list[str | Path] = [mount, "-o", "loop", image, path]
        mounted = subprocess.run(command, capture_output=True, check=False)
        if mounted.returncode != 0:
            lack(Need.MOUNTS, f"no loop mount here: {mounted.stderr.decode().strip()}")
        yield path


def fill_bytes(path: Path) -> Path:
    """Take every byte that is left, with a file that is not ours."""
    hog = path / "somebody-elses-data"
    with hog.open("ab", buffering=0) as file:
        for block_bytes in (1 << 20, 4096, 1):
            write_until_full(file.fileno(), bytes(block_bytes))
    return hog


def write_until_full(fd: int, block: bytes) -> None:
    try:
        while os.write(fd, block):
            os.fsync(fd)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def fill_inodes(path: Path) -> Path:
    """Take every inode that is left, with files that are not ours."""
    hogs = path / "somebody-elses-files"
    hogs.mkdir()
    try:
        for number in range(1 << 20):
            (hogs / str(number)).touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    return hogs
