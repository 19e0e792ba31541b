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
