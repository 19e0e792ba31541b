from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from depot.http.carrier import PIPE_BYTES, ReadInto, open_carrier, read_into
from depot.http.fed_carrier import FedCarrier
from depot.http.turn import is_nobodys_fault

CONTENT = os.urandom(PIPE_BYTES) + b"the end"


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        yield ours, client


@pytest.mark.parametrize("read", [None, read_into], ids=["pipe", "memory"])
def test_what_is_loaded_is_unloaded_and_no_more(
    fd: int, ends: tuple[socket.socket, socket.socket], read: ReadInto | None
) -> None:
    ours, client = ends
    with open_carrier(read) as carrier:
        for offset, most_bytes in ((3, 1000), (len(CONTENT) - 7, 100)):
            loaded_bytes = carrier.load(fd, offset, most_bytes)
            assert loaded_bytes == min(most_bytes, len(CONTENT) - offset)
            assert carrier.unload(ours) == loaded_bytes
            assert client.recv(2000) == CONTENT[offset : offset + most_bytes]
        assert carrier.load(fd, len(CONTENT), 100) == 0


@pytest.mark.parametrize("read", [None, read_into], ids=["pipe", "memory"])
def test_a_full_socket_takes_nothing_and_does_not_block(
    fd: int, ends: tuple[socket.socket, socket.socket], read: ReadInto | None
) -> None:
    ours, client = ends
    with open_carrier(read) as carrier:
        loaded_bytes = carrier.load(fd, 0, len(CONTENT))
        unloaded_bytes = 0
        while count := carrier.unload(ours):
            unloaded_bytes += count
        assert 0 < unloaded_bytes < loaded_bytes
    ours.close()
    received = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert received == CONTENT[:unloaded_bytes]


def test_a_file_that_cannot_go_through_a_pipe_goes_through_memory(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    fd = os.open("/proc/self/cmdline", os.O_RDONLY)
    try:
        with open_carrier(None) as carrier:
            content = os.pread(fd, 20, 0)
            assert carrier.load(fd, 0, 20) == 20
            assert carrier.unload(ours) == 20
            assert client.recv(100) == content
    finally:
        os.close(fd)


def test_without_a_descriptor_for_a_pipe_everything_goes_through_memory(
    fd: int, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, client = ends
    free = os.dup(fd)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with open_carrier(None) as carrier:
            assert carrier.load(fd, 0, 10) == 10
            assert carrier.unload(ours) == 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert client.recv(100) == CONTENT[:10]


class Unheard(Future[None]):
    """Ends after nobody waits for it any more."""

    def result(self, timeout: float | None = None) -> None:
        raise TimeoutError


def test_a_feed_that_ends_early_and_says_nothing_in_time_blames_nobody() -> None:
    outlet, inlet = os.pipe()
    os.close(inlet)
    try:
        carrier = FedCarrier(outlet, Unheard(), lambda: False)
        with pytest.raises(OSError, match="did not say") as raised:
            carrier.load(-1, 0, 100)
    finally:
        os.close(outlet)
    assert is_nobodys_fault(raised.value)
