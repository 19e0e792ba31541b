"""Senders that stall, drip, lie and break off, against a clock that the test moves (S2)."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from depot.errors import BodyTimeout, InvalidRequest, LengthMismatch
from depot.streams.sources import (
    FileSource,
    Pace,
    PaceMeter,
    SocketSource,
    StreamSource,
    ZstdSource,
)
from depot.writing.ingest import fill

PACE = Pace(idle_timeout_s=10.0, min_bytes_per_s=100.0, window_s=30.0)
IMPATIENT = Pace(idle_timeout_s=0.02, min_bytes_per_s=0.0)
PATIENT = Pace(idle_timeout_s=60.0, min_bytes_per_s=0.0)
WAIT_S = 20.0


class Clock:
    """Moves when told, and by `step_s` with each look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


# The pace, in pure numbers


def arrive(meter: PaceMeter, seconds: range, bytes_each: int) -> None:
    for second in seconds:
        meter.arrived(bytes_each, float(second))


def test_a_sender_that_keeps_the_pace_is_never_given_up() -> None:
    arrive(PaceMeter(PACE, 0.0), range(1, 500), 100)


def test_silence_is_given_up_at_the_idle_timeout() -> None:
    meter = PaceMeter(PACE, 0.0)
    meter.arrived(10_000, 5.0)
    meter.check(14.9)
    with pytest.raises(BodyTimeout, match="silent for 10 s"):
        meter.check(15.0)


def test_a_sender_that_never_begins_is_silent() -> None:
    with pytest.raises(BodyTimeout):
        PaceMeter(PACE, 7.0).check(17.0)


def test_dripping_is_given_up_at_the_end_of_the_window() -> None:
    meter = PaceMeter(PACE, 0.0)
    with pytest.raises(BodyTimeout, match="1 bytes/s; at least 100"):
        arrive(meter, range(1, 31), 1)


def test_one_burst_does_not_pay_for_the_next_window() -> None:
    meter = PaceMeter(PACE, 0.0)
    meter.arrived(1_000_000, 1.0)
    arrive(meter, range(2, 31), 1)
    with pytest.raises(BodyTimeout):
        arrive(meter, range(31, 62), 1)


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0.01, 9.0)), max_size=60))
def test_a_verdict_of_too_slow_is_always_true(arrivals: list[tuple[int, float]]) -> None:
    meter, now_s, total = PaceMeter(PACE, 0.0), 0.0, 0
    for size_bytes, pause_s in arrivals:
        now_s += pause_s
        total += size_bytes
        try:
            meter.arrived(size_bytes, now_s)
        except BodyTimeout:
            assert now_s >= PACE.window_s
            return
    assert total >= 0


# Sockets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def read_all(source: SocketSource | ZstdSource | FileSource, size_bytes: int = 1 << 20) -> bytes:
    buffer = memoryview(bytearray(size_bytes))
    return bytes(buffer[: fill(source, buffer)])


def read_byte_by_byte(source: SocketSource) -> None:
    one_byte = memoryview(bytearray(1))
    while source.readinto(one_byte):
        pass


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("prefix_bytes", [0, 1, 500, 999, 1000])
def test_a_socket_gives_its_prefix_and_then_the_rest(pair: Pair, prefix_bytes: int) -> None:
    content = os.urandom(1000)
    pair[1].send(content[prefix_bytes:] + b"the next request")
    source = SocketSource(pair[0], content[:prefix_bytes], 1000, PATIENT)
    assert read_all(source) == content
    assert source.readinto(memoryview(bytearray(10))) == 0
    pair[0].setblocking(True)
    assert pair[0].recv(100) == b"the next request" if prefix_bytes < 1000 else True


def test_a_prefix_longer_than_the_body_gives_only_the_body(pair: Pair) -> None:
    source = SocketSource(pair[0], b"bodymore", 4, PATIENT)
    assert read_all(source) == b"body"


def test_a_half_close_in_the_body_is_a_length_mismatch(pair: Pair) -> None:
    pair[1].send(b"x" * 400)
    pair[1].shutdown(socket.SHUT_WR)
    source = SocketSource(pair[0], b"", 1000, PATIENT)
    with pytest.raises(LengthMismatch) as ended:
        read_all(source)
    assert (ended.value.expected_bytes, ended.value.actual_bytes) == (1000, 400)


def test_a_lost_connection_is_an_os_error(pair: Pair) -> None:
    source = SocketSource(pair[0], b"", 1000, PATIENT)
    pair[0].send(b"unread")  # unread at close: the peer resets
    pair[1].close()
    with pytest.raises((ConnectionResetError, LengthMismatch)):
        read_all(source)


def test_a_silent_socket_is_given_up(pair: Pair) -> None:
    source = SocketSource(pair[0], b"some", 1000, IMPATIENT)
    with pytest.raises(BodyTimeout):
        read_all(source)


def test_a_dripping_socket_is_given_up(pair: Pair) -> None:
    # Each look at the clock takes two seconds, and each byte is there at once.
    pair[1].send(b"x" * 100)
    source = SocketSource(pair[0], b"", 1000, PACE, clock=Clock(step_s=2.0))
    with pytest.raises(BodyTimeout, match="bytes/s"):
        read_byte_by_byte(source)


def test_time_in_which_nobody_reads_does_not_count_against_the_sender(pair: Pair) -> None:
    # B4: a disk of ours hangs for ten minutes; the last bytes have long been here.
    clock = Clock()
    source = SocketSource(pair[0], b"", 200, PACE, clock=clock)
    pair[1].send(b"x" * 100)
    assert source.readinto(memoryview(bytearray(100))) == 100
    clock.now_s += 600.0
    pair[1].send(b"x" * 100)
    assert source.readinto(memoryview(bytearray(100))) == 100


def test_abort_ends_a_read_that_waits(pair: Pair) -> None:
    source = SocketSource(pair[0], b"", 1000, PATIENT)
    ended: list[BaseException] = []

    def read() -> None:
        try:
            read_all(source)
        except OSError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    source.abort()
    pair[1].send(b"x")  # wakes the reader before its next look
    reader.join(WAIT_S)
    assert [type(error) for error in ended] == [ConnectionAbortedError]


def test_another_pace_counts_from_then_on(pair: Pair) -> None:
    clock = Clock(step_s=1.0)
    source = SocketSource(pair[0], b"", 1000, PATIENT, clock=clock)
    pair[1].send(b"x" * 10)
    assert source.readinto(memoryview(bytearray(10))) == 10
    source.set_pace(Pace(idle_timeout_s=0.02, min_bytes_per_s=0.0))
    with pytest.raises(BodyTimeout):
        read_all(source)


def test_close_leaves_the_connection_itself_open(pair: Pair) -> None:
    SocketSource(pair[0].dup(), b"", 10, PATIENT).close()
    pair[1].send(b"still")
    assert pair[0].recv(10) == b"still"


# Streams of the event loop


class Stream:
    """What a library's reader does: pieces, then the end, or an error."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces = list(pieces)
        self.error = error
        self.cancelled = asyncio.Event()

    async def read(self, size_bytes: int) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.error:
            raise self.error
        return b""


class SilentStream(Stream):
    async def read(self, size_bytes: int) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""


async def read_stream(source: StreamSource, size_bytes: int = 1 << 16) -> bytes:
    buffer = memoryview(bytearray(size_bytes))
    return bytes(buffer[: await asyncio.to_thread(fill, source, buffer)])


async def test_a_stream_gives_its_pieces_whatever_their_size() -> None:
    stream = Stream(b"a" * 10, b"b" * 100_000, b"c")
    source = StreamSource(asyncio.get_running_loop(), stream.read, PATIENT)
    content = await read_stream(source, 1000) + await read_stream(source, 200_000)
    assert content == b"a" * 10 + b"b" * 100_000 + b"c"


async def test_a_stream_that_ends_before_its_announced_length_is_a_mismatch() -> None:
    stream = Stream(b"a" * 10)
    source = StreamSource(asyncio.get_running_loop(), stream.read, PATIENT, length_bytes=11)
    with pytest.raises(LengthMismatch):
        await read_stream(source)


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), TimeoutError("the library's")])
async def test_an_error_of_the_library_is_passed_on_at_once(error: Exception) -> None:
    stream = Stream(b"a", error=error)
    source = StreamSource(asyncio.get_running_loop(), stream.read, PATIENT)
    async with asyncio.timeout(5):
        with pytest.raises(type(error)):
            await read_stream(source)


async def test_a_silent_stream_is_given_up_and_its_reader_is_gone() -> None:
    # One that stayed would keep the server from draining the body.
    stream = SilentStream()
    source = StreamSource(asyncio.get_running_loop(), stream.read, IMPATIENT)
    with pytest.raises(BodyTimeout):
        await read_stream(source)
    await asyncio.wait_for(stream.cancelled.wait(), WAIT_S)


async def test_abort_ends_a_stream_that_waits() -> None:
    stream = SilentStream()
    # Looks often, at a clock that stands still.
    loop, pace = asyncio.get_running_loop(), Pace(idle_timeout_s=0.02)
    source = StreamSource(loop, stream.read, pace, clock=Clock())
    reading = asyncio.ensure_future(read_stream(source))
    source.abort()
    with pytest.raises(ConnectionAbortedError):
        await reading
    await asyncio.wait_for(stream.cancelled.wait(), WAIT_S)


async def test_time_in_which_nobody_reads_a_stream_does_not_count_either() -> None:
    clock = Clock()
    stream = Stream(b"x" * 10, b"y" * 10)
    source = StreamSource(asyncio.get_running_loop(), stream.read, PACE, clock=clock)
    assert await read_stream(source, 10) == b"x" * 10
    clock.now_s += 600.0
    assert await read_stream(source, 10) == b"y" * 10


# Files and zstd


def test_a_file_is_read_from_its_start_whatever_its_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb", buffering=0) as file:
        file.seek(3)
        source = FileSource(file.fileno())
        assert read_all(source) == b"content"
        assert file.tell() == 3
        source.abort()
        with pytest.raises(ConnectionAbortedError):
            read_all(source)


class Bytes:
    """A body in pieces of seven bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        return self._content.readinto(buffer[:7])

    def abort(self) -> None:
        self.aborted = True


@given(st.binary(max_size=5000))
def test_a_zstd_stream_is_decoded(content: bytes) -> None:
    source = ZstdSource(Bytes(zstandard.compress(content)))
    assert read_all(source) == content


@given(st.binary(min_size=1, max_size=200))
def test_what_is_no_zstd_stream_is_refused_or_gives_nothing(content: bytes) -> None:
    try:
        assert read_all(ZstdSource(Bytes(content))) == b""
    except InvalidRequest:
        return


def test_abort_reaches_the_source_underneath() -> None:
    inner = Bytes(b"")
    ZstdSource(inner).abort()
    assert inner.aborted


class JustNow(Future[bytes]):
    """Has its result in the very moment in which the patience with it ends."""

    def result(self, timeout: float | None = None) -> bytes:
        if not self.done():
            self.set_result(b"content")
            raise TimeoutError
        return super().result(timeout)


def test_bytes_that_come_just_as_the_time_is_over_are_no_lost_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(step: Coroutine[Any, Any, bytes], _loop: object) -> Future[bytes]:
        step.close()
        return JustNow()

    async def read(_size_bytes: int) -> bytes:
        return b""

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", run)
    source = StreamSource(cast("asyncio.AbstractEventLoop", None), read, Pace())
    buffer = memoryview(bytearray(100))
    assert source.readinto(buffer) == 7
    assert bytes(buffer[:7]) == b"content"
