"""Reading a file of a dataset for a write: whatever the device does, it ends (B4)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from depot.device.host import Host, Lane, ThreadHost
from depot.device.source import HostedSource

T = TypeVar("T")

CONTENT = os.urandom((2 << 20) + 7)


class HangingHost(ThreadHost):
    """Lets each call begin and none end, until it is told to."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.calls: list[Future[Any]] = []

    def submit_in(self, lane: Lane, function: Callable[..., T], /, *args: object) -> Future[T]:
        call: Future[T] = Future()
        call.set_running_or_notify_cancel()
        self.calls.append(call)
        return call


class FailingHost(HangingHost):
    """Its device fails at once."""

    def submit_in(self, lane: Lane, function: Callable[..., T], /, *args: object) -> Future[T]:
        call = super().submit_in(lane, function, *args)
        call.set_exception(OSError(errno.EIO, os.strerror(errno.EIO)))
        return call


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(CONTENT)
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    yield opened
    os.close(opened)


def read_all(host: Host, fd: int) -> bytes:
    source, buffer, found = HostedSource(host, fd, 5.0), bytearray(3 << 19), b""
    while count := source.readinto(memoryview(buffer)):
        found += buffer[:count]
    source.close()
    return found


def test_a_file_is_read_to_its_end_in_the_threads_of_its_dataset(fd: int) -> None:
    assert read_all(ThreadHost("dataset"), fd) == CONTENT


def test_b4_a_read_that_hangs_is_given_up_and_its_descriptor_closed_when_it_ends(fd: int) -> None:
    host = HangingHost()
    source = HostedSource(host, fd, timeout_s=0.2)
    with pytest.raises(OSError, match="does not answer"):
        source.readinto(memoryview(bytearray(10)))
    source.close()
    own = source._fd
    assert os.fstat(own)  # the read that hangs still needs it
    host.calls[0].set_result(b"late")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(own)


def test_b4_an_abort_ends_a_read_that_hangs(fd: int) -> None:
    source = HostedSource(HangingHost(), fd, timeout_s=60.0)
    source.abort()
    with pytest.raises(OSError, match="given up"):
        source.readinto(memoryview(bytearray(10)))


def test_an_error_of_the_device_is_told(fd: int) -> None:
    source = HostedSource(FailingHost(), fd, timeout_s=60.0)
    with pytest.raises(OSError, match="Input/output error"):
        source.readinto(memoryview(bytearray(10)))
    source.close()
