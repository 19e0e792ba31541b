from __future__ import annotations

import mmap
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
from tests.locked_memory import MOST_BYTES, locked_bytes, need_locked_memory
from tests.needs import need_page_cache

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


@pytest.mark.parametrize("offset", [0, mmap.PAGESIZE, mmap.PAGESIZE + 1, PIPE_BYTES - 1])
def test_b4_a_window_is_locked_in_memory_until_it_was_sent(
    fd: int, ends: tuple[socket.socket, socket.socket], offset: int
) -> None:
    need_locked_memory()
    ours, client = ends
    with open_window_carrier() as carrier:
        assert locked_bytes() == 0
        assert carrier.load(fd, offset, len(CONTENT) - offset) == WINDOW_BYTES
        assert locked_bytes() == WINDOW_BYTES + mmap.PAGESIZE * bool(offset % mmap.PAGESIZE)
        count = carrier.unload(ours)
        assert client.recv(count, socket.MSG_WAITALL) == CONTENT[offset : offset + count]
        assert carrier.load(fd, offset, 10) == 10
        assert locked_bytes() <= 2 * mmap.PAGESIZE
    assert locked_bytes() == 0


def test_b4_what_memory_does_not_have_is_not_mapped(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    need_locked_memory()
    need_page_cache(tmp_path)  # in memory itself, everything always is
    ours, client = ends
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file, open_window_carrier() as carrier:
        os.fsync(file.fileno())
        begin = 2 * PIPE_BYTES
        os.posix_fadvise(file.fileno(), begin, 0, os.POSIX_FADV_DONTNEED)
        for offset, is_mapped in ((0, True), (begin, False), (100, True)):
            loaded_bytes = carrier.load(file.fileno(), offset, 10_000)
            assert (locked_bytes() > 0) is is_mapped
            assert carrier.unload(ours) == loaded_bytes
            assert (
                client.recv(loaded_bytes, socket.MSG_WAITALL)
                == (CONTENT[offset : offset + loaded_bytes])
            )


SEND_WITH_LITTLE_RIGHT: Final = """
import os, socket, sys
from depot.http.window import open_window_carrier
from tests.locked_memory import locked_bytes

ours, client = socket.socketpair()
ours.setblocking(False)
fd = os.open(sys.argv[1], os.O_RDONLY)
with open_window_carrier() as carrier:
    for offset in (0, 5001):
        assert carrier.load(fd, offset, 50_000) == 50_000
        print(locked_bytes() > 0, sys.argv[1] in open("/proc/self/maps").read())
        assert carrier.unload(ours) == 50_000
        assert client.recv(50_000, socket.MSG_WAITALL) == os.pread(fd, 50_000, offset)
"""


@pytest.mark.parametrize(("limit_bytes", "is_mapped"), [(0, False), (MOST_BYTES, True)])
def test_who_may_not_lock_as_much_sends_another_way(
    tmp_path: Path, limit_bytes: int, is_mapped: bool
) -> None:
    need_locked_memory()
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    # Both are of util-linux, which every Debian has; root needs no right, so it is taken away.
    limits = ["prlimit", f"--memlock={limit_bytes}"]
    limits += ["setpriv", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
    command = [*limits, sys.executable, "-c", SEND_WITH_LITTLE_RIGHT, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{is_mapped} {is_mapped}\n" * 2, "")


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
