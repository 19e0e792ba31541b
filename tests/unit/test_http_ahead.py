from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.blocks import BLOCK_SIZE_BYTES
from depot.http.ahead import open_ahead_carrier
from depot.http.carrier import Carrier, read_into

CONTENT = random.Random(6).randbytes(3 * BLOCK_SIZE_BYTES + 99)
WAIT_S = 30.0


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def carry(carrier: Carrier, fd: int, offset: int, end: int) -> bytes:
    """Everything that is loaded and unloaded between two offsets."""
    ours, client = socket.socketpair()
    received = bytearray()
    with ours, client:
        ours.setblocking(False)
        client.setblocking(False)
        while offset < end:
            count = carrier.load(fd, offset, end - offset)
            offset += count
            while count:
                count -= carrier.unload(ours)
                received += client.recv(1 << 20)
    return bytes(received)


@pytest.mark.parametrize("start", [0, 5, BLOCK_SIZE_BYTES + 1, len(CONTENT) - 1])
def test_what_is_read_ahead_arrives_in_order(fd: int, start: int) -> None:
    with open_ahead_carrier(read_into, len(CONTENT)) as carrier:
        assert carry(carrier, fd, start, len(CONTENT)) == CONTENT[start:]


def test_the_next_block_is_read_while_one_is_waiting_to_be_sent(fd: int) -> None:
    second = threading.Event()

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset == BLOCK_SIZE_BYTES:
            second.set()
        return read_into(fd, buffer, offset)

    with open_ahead_carrier(read, len(CONTENT)) as carrier:
        carrier.load(fd, 0, len(CONTENT))
        assert second.wait(WAIT_S)


def test_nothing_is_read_past_the_end(fd: int) -> None:
    ends: list[int] = []

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        ends.append(offset + len(buffer))
        return read_into(fd, buffer, offset)

    end = BLOCK_SIZE_BYTES + 10
    with open_ahead_carrier(read, end) as carrier:
        carry(carrier, fd, 0, end)
    assert ends == [BLOCK_SIZE_BYTES, end]


def test_a_block_that_cannot_be_read_is_told_of_after_the_one_before_was_sent(fd: int) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset >= BLOCK_SIZE_BYTES:
            raise OSError(errno.EIO, "injected")
        return read_into(fd, buffer, offset)

    with open_ahead_carrier(read, len(CONTENT)) as carrier:
        assert carry(carrier, fd, 0, BLOCK_SIZE_BYTES) == CONTENT[:BLOCK_SIZE_BYTES]
        with pytest.raises(OSError, match="injected"):
            carrier.load(fd, BLOCK_SIZE_BYTES, 1)


def test_a_file_that_ends_early_gives_nothing(fd: int) -> None:
    with open_ahead_carrier(read_into, len(CONTENT) + 10) as carrier:
        assert carrier.load(fd, len(CONTENT), 10) == 0


def test_nobody_reads_any_more_once_it_is_closed(fd: int) -> None:
    reading, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset:
            reading.set()
            assert go_on.wait(WAIT_S)
        count = read_into(fd, buffer, offset)
        done.append(offset)
        return count

    def let_go() -> None:
        reading.wait(WAIT_S)
        go_on.set()

    letting_go = threading.Thread(target=let_go)
    letting_go.start()
    with open_ahead_carrier(read, len(CONTENT)) as carrier:
        carrier.load(fd, 0, 1)
    assert done == [0, BLOCK_SIZE_BYTES]
    letting_go.join()
