"""Sends parts of open files to connections, a turn at a time, from bounded worker threads.

A file that is open in a worker process is sent from there (`lending.py`), or, as the plain way,
through a pipe and threads of this process.

Rules kept here:
- The threads of one dataset are its own: a device that hangs stops no reads from its mirror (B4).
- A read that hangs is given up after `read_timeout_s`, like one that fails. A turn that finds no
  free thread for that long is given up too, but that is nobody's fault and says nothing about the
  copy.
- Where there is no descriptor or memory left for a turn, which is nobody's fault either, a piece is
  read into memory, with an answer that needs no descriptor, and sent from there.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

from depot.concurrency.threads import DaemonThreads, ended_within
from depot.device.host import FEEDS_AT_ONCE, Host, Lane
from depot.device.resident import RemoteFile
from depot.errors import DatasetUnusable
from depot.http.carrier import Carrier, ReadInto, read_into, send_some
from depot.http.fed_carrier import fed_carrier
from depot.http.lending import LentTurn
from depot.http.outlet import Outlet
from depot.http.turn import Feeder, Outcome, State, Turn, not_read, read_part
from depot.http.way import Way
from depot.mirrors.open_artifact import OpenArtifact
from depot.os_errors import FileChanged, OwnWords, is_shortage
from depot.streams.file_state import FileState, too_short
from depot.streams.verified_read import only_for

THREADS_PER_DATASET: Final = 4
_HANG_CHECK_S: Final = 1.0
_LENT_AT_ONCE: Final = 2 * FEEDS_AT_ONCE
"""So that a thread of the worker that ends a turn has the next."""
_PIECE_BYTES: Final = 64 << 10
_SHORTAGE_PAUSE_S: Final = 0.5
_FAST_BYTES: Final = 1 << 20
"""A client that takes less in a turn is not waited for in the next."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How far a copy went: `offset` is the first byte that was not sent.

    Attributes:
        error: why not all was sent; None when it was.
        copy_is_bad: the error is the copy's, so that it must not be served again.
        in_doubt: what was sent of it may be wrong, so that nothing may be sent behind it.
    """

    offset: int
    error: OSError | None = None
    copy_is_bad: bool = False
    in_doubt: bool = False


class Pump:
    """The worker threads of one server, by dataset.

    Args:
        threads_per_dataset: how many reads of one dataset run at once.
        read_timeout_s: how long one read may take.
        read: reads a block into memory; a seam for what stands between a file and its readers.
            None: nothing does, and the bytes need not pass through memory.

    Attributes:
        way: how large bodies leave.
    """

    def __init__(
        self,
        *,
        threads_per_dataset: int = THREADS_PER_DATASET,
        read_timeout_s: float = 30.0,
        read: ReadInto | None = None,
        way: Way = Way.AUTO,
    ) -> None:
        self._read = read
        self.way = way
        self._threads_per_dataset = threads_per_dataset
        self._read_timeout_s = read_timeout_s
        self._check_s = min(_HANG_CHECK_S, read_timeout_s / 4)
        self._sending = 0
        self._by_dataset: dict[int, DaemonThreads] = {}
        self._places = defaultdict[int, asyncio.Semaphore](
            partial(asyncio.Semaphore, _LENT_AT_ONCE)
        )

    async def read(self, opened: OpenArtifact, start: int, length_bytes: int) -> bytes:
        """Read a part that fits into memory; raises OSError when it cannot be read whole."""
        if opened.content is not None:
            return _part(opened, opened.content, start, length_bytes)
        try:
            return await self._read_part(opened, start, length_bytes)
        except OSError as error:
            if not is_shortage(error):
                raise
        end = start + length_bytes
        starts = range(start, end, _PIECE_BYTES)
        try:
            pieces = [
                await self._read_part(opened, each, min(_PIECE_BYTES, end - each))
                for each in starts
            ]
        except OSError as error:
            if is_shortage(error):
                await asyncio.sleep(_SHORTAGE_PAUSE_S)  # or whoever asks again would do it at once
            raise
        return b"".join(pieces)

    async def _read_part(self, opened: OpenArtifact, start: int, length_bytes: int) -> bytes:
        read = opened.read or self._read or read_into
        if opened.remote is not None:
            reading = _begin_remote(opened, *opened.remote, start, length_bytes, read)
        else:
            threads = self._threads(opened.dataset)
            state = _state_of(opened)
            reading = threads.submit(read_part, opened.fd, start, length_bytes, read, state)
        timeout_s = self._read_timeout_s
        if not await ended_within(
            reading, queue_s=timeout_s, run_s=timeout_s, check_s=self._check_s
        ):
            if reading.cancelled():  # it was never begun
                raise OwnWords(errno.EBUSY, "every reader is busy")
            raise OwnWords(errno.ETIMEDOUT, f"no answer in {timeout_s:g} s")
        try:
            return reading.result()
        except DatasetUnusable as error:
            raise OwnWords(errno.ENODEV, str(error)) from error

    async def send(self, outlet: Outlet, opened: OpenArtifact, start: int, end: int) -> Sent:
        """Send bytes `start` to `end`, or as many as the copy gives.

        Raises:
            ConnectionResetError: the client is gone.
            BodyTimeout: the client is too slow.
        """
        turn = self._turn(outlet, opened, start, end)
        turn.state = _state_of(opened)
        self._sending += 1
        try:
            while True:
                before = turn.offset
                outcome = await self._step(outlet, opened, turn, end)
                match outcome.state:
                    case State.SENT:
                        return Sent(end)
                    case State.SOCKET_FULL:
                        await outlet.writable()
                    case State.READ_FAILED:
                        # What was copied was looked at after that, and what was not was not sent.
                        in_doubt = (
                            isinstance(outcome.error, FileChanged) and self.way is not Way.COPY
                        )
                        return Sent(turn.offset, outcome.error, copy_is_bad=True, in_doubt=in_doubt)
                    case State.ABANDONED | State.SHORT:
                        return Sent(turn.offset, OwnWords(errno.EBUSY, "every reader is busy"))
                    case State.CLIENT_GONE:
                        raise ConnectionResetError("the client is gone") from outcome.error
                    case State.SHARE_USED:
                        pass
                turn.patient = turn.offset - before >= _FAST_BYTES
        finally:
            self._sending -= 1
            outlet.sent_bytes += turn.offset - start
            # Somebody may still be in it when the request was cancelled.
            turn.abandon()

    def _turn(self, outlet: Outlet, opened: OpenArtifact, start: int, end: int) -> Turn | LentTurn:
        read = opened.read or self._read
        if self.way is Way.COPY:
            read = read or read_into
        if opened.remote is None or self.way is Way.PIPE:
            return Turn(opened.fd, outlet.socket, start, end, read, _feeder(opened))
        return LentTurn(
            opened.remote,
            outlet,
            start,
            end,
            read,
            places=self._places[opened.dataset],
            timeout_s=self._read_timeout_s,
            check_s=self._check_s,
        )

    async def _step(
        self, outlet: Outlet, opened: OpenArtifact, turn: Turn | LentTurn, end: int
    ) -> Outcome:
        """Take a turn, or send a little from memory if there is nothing left to take one with."""
        if isinstance(turn, LentTurn):
            turn.mapped = turn.patient and self._is_lone(outlet)
            outcome = await turn.take()
        else:
            outcome = await self._take(turn, opened.dataset)
        if outcome.state is not State.SHORT:
            return outcome
        try:
            content = await self.read(opened, turn.offset, min(_PIECE_BYTES, end - turn.offset))
        except OSError as error:
            return not_read(error)
        left = memoryview(content)
        while left:
            try:
                count = send_some(outlet.socket, left)
            except OSError as error:
                return Outcome(State.CLIENT_GONE, error)
            turn.offset += count
            left = left[count:]
            if not count:
                await outlet.writable()
        return Outcome(State.SENT if turn.offset == end else State.SHARE_USED)

    def close(self) -> None:
        """Let the threads end."""
        for threads in self._by_dataset.values():
            threads.close()

    def _is_lone(self, outlet: Outlet) -> bool:
        return self.way is Way.AUTO and self._sending == 1 and outlet.is_local()

    async def _take(self, turn: Turn, dataset: int) -> Outcome:
        submitted = self._threads(dataset).submit(turn.run)
        future = asyncio.wrap_future(submitted)
        queued_s = time.monotonic()
        try:
            while not (await asyncio.wait((future,), timeout=self._check_s))[0]:
                now_s = time.monotonic()
                if self._hangs(turn, now_s):
                    turn.abandon()
                    error = OwnWords(errno.ETIMEDOUT, f"no answer in {self._read_timeout_s:g} s")
                    return Outcome(State.READ_FAILED, error)
                if now_s - queued_s > self._read_timeout_s and submitted.cancel():
                    return Outcome(State.ABANDONED)
            return future.result()
        except OSError as error:
            if not is_shortage(error):
                raise
            return not_read(error)
        finally:
            future.cancel()

    def _hangs(self, turn: Turn, now_s: float) -> bool:
        since_s = turn.reading_since_s
        return since_s is not None and now_s - since_s > self._read_timeout_s

    def _threads(self, dataset: int) -> DaemonThreads:
        if dataset not in self._by_dataset:
            self._by_dataset[dataset] = DaemonThreads(f"send-{dataset}", self._threads_per_dataset)
        return self._by_dataset[dataset]


def _feeder(opened: OpenArtifact) -> Feeder | None:
    if opened.remote is None:
        return None
    file, host = opened.remote
    state = _state_of(opened)

    def feed(
        start: int, end: int, read: ReadInto | None, given_up: Callable[[], bool]
    ) -> AbstractContextManager[Carrier]:
        return fed_carrier(host, file, start, end, read, state, given_up)

    return feed


def _state_of(opened: OpenArtifact) -> FileState | None:
    """In which a file is to be still that is read without looking at its bytes."""
    return opened.state if opened.read is None else None


def _begin_remote(
    opened: OpenArtifact,
    file: RemoteFile,
    host: Host,
    start: int,
    length_bytes: int,
    read: ReadInto,
) -> Future[bytes]:
    part = only_for(read, start, start + length_bytes)
    state = _state_of(opened)
    return host.submit_in(Lane.FEEDS, read_part, file, start, length_bytes, part, state)


def _part(opened: OpenArtifact, content: bytes, start: int, length_bytes: int) -> bytes:
    if opened.read is not None:
        opened.read.check_whole(content)
    part = content[start : start + length_bytes]
    if len(part) < length_bytes:
        raise too_short(len(content), start + length_bytes)
    return part
