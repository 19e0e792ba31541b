"""Where an ingest's bytes come from: blocking readers that are bounded in time.

A source is read from one worker thread. Silence longer than its idle timeout, or a rate below its
minimum, raises `BodyTimeout` (S2); a body that ends early raises `LengthMismatch`; a lost
connection raises `OSError`. `abort()` may be called from any thread and makes a running or later
`readinto` raise within a second.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol, Self

import zstandard

from depot.errors import BodyTimeout, InvalidRequest, LengthMismatch

ABORT_CHECK_S: Final = 1.0
MAX_ZSTD_WINDOW_BYTES: Final = 8 << 20


Clock = Callable[[], float]


class Source(Protocol):
    """A stream of artifact bytes."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end."""

    def abort(self) -> None:
        """Make the reader give up soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slow a sender may be.

    Attributes:
        idle_timeout_s: longest silence, seconds.
        min_bytes_per_s: lowest average over any `window_s` seconds.
    """

    idle_timeout_s: float = 75.0
    min_bytes_per_s: float = 1024.0
    window_s: float = 30.0


class PaceMeter:
    """Judges arriving bytes against a `Pace`; the caller supplies the time.

    That time is what was spent waiting for the sender: what a slow disk of ours takes between two
    reads must not count against it (B4).
    """

    def __init__(self, pace: Pace, now_s: float) -> None:
        self._pace = pace
        self._window_start_s = now_s
        self._window_bytes = 0
        self._last_byte_s = now_s

    def arrived(self, size_bytes: int, now_s: float) -> None:
        """Count bytes; raises BodyTimeout at the end of a window that was too slow."""
        self._window_bytes += size_bytes
        self._last_byte_s = now_s
        self.check(now_s)

    def check(self, now_s: float) -> None:
        """Raise BodyTimeout when the sender is too slow as of `now_s`."""
        silent_s = now_s - self._last_byte_s
        if silent_s >= self._pace.idle_timeout_s:
            raise BodyTimeout(f"the body has been silent for {silent_s:.0f} s")
        elapsed_s = now_s - self._window_start_s
        if elapsed_s < self._pace.window_s:
            return
        if self._window_bytes < self._pace.min_bytes_per_s * elapsed_s:
            raise BodyTimeout(
                f"the body arrives at {self._window_bytes / elapsed_s:.0f} bytes/s; "
                f"at least {self._pace.min_bytes_per_s:.0f} are expected"
            )
        self._window_start_s, self._window_bytes = now_s, 0


class _Waiting:
    """A clock that runs only inside `with`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._total_s = 0.0
        self._entered_s: float | None = None

    def now_s(self) -> float:
        running_s = 0.0 if self._entered_s is None else self._clock() - self._entered_s
        return self._total_s + running_s

    def __enter__(self) -> Self:
        self._entered_s = self._clock()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._total_s, self._entered_s = self.now_s(), None


class SocketSource:
    """Reads exactly `length_bytes` from `prefix` and then straight from a socket.

    Owns `sock` (a duplicate of the connection's descriptor) until `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        prefix: bytes,
        length_bytes: int,
        pace: Pace,
        clock: Clock = time.monotonic,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._prefix = memoryview(prefix)
        self._length_bytes = length_bytes
        self._left_bytes = length_bytes
        self._waiting = _Waiting(clock)
        self._meter = PaceMeter(pace, 0.0)
        self._pace = pace
        self._aborted = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`."""
        if self._left_bytes == 0:
            return 0
        wanted = buffer[: self._left_bytes]
        count = self._take_prefix(wanted) if self._prefix else self._receive(wanted)
        self._left_bytes -= count
        return count

    def abort(self) -> None:
        """See `Source`."""
        self._aborted = True

    def set_pace(self, pace: Pace) -> None:
        """Judge the sender differently from the next read on."""
        self._pace, self._meter = pace, PaceMeter(pace, self._waiting.now_s())

    def close(self) -> None:
        """Give up the duplicate descriptor; the connection itself stays open."""
        self._socket.close()

    def _take_prefix(self, wanted: memoryview) -> int:
        part, self._prefix = self._prefix[: len(wanted)], self._prefix[len(wanted) :]
        wanted[: len(part)] = part
        return len(part)

    def _receive(self, wanted: memoryview) -> int:
        with self._waiting as waiting:
            while not self._aborted:
                try:
                    count = self._socket.recv_into(wanted)
                except BlockingIOError:
                    self._poll.poll(min(ABORT_CHECK_S, self._pace.idle_timeout_s) * 1000)
                    self._meter.check(waiting.now_s())
                    continue
                if count == 0:
                    raise LengthMismatch(self._length_bytes, self._length_bytes - self._left_bytes)
                self._meter.arrived(count, waiting.now_s())
                return count
        raise ConnectionAbortedError("the transfer was given up")


class StreamSource:
    """Reads from a coroutine on an event loop: `await read(n)`, up to n bytes, b"" at the end.

    For bodies that the HTTP library has to decode (chunked, TLS). One hop to the loop a block.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[int], Awaitable[bytes]],
        pace: Pace,
        length_bytes: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._loop = loop
        self._read = read
        self._pace = pace
        self._length_bytes = length_bytes
        self._received_bytes = 0
        self._waiting = _Waiting(clock)
        self._meter = PaceMeter(pace, 0.0)
        self._pending = memoryview(b"")
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`."""
        if not self._pending:
            self._pending = memoryview(self._next(len(buffer)))
        part, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        buffer[: len(part)] = part
        self._received_bytes += len(part)
        if not part and self._length_bytes not in (None, self._received_bytes):
            raise LengthMismatch(self._length_bytes or 0, self._received_bytes)
        return len(part)

    def abort(self) -> None:
        """See `Source`."""
        self._aborted = True

    def close(self) -> None:
        """Nothing is held."""

    def _next(self, size_bytes: int) -> bytes:
        future = asyncio.run_coroutine_threadsafe(self._read_some(size_bytes), self._loop)
        with self._waiting as waiting:
            while True:
                try:
                    content = future.result(timeout=min(ABORT_CHECK_S, self._pace.idle_timeout_s))
                except TimeoutError:
                    if not future.done():
                        self._check_or_cancel(future, waiting.now_s())
                        continue
                    # It has come just now, or the error is its own: the connection is lost.
                    content = future.result()
                self._meter.arrived(len(content), waiting.now_s())
                return content

    def _check_or_cancel(self, future: Future[bytes], now_s: float) -> None:
        try:
            self._check(now_s)
        except (ConnectionAbortedError, BodyTimeout):
            future.cancel()  # a reader that stays would keep others from the stream
            raise

    def _check(self, now_s: float) -> None:
        if self._aborted:
            raise ConnectionAbortedError("the transfer was given up")
        self._meter.check(now_s)

    async def _read_some(self, size_bytes: int) -> bytes:
        return await self._read(size_bytes)


class FileSource:
    """Reads a file from its start. Does not own the descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset_bytes = 0
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`."""
        if self._aborted:
            raise ConnectionAbortedError("the transfer was given up")
        count = os.preadv(self._fd, [buffer], self._offset_bytes)
        self._offset_bytes += count
        return count

    def abort(self) -> None:
        """See `Source`."""
        self._aborted = True


class _RawSource(io.RawIOBase):
    """A source as the raw file that the decompressor wants."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._source.readinto(memoryview(buffer))  # type: ignore[arg-type]  # a Buffer


class ZstdSource:
    """Decodes a zstd stream while it is read; the window is bounded, the output by the caller."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(
            io.BufferedReader(_RawSource(inner), buffer_size=1 << 17), read_across_frames=True
        )

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Source`; raises InvalidRequest for bytes that are not zstd."""
        try:
            return self._reader.readinto(buffer)
        except zstandard.ZstdError as error:
            raise InvalidRequest(f"the body is not a zstd stream that fits: {error}") from error

    def abort(self) -> None:
        """See `Source`."""
        self._inner.abort()
