from __future__ import annotations

import errno
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from depot.http.carrier import PIPE_BYTES, ReadInto, read_into
from depot.http.turn import TURN_BYTES, TURN_S, State, Turn, read_part, turn_end
from tests.locked_memory import locked_bytes, need_locked_memory

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CONTENT = random.Random(4).randbytes(3 * PIPE_BYTES + 17)
both_ways = pytest.mark.parametrize("read", [None, read_into], ids=["pipe", "memory"])


class Pair:
    """A socket that does not block, and the client's end of it."""

    def __init__(self) -> None:
        self.ours, self.client = socket.socketpair()
        self.ours.setblocking(False)
        self.client.setblocking(False)

    def received(self, most_bytes: int = 1 << 30) -> bytes:
        """Everything that has arrived so far, or the first of it."""
        content = b""
        try:
            while block := self.client.recv(min(1 << 20, most_bytes - len(content))):
                content += block
        except BlockingIOError:
            pass
        return content


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.ours.close()
    pair.client.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@both_ways
def test_turns_send_what_the_client_takes_until_all_is_sent(
    fd: int, pair: Pair, read: ReadInto | None
) -> None:
    turn = Turn(fd, pair.ours, 5, len(CONTENT), read)
    received = b""
    states: list[State] = []
    while not states or states[-1] is not State.SENT:
        states.append(turn.run().state)
        received += pair.received()
    assert set(states) == {State.SOCKET_FULL, State.SENT}
    assert received == CONTENT[5:]


@both_ways
def test_a_full_socket_ends_the_turn_at_an_exact_offset(
    fd: int, pair: Pair, read: ReadInto | None
) -> None:
    turn = Turn(fd, pair.ours, 0, len(CONTENT), read)
    assert turn.run().state is State.SOCKET_FULL
    assert pair.received() == CONTENT[: turn.offset]
    assert turn.reading_since_s is None


def test_a_long_file_takes_more_than_one_turn(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depot.http.turn.TURN_S", 600.0)

    def read_and_empty(fd: int, buffer: memoryview, offset: int) -> int:
        pair.received()
        return min(read_into(fd, buffer, offset), 50_000)

    path = tmp_path / "long"
    path.touch()
    os.truncate(path, TURN_BYTES + 1)
    with path.open("rb") as file:
        turn = Turn(file.fileno(), pair.ours, 0, TURN_BYTES + 1, read_and_empty)
        assert turn.run().state is State.SHARE_USED
        assert turn.offset == TURN_BYTES
        assert turn.run().state is State.SENT


def test_a_turn_that_takes_long_ends_with_the_block_that_is_under_way(fd: int, pair: Pair) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        time.sleep(TURN_S)
        return read_into(fd, buffer[:1000], offset)

    turn = Turn(fd, pair.ours, 0, len(CONTENT), read)
    for number in (1, 2):
        assert turn.run().state is State.SHARE_USED
        assert turn.offset == number * 1000


def test_b2_a_page_that_was_taken_away_is_a_read_error(tmp_path: Path, pair: Pair) -> None:
    need_locked_memory()
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    class Cutting(socket.socket):
        """Has the file cut short before anything is sent."""

        def send(self, content: Buffer, _flags: int = 0) -> int:
            os.truncate(path, 0)
            return super().send(content)

    with path.open("rb") as file, Cutting(fileno=os.dup(pair.ours.fileno())) as cutting:
        turn = Turn(file.fileno(), cutting, 5, len(CONTENT))
        turn.mapped = True
        outcome = turn.run()
    assert outcome.state is State.READ_FAILED
    assert outcome.error is not None
    assert outcome.error.errno == errno.EIO
    assert turn.offset == 5


@both_ways
@pytest.mark.parametrize("mapped", [False, True])
def test_only_what_nobody_looks_at_leaves_out_of_a_mapping(
    fd: int, pair: Pair, read: ReadInto | None, mapped: bool
) -> None:
    need_locked_memory()
    turn = Turn(fd, pair.ours, 0, len(CONTENT), read)
    turn.mapped, turn.patient = mapped, True
    locked = []

    def run() -> None:
        while turn.run().state is not State.SENT:
            pass

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        received = b""
        while not running.done():
            # The client takes a little at a time, so that there are moments to look.
            locked.append(locked_bytes())
            received += pair.received(10_000)
        running.result()
    received += pair.received()
    assert received == CONTENT
    assert (max(locked) > 0) is (mapped and read is None)
    assert locked_bytes() == 0


@pytest.mark.parametrize("start", [0, 77])
def test_a_turn_ends_with_a_block(start: int) -> None:
    assert turn_end(start, 3 * TURN_BYTES) == TURN_BYTES
    assert turn_end(start, TURN_BYTES - 5) == TURN_BYTES - 5


def test_a_read_error_is_told_apart_and_leaves_the_offset_exact(fd: int, pair: Pair) -> None:
    error = OSError(errno.EIO, "injected")

    def read(fd: int, buffer: memoryview, offset: int) -> int:
        if offset >= 20_000:
            raise error
        return read_into(fd, buffer[:10_000], offset)

    turn = Turn(fd, pair.ours, 0, len(CONTENT), read)
    outcome = turn.run()
    assert (outcome.state, outcome.error) == (State.READ_FAILED, error)
    assert turn.offset == 20_000
    assert pair.received() == CONTENT[:20_000]


@both_ways
def test_a_file_that_ends_early_is_a_read_error(fd: int, pair: Pair, read: ReadInto | None) -> None:
    turn = Turn(fd, pair.ours, len(CONTENT) - 10, len(CONTENT) + 10, read)
    outcome = turn.run()
    assert outcome.state is State.READ_FAILED
    assert "the file has nothing at byte" in str(outcome.error)
    assert pair.received() == CONTENT[-10:]


@both_ways
def test_a_client_that_is_gone_is_not_a_read_error(
    fd: int, pair: Pair, read: ReadInto | None
) -> None:
    pair.client.close()
    assert Turn(fd, pair.ours, 0, len(CONTENT), read).run().state is State.CLIENT_GONE


def test_a_turn_given_up_during_a_read_sends_nothing_of_it(fd: int, pair: Pair) -> None:
    def read(fd: int, buffer: memoryview, offset: int) -> int:
        assert turn.reading_since_s is not None
        turn.abandon()
        return read_into(fd, buffer, offset)

    turn = Turn(fd, pair.ours, 0, len(CONTENT), read)
    assert turn.run().state is State.ABANDONED
    assert (turn.offset, pair.received()) == (0, b"")


def test_a_part_is_read_whole_or_not_at_all(fd: int) -> None:
    def little_by_little(fd: int, buffer: memoryview, offset: int) -> int:
        return read_into(fd, buffer[:3], offset)

    assert read_part(fd, 5, 10, little_by_little) == CONTENT[5:15]
    assert read_part(fd, 5, 0, little_by_little) == b""
    with pytest.raises(OSError, match=f"the file has nothing at byte {len(CONTENT)}"):
        read_part(fd, len(CONTENT) - 5, 6, read_into)
