"""What a filesystem whose power is gone answers, and what we make of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE
from typing import Final

import pytest

from depot.dataset.disk import SYSTEM
from depot.initialise import init_datasets
from tests.needs import Need, lack
from tests.torture.campaign import Skip
from tests.torture.disks import LoopDisk, loop_disks, opened_for_cutting

GIVE_UP_S: Final = 60
_CUT_BESIDE_A_COPY: Final = """
import os
from tests.torture.campaign import Skip
from tests.torture.disks import loop_disks, own_mounts

own_mounts()
try:
    with loop_disks(["ext4"]) as (disk,):
        disk.mount()
        (disk.mount_point / "synced").write_bytes(b"content")
        os.sync()
        print("mounted", flush=True)
        input()
        disk.cut()
        disk.unmount()
        disk.mount()
        (disk.mount_point / "afterwards").write_bytes(b"content")
        os.sync()
        print(sorted(os.listdir(disk.mount_point)))
except Skip as reason:
    print(f"skip: {reason}", flush=True)
"""
pytestmark = pytest.mark.xdist_group("torture-alone")


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest) -> Iterator[LoopDisk]:
    try:
        with loop_disks([request.param]) as (found,):
            found.mount()
            yield found
            found.unmount()
    except Skip as reason:
        lack(Need.MOUNTS, str(reason))


def test_b3_no_directory_is_called_durable_after_the_filesystem_shut_down(disk: LoopDisk) -> None:
    (disk.mount_point / "staged").write_bytes(b"content")
    root = os.open(disk.mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        SYSTEM.rename("staged", "named", dir_fd=root)
        with opened_for_cutting([disk]) as cut:
            cut()

        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            SYSTEM.fsync_directory(root)
    finally:
        os.close(root)


def test_a_cut_takes_what_was_not_synced_and_leaves_what_was(disk: LoopDisk) -> None:
    for name in ("synced", "not-synced"):
        (disk.mount_point / name).write_bytes(b"content")
        if name == "synced":
            fd = os.open(disk.mount_point / name, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

    disk.cut()
    disk.unmount()
    disk.mount()

    assert (disk.mount_point / "synced").read_bytes() == b"content"
    assert not (disk.mount_point / "not-synced").exists()


def test_a_cut_disk_is_mounted_anew_whoever_copied_the_mounts_of_this_machine() -> None:
    """As somebody does who enters a network namespace while a campaign runs."""
    if shutil.which("unshare") is None:
        lack(Need.MOUNTS, "takes unshare")
    command = [sys.executable, "-c", _CUT_BESIDE_A_COPY]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as campaign:
        assert campaign.stdin is not None
        assert campaign.stdout is not None
        said = campaign.stdout.readline().rstrip()
        if said.startswith("skip: "):
            lack(Need.MOUNTS, said)
        with _copied_mounts():
            said, _ = campaign.communicate("go on\n", GIVE_UP_S)
    assert said == "['afterwards', 'lost+found', 'synced']\n"


@contextmanager
def _copied_mounts() -> Iterator[None]:
    command = ["unshare", "-m", "sh", "-c", "echo copied; read line"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as copy:
        assert copy.stdout is not None
        assert copy.stdout.readline() == "copied\n"
        yield
        copy.communicate("end\n", GIVE_UP_S)


def test_what_init_has_made_survives_a_cut(disk: LoopDisk) -> None:
    (made,) = init_datasets([disk.mount_point])
    disk.cut()
    disk.unmount()
    disk.mount()

    (found,) = init_datasets([disk.mount_point])

    assert made.created
    assert not found.created
    assert found.dataset_id == made.dataset_id
