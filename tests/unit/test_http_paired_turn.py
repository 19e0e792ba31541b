from __future__ import annotations

import errno
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from depot.http.carrier import ReadInto, read_into
from depot.http.paired_turn import PairedTurn
from depot.http.permit import Gate
from depot.http.turn import TURN_BYTES, TURN_S, Outcome, State, Turn
from depot.streams.blocks import BLOCK_SIZE_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CONTENT = random.Random(6).randbytes(5 * BLOCK_SIZE_BYTES + 99)
WAIT_S = 30.0


class Rig:
    """A file, a connection whose client takes everything, and turns at sending one to the other."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.permit = Gate()
        self.ours, self.client = socket.socketpair()
        self.ours.setblocking(False)
        self._received = bytearray()
        self._reader = threading.Thread(target=self._receive)

    def run(self, read: ReadInto, start: int, end: int) -> tuple[Outcome, int, bytes]:
        """Take turns for as long as only the client delays: how the last one ended, the offset, and
        what the client got.
        """
        turn = Turn(self.fd, self.ours, start, end, read, permit=self.permit)
        self._reader.start()
        while (outcome := PairedTurn(turn, self.fd, read, end).run()).state is State.SOCKET_FULL:
            pass
        self.close()
        return outcome, turn.offset, bytes(self._received)

    def close(self) -> None:
        self.ours.close()
        if self._reader.is_alive():
            self._reader.join()
        self.client.close()

    def _receive(self) -> None:
        while part := self.client.recv(1 << 20):
            self._received += part


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    rig = Rig(fd)
    yield rig
    rig.close()
    os.close(fd)


@pytest.mark.parametrize("start", [0, 5, BLOCK_SIZE_BYTES + 1, len(CONTENT) - 1])
def test_both_threads_send_in_order(rig: Rig, start: int) -> None:
    outcome, offset, received = rig.run(read_into, start, len(CONTENT))
    assert (outcome.state, offset) == (State.SENT, len(CONTENT))
    assert received == CONTENT[start:]


def test_one_thread_reads_while_the_other_has_not_read_yet(rig: Rig) -> None:
    second_was_read = threading.Event()

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset == 0:
            assert second_was_read.wait(WAIT_S)
        if offset == BLOCK_SIZE_BYTES:
            second_was_read.set()
        return read_into(fd, buffer, offset)

    outcome, _, received = rig.run(read, 0, len(CONTENT))
    assert outcome.state is State.SENT
    assert received == CONTENT


def test_no_read_goes_past_a_block_or_the_end(rig: Rig) -> None:
    asked: list[tuple[int, int]] = []

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        asked.append((offset, offset + len(buffer)))
        return read_into(fd, buffer, offset)

    end = 2 * BLOCK_SIZE_BYTES + 10
    rig.run(read, 7, end)
    assert {last for _, last in asked} == {BLOCK_SIZE_BYTES, 2 * BLOCK_SIZE_BYTES, end}
    assert all(last - first <= BLOCK_SIZE_BYTES for first, last in asked)


@pytest.mark.parametrize("block", range(5))
def test_b2_nothing_is_sent_from_a_block_on_that_cannot_be_read(rig: Rig, block: int) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset // BLOCK_SIZE_BYTES == block:
            raise OSError(errno.EIO, "injected")
        return read_into(fd, buffer, offset)

    outcome, offset, received = rig.run(read, 0, len(CONTENT))
    assert outcome.state is State.READ_FAILED
    assert "injected" in str(outcome.error)
    assert offset == block * BLOCK_SIZE_BYTES
    assert received == CONTENT[:offset]


def test_a_file_that_ends_early_is_a_read_error(rig: Rig) -> None:
    outcome, offset, received = rig.run(read_into, 0, len(CONTENT) + 10)
    assert outcome.state is State.READ_FAILED
    assert offset == 5 * BLOCK_SIZE_BYTES
    assert received == CONTENT[:offset]


def test_a_turn_ends_after_its_share(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depot.http.paired_turn.TURN_S", 600.0)

    class Sink(socket.socket):
        """A client that takes everything at once."""

        def send(self, content: Buffer, _flags: int = 0) -> int:
            return len(memoryview(content))

    # The end is far away, and every block is the same.
    def read(fd: int, buffer: memoryview, _offset: int) -> int:
        return read_into(fd, buffer, 0)

    with Sink() as sink:
        turn = Turn(rig.fd, sink, 0, 2 * TURN_BYTES, read)
        assert PairedTurn(turn, rig.fd, read, 2 * TURN_BYTES).run().state is State.SHARE_USED
    assert turn.offset == TURN_BYTES


def test_a_turn_that_takes_long_ends_with_the_blocks_that_are_under_way(rig: Rig) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        time.sleep(TURN_S)
        return read_into(fd, buffer, offset)

    turn = Turn(rig.fd, rig.ours, 0, len(CONTENT), read)
    turn.patient = False
    rig.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BLOCK_SIZE_BYTES)
    assert PairedTurn(turn, rig.fd, read, len(CONTENT)).run().state is not State.SENT
    assert turn.offset <= 2 * BLOCK_SIZE_BYTES


def test_a_turn_whose_permit_was_taken_back_sends_nothing_more(rig: Rig) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        rig.permit.take_back()
        return read_into(fd, buffer, offset)

    outcome, offset, received = rig.run(read, 0, len(CONTENT))
    assert outcome.state is State.ABANDONED
    assert (offset, received) == (0, b"")


def test_a_client_that_takes_nothing_ends_the_turn_at_an_exact_offset(rig: Rig) -> None:
    turn = Turn(rig.fd, rig.ours, 0, len(CONTENT), read_into)
    assert PairedTurn(turn, rig.fd, read_into, len(CONTENT)).run().state is State.SOCKET_FULL
    rig.ours.close()
    received = b"".join(iter(lambda: rig.client.recv(1 << 20), b""))
    assert received == CONTENT[: turn.offset]


@pytest.mark.parametrize("block", [0, 1])
def test_a_bug_in_either_thread_is_not_lost(rig: Rig, block: int) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset // BLOCK_SIZE_BYTES == block:
            raise RuntimeError("a bug")
        return read_into(fd, buffer, offset)

    with pytest.raises(RuntimeError, match="a bug"):
        rig.run(read, 0, len(CONTENT))


def test_where_no_thread_is_left_one_sends_it_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "send-pair":
            raise RuntimeError("can't start new thread")
        real_start(thread)

    real_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    outcome, offset, received = rig.run(read_into, 0, len(CONTENT))
    assert (outcome.state, offset) == (State.SENT, len(CONTENT))
    assert received == CONTENT


def test_a_want_of_memory_is_no_fault_of_the_file(rig: Rig) -> None:
    def read(_fd: int, _buffer: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOMEM, "injected")

    outcome, offset, _ = rig.run(read, 0, len(CONTENT))
    assert (outcome.state, offset) == (State.SHORT, 0)
