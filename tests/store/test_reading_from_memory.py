"""What memory has is read while the device hangs, and nothing else is waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.dataset.page_cache import CachedFile
from tests.loop_mount import DETACH, UNMOUNT, LoopDisk, at_the_end, loop_disk
from tests.needs import Need, lack, need_page_cache
from tests.torture import fault_mount
from tests.torture.fault_fs import Fault
from tests.torture.fault_mount import FaultMount

pytestmark = pytest.mark.xdist_group("torture-alone")
WAIT_S = 20.0
CONTENT = bytes(range(256)) * 16


@pytest.fixture
def below(tmp_path: Path) -> Iterator[FaultMount]:
    """What the disk's device is a file of."""
    if (reason := fault_mount.unusable()) is not None:
        lack(Need.MOUNTS, reason)
    with fault_mount.fault_mount(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def disk(tmp_path: Path, below: FaultMount) -> Iterator[LoopDisk]:
    (tmp_path / "beside").mkdir()
    with loop_disk(tmp_path / "beside/disk", size_mib=160):  # made, or skipped
        _run("fsfreeze", "--freeze", tmp_path / "beside/disk")
        shutil.copyfile(tmp_path / "beside/disk.ext4", below.backing / "image")
        _run("fsfreeze", "--unfreeze", tmp_path / "beside/disk")
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    device = _run("losetup", "--find", "--show", below.path / "image")
    disk = LoopDisk(device, mount_point)
    with at_the_end(DETACH, device), at_the_end(UNMOUNT, mount_point):
        disk.mount()
        need_page_cache(mount_point)
        yield disk


def test_b4_no_device_that_hangs_is_waited_for(disk: LoopDisk, below: FaultMount) -> None:
    read, named, unknown = (disk.mount_point / name for name in ("read", "named", "far/unknown"))
    unknown.parent.mkdir()
    for path in (read, named, unknown):
        path.write_bytes(CONTENT)
    _run("umount", disk.mount_point)
    disk.mount()
    assert read.read_bytes() == CONTENT
    named.stat()
    _forget(below.path / "image")

    below.arm(Fault(call="read", effect="hang", times=None))
    stuck = threading.Thread(target=named.read_bytes, daemon=True)
    found: list[bytes | None] = []
    try:
        reading = threading.Thread(target=_read, args=((read, named, unknown), found), daemon=True)
        reading.start()
        reading.join(WAIT_S)
        assert found == [CONTENT, None, None]
        assert not below.met().struck, "nobody asked the device"
        stuck.start()
        stuck.join(0.2)
        assert stuck.is_alive(), "it would have hung"
    finally:
        below.lift()
    stuck.join(WAIT_S)
    assert not stuck.is_alive()


def _read(paths: tuple[Path, ...], found: list[bytes | None]) -> None:
    found += [CachedFile(str(path), len(CONTENT)).read() for path in paths]


def _forget(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
