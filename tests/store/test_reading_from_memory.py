"""What memory has is read while the device hangs, and nothing else is waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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

    device_id = disk.mount_point.stat().st_dev
    below.arm(Fault(call="read", effect="hang", times=None))
    stuck = threading.Thread(target=named.read_bytes, daemon=True)
    try:
        assert _read(device_id, read, named, unknown) == [True, False, False]
        assert not below.met().struck, "nobody asked the device"
        stuck.start()
        give_up_s = time.monotonic() + WAIT_S
        while not below.met().struck:
            assert time.monotonic() < give_up_s, "a plain read asks it"
            time.sleep(0.01)
        assert _read(device_id, read, named, unknown) == [True, False, False], "nor waits for it"
        assert stuck.is_alive(), "as who does not know better"
    finally:
        below.lift()
    stuck.join(WAIT_S)
    assert not stuck.is_alive()


_READER = """
import sys
from depot.dataset.page_cache import CachedFile

device_id, *paths = sys.argv[1:]
for path in paths:
    content = CachedFile(path, 4096, int(device_id)).read()
    assert content in (None, bytes(range(256)) * 16)
    print(content is not None)
"""


def _read(device_id: int, *paths: Path) -> list[bool]:
    """Tell which files are read, by a process of its own: none of its threads could tell."""
    command = [sys.executable, "-c", _READER, str(device_id), *map(str, paths)]
    # One that hangs is left behind: to wait for its end would be to hang, too.
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said, _ = reader.communicate(timeout=WAIT_S)
    return [word == "True" for word in said.split()]


def _forget(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
