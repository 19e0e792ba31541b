from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from depot.http.carrier import PIPE_BYTES, Carrier, open_carrier, read_into
from depot.http.fed_carrier import FedCarrier
from depot.http.turn import is_nobodys_fault
from depot.http.window import WINDOW_BYTES, open_window_carrier

CONTENT = os.urandom(WINDOW_BYTES + PIPE_BYTES) + b"the end"
Opening = Callable[[], AbstractContextManager[Carrier]]
every_way = pytest.mark.parametrize(
    "opening",
    [
        pytest.param(partial(open_carrier, None), id="pipe"),
        pytest.param(partial(open_carrier, read_into), id="memory"),
        pytest.param(open_window_carrier, id="window"),
    ],
)


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


@every_way
def test_what_is_loaded_is_unloaded_and_no_more(
    fd: int, ends: tuple[socket.socket, socket.socket], opening: Opening
) -> None:
    ours, client = ends
    with opening() as carrier:
        for offset, most_bytes in ((3, 1000), (len(CONTENT) - 7, 100)):
            loaded_bytes = carrier.load(fd, offset, most_bytes)
            assert loaded_bytes == min(most_bytes, len(CONTENT) - offset)
            assert carrier.unload(ours) == loaded_bytes
            assert client.recv(2000) == CONTENT[offset : offset + most_bytes]
        assert carrier.load(fd, len(CONTENT), 100) == 0


@every_way
def test_a_full_socket_takes_nothing_and_does_not_block(
    fd: int, ends: tuple[socket.socket, socket.socket], opening: Opening
) -> None:
    ours, client = ends
    with opening() as carrier:
        loaded_bytes = carrier.load(fd, 0, PIPE_BYTES)
        unloaded_bytes = 0
        while count := carrier.unload(ours):
            unloaded_bytes += count
        assert 0 < unloaded_bytes < loaded_bytes
    ours.close()
    received = b"".join(iter(lambda: client.recv(1 << 20), b""))
    assert received == CONTENT[:unloaded_bytes]


@every_way
def test_a_file_that_cannot_go_this_way_goes_through_memory(
    ends: tuple[socket.socket, socket.socket], opening: Opening
) -> None:
    ours, client = ends
    fd = os.open("/proc/self/cmdline", os.O_RDONLY)
    try:
        with opening() as carrier:
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


def locked_kib() -> int:
    """How much memory of this process is locked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


@pytest.mark.parametrize("offset", [0, 4096, 4097, PIPE_BYTES - 1])
def test_b4_a_window_is_locked_in_memory_until_it_was_sent(
    fd: int, ends: tuple[socket.socket, socket.socket], offset: int
) -> None:
    ours, client = ends
    with open_window_carrier() as carrier:
        assert locked_kib() == 0
        assert carrier.load(fd, offset, len(CONTENT) - offset) == WINDOW_BYTES
        assert locked_kib() == (WINDOW_BYTES + 4096 * bool(offset % 4096)) >> 10
        count = carrier.unload(ours)
        assert client.recv(count, socket.MSG_WAITALL) == CONTENT[offset : offset + count]
        assert carrier.load(fd, offset, 10) == 10
        assert locked_kib() <= 8
    assert locked_kib() == 0


SEND_WITHOUT_THE_RIGHT: Final = """
import os, socket, sys
from depot.http.window import open_window_carrier

ours, client = socket.socketpair()
fd = os.open(sys.argv[1], os.O_RDONLY)
with open_window_carrier() as carrier:
    for offset in (0, 5000):
        assert carrier.load(fd, offset, 100) == 100
        assert "VmLck:\t       0 kB" in open("/proc/self/status").read()
        assert carrier.unload(ours) == 100
        assert client.recv(100) == os.pread(fd, 100, offset)
print("sent")
"""


def test_who_may_not_lock_memory_sends_another_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    # Both are of util-linux, which every Debian has; root needs no right, so it is taken away.
    limits = ["prlimit", "--memlock=0"]
    limits += ["setpriv", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
    command = [*limits, sys.executable, "-c", SEND_WITHOUT_THE_RIGHT, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("sent\n", "")


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
