"""The pass-through itself: it passes through, fails what it is told to fail, and goes away."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import Need, lack
from tests.torture import fault_mount
from tests.torture.fault_fs import Fault
from tests.torture.fault_mount import FaultMount

pytestmark = pytest.mark.xdist_group("torture-alone")
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def possible() -> None:
    if (reason := fault_mount.unusable()) is not None:
        lack(Need.MOUNTS, reason)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[FaultMount]:
    with fault_mount.fault_mount(tmp_path) as mounted:
        (mounted.path / "here").mkdir()
        yield mounted
    assert not os.path.ismount(mounted.path)


def test_what_is_written_is_there_beside_the_mount(mount: FaultMount) -> None:
    (mount.path / "here/a").write_bytes(b"content")
    (mount.path / "here/a").rename(mount.path / "here/b")
    assert (mount.backing / "here/b").read_bytes() == b"content"
    assert os.listdir(mount.path / "here") == ["b"]


def test_the_nth_call_below_the_path_fails_as_often_as_asked(mount: FaultMount) -> None:
    mount.arm(Fault(call="mkdir", effect="error", error=errno.EDQUOT, nth=2, under="/here"))
    (mount.path / "elsewhere").mkdir()
    (mount.path / "here/1").mkdir()
    with pytest.raises(OSError, match="quota"):
        (mount.path / "here/2").mkdir()
    (mount.path / "here/2").mkdir()
    met = mount.lift()
    assert (met.struck, met.calls) == (("mkdir /here/2",), {"mkdir": 3})


def test_a_short_write_is_seen_as_one(mount: FaultMount) -> None:
    fd = os.open(mount.path / "here/a", os.O_WRONLY | os.O_CREAT)
    mount.arm(Fault(call="write", effect="short"))
    assert os.write(fd, b"12345678") == 4
    assert os.write(fd, b"5678") == 4
    os.close(fd)
    assert (mount.backing / "here/a").read_bytes() == b"12345678"


def test_a_failed_sync_of_a_directory_is_one_of_that_directory(mount: FaultMount) -> None:
    mount.arm(Fault(call="fsyncdir", effect="error", error=errno.EIO, times=None))
    fd = os.open(mount.path / "here", os.O_RDONLY)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(fd)
    mount.lift()
    os.fsync(fd)
    os.close(fd)


def test_what_hangs_goes_on_when_the_fault_is_lifted(mount: FaultMount) -> None:
    mount.arm(Fault(call="unlink", effect="hang", times=None))
    (mount.path / "here/a").touch()
    thread = threading.Thread(target=(mount.path / "here/a").unlink)
    thread.start()
    while not mount.met().struck:
        assert thread.is_alive()
    assert (mount.backing / "here/a").exists()
    mount.lift()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert not (mount.backing / "here/a").exists()


def write(path: Path, content: bytes) -> int:
    """Write a file without a sync; its descriptor."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, content)
    return fd


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fail_next_sync(mount: FaultMount, call: str, error: int = errno.EIO) -> None:
    mount.arm(Fault(call=call, effect="error", error=error))


def test_what_a_failed_sync_lost_is_read_until_the_power_goes_whatever_is_synced_later(
    mount: FaultMount, tmp_path: Path
) -> None:
    fail_next_sync(mount, "fsync")
    fd = write(mount.path / "here/a", b"content")
    with pytest.raises(OSError, match="Input/output"):
        os.fsync(fd)
    os.fsync(fd)
    os.close(fd)

    assert (mount.path / "here/a").read_bytes() == b"content"
    assert mount.copy_after_cut(mount.backing / "here", tmp_path / "cut")
    assert (tmp_path / "cut/a").read_bytes() == bytes(7)
    assert (mount.path / "here/a").read_bytes() == b"content"


def test_what_is_written_anew_or_was_synced_before_is_there_after_a_cut(
    mount: FaultMount, tmp_path: Path
) -> None:
    fail_next_sync(mount, "fsync")
    fd = write(mount.path / "here/a", b"content")
    with pytest.raises(OSError, match="Input/output"):
        os.fsync(fd)
    os.pwrite(fd, b"CON", 0)
    os.fsync(fd)
    assert not mount.copy_after_cut(mount.backing / "here", tmp_path / "cut")

    fail_next_sync(mount, "fsync")
    os.pwrite(fd, b"second page", 4096)
    with pytest.raises(OSError, match="Input/output"):
        os.fsync(fd)
    os.close(fd)
    assert mount.copy_after_cut(mount.backing / "here", tmp_path / "cut")
    assert (tmp_path / "cut/a").read_bytes() == b"CONtent".ljust(4096, b"\0") + bytes(11)


def test_a_sync_that_was_interrupted_has_lost_nothing(mount: FaultMount, tmp_path: Path) -> None:
    fail_next_sync(mount, "fsync", errno.EINTR)
    fd = write(mount.path / "here/a", b"content")
    os.fsync(fd)  # which calls twice
    os.close(fd)
    assert len(mount.met().struck) == 1
    assert not mount.copy_after_cut(mount.backing / "here", tmp_path / "cut")


def test_names_that_a_failed_sync_lost_are_those_of_before_or_none_after_a_cut(
    mount: FaultMount, tmp_path: Path
) -> None:
    (mount.path / "here/ledger").write_bytes(b"old")
    fail_next_sync(mount, "fsyncdir")
    for name, content in (("staged", b"new"), ("made", b"")):
        os.close(write(mount.path / "here" / name, content))
    (mount.path / "here/staged").rename(mount.path / "here/ledger")
    with pytest.raises(OSError, match="Input/output"):
        sync(mount.path / "here")
    os.close(write(mount.path / "here/later", b""))
    sync(mount.path / "here")

    assert (mount.path / "here/ledger").read_bytes() == b"new"
    assert mount.copy_after_cut(mount.backing / "here", tmp_path / "cut")
    assert sorted(os.listdir(tmp_path / "cut")) == ["later", "ledger"]
    assert (tmp_path / "cut/ledger").read_bytes() == b"old"

    os.close(write(mount.path / "here/staged", b"newest"))
    (mount.path / "here/staged").rename(mount.path / "here/ledger")
    (mount.path / "here/made").unlink()
    sync(mount.path / "here")
    assert not mount.copy_after_cut(mount.backing / "here", tmp_path / "cut-again")
