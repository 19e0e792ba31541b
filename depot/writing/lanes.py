"""Consumers of an ingest's blocks: the hash, and one writer for each mirror.

Each has a thread of the ingest. A writer's thread writes itself, or looks after the worker process
that does. One that is abandoned lets go of every block at once, however its device hangs: what a
late write still puts into its file has no name and never gets one.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from depot.dataset import staging
from depot.dataset.dataset import Dataset
from depot.dataset.staging_names import new_staged_name
from depot.device.host import Host, Lane
from depot.device.messages import Passed
from depot.errors import DatasetUnusable
from depot.streams.blocks import Block, Ring

_Failure = OSError | DatasetUnusable


class Consumer(Protocol):
    """Takes every block of a transfer in turn.

    Attributes:
        error: why it takes no more; the first reason is the one that counts.
        cancelled: the transfer failed, and what came of it is not wanted.
        abandoned: it was given up because it hangs.
    """

    error: _Failure | None
    cancelled: bool
    abandoned: bool

    @property
    def waiting_blocks(self) -> int:
        """How many blocks it has not let go of."""

    def put(self, block: Block) -> None:
        """Hand over a block, which it releases."""

    def end(self) -> None:
        """Say that no more blocks come."""

    def abandon(self) -> None:
        """Give up on it: free its blocks."""

    def run(self) -> None:
        """Consume until the end, in a thread."""


class Writer(Consumer, Protocol):
    """Writes to one mirror.

    Attributes:
        name: of the synced file, once it is whole.
    """

    name: str

    def fail(self, error: _Failure) -> None:
        """Write no more."""


Written = Callable[[int], None]
"""Called in a writer's thread with the bytes that are in its file so far."""


@dataclass(frozen=True, slots=True)
class Target:
    """A dataset that a stream goes to, and where it is written from.

    Attributes:
        name: what the file is called until it is committed.
    """

    dataset: Dataset
    host: Host
    name: str = field(default_factory=new_staged_name)


def _too_slow() -> OSError:
    return OSError(errno.ETIMEDOUT, "the device is too slow for this write")


class _Line:
    """Blocks on their way to a thread of this process."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._blocks: SimpleQueue[Block | None] = SimpleQueue()
        self._taken: deque[Block] = deque()
        self._ended = False

    @property
    def waiting_blocks(self) -> int:
        return self._blocks.qsize() + len(self._taken)

    def put(self, block: Block | None) -> None:
        self._blocks.put(block)

    def take(self) -> Block | None:
        """Wait for the next block; None at the end."""
        return None if self._ended else self._took(self._blocks.get())

    def more(self) -> Block | None:
        """Take the next block if it is there, and this consumer may be busy with one more."""
        if self._ended or len(self._taken) >= self._ring.most_held:
            return None
        with suppress(Empty):
            return self._took(self._blocks.get_nowait())
        return None

    def release(self) -> int:
        """Let go of the block that was taken first; its size in bytes."""
        block = self._taken.popleft()
        size_bytes = block.filled
        self._ring.release(block)
        return size_bytes

    def drain(self) -> None:
        """Let go of what was taken and what still comes, until the end."""
        while self._taken or self.take() is not None:
            self.release()

    def clear(self) -> None:
        """Let go of what nobody has begun with, and end; for another thread than the consumer's."""
        with suppress(Empty):
            while block := self._blocks.get_nowait():
                self._ring.release(block)
        self._blocks.put(None)

    def _took(self, block: Block | None) -> Block | None:
        if block is None:
            self._ended = True
        else:
            self._taken.append(block)
        return block


class Hasher:
    """Feeds a hash; `update` cannot fail."""

    def __init__(self, update: Callable[[memoryview], object], ring: Ring) -> None:
        self.error: _Failure | None = None
        self.cancelled = False
        self.abandoned = False
        self._update = update
        self._line = _Line(ring)
        self.put = self._line.put

    @property
    def waiting_blocks(self) -> int:
        """How many blocks it has not let go of."""
        return self._line.waiting_blocks

    def end(self) -> None:
        """Say that no more blocks come."""
        self._line.put(None)

    def abandon(self) -> None:
        """Give up on it."""
        self.abandoned, self.error = True, self.error or _too_slow()
        self._line.clear()

    def run(self) -> None:
        """Hash until the end."""
        while (block := self._line.take()) is not None:
            if self.error is None:
                self._update(block.content)
            self._line.release()


class _Ending:
    """A writer's end: a whole file or a failure, whichever comes first; the other does nothing.

    Who gives a writer up is another thread than the one that ends it just then. Without this, the
    file of a writer that is whole and failed would be nobody's (Q3).
    """

    def __init__(self) -> None:
        self.name = ""
        self.error: _Failure | None = None
        self.cancelled = False
        self.abandoned = False
        self._ending = threading.Lock()

    def fail(self, error: _Failure) -> None:
        """Write no more, unless all is written."""
        with self._ending:
            if not self.name:
                self.error = self.error or error

    def _is_whole(self, name: str) -> bool:
        """Take note of the synced file; False: it is not wanted any more."""
        with self._ending:
            if self.cancelled or self.error:
                return False
            self.name = name
            return True


class LocalWriter(_Ending):
    """Writes in its own thread."""

    def __init__(self, target: Target, ring: Ring, on_written: Written, *, direct: bool) -> None:
        super().__init__()
        self._target = target
        self._direct = direct
        self._on_written = on_written
        self._written_bytes = 0
        self._line = _Line(ring)
        self.put = self._line.put

    @property
    def waiting_blocks(self) -> int:
        """How many blocks it has not let go of."""
        return self._line.waiting_blocks

    def end(self) -> None:
        """Say that no more blocks come."""
        self._line.put(None)

    def abandon(self) -> None:
        """Give up on a stuck thread."""
        self.abandoned = True
        self.fail(_too_slow())
        self._line.clear()

    def take(self) -> memoryview | None:
        """Wait for the next content; `staging.write_staged` asks."""
        block = self._line.take()
        if self.cancelled or self.error:
            raise staging.GivenUp
        return None if block is None else block.content

    def more(self) -> memoryview | None:
        """Take the next content if it is there."""
        block = self._line.more()
        return None if block is None else block.content

    def release(self, count: int) -> None:
        """Let go of what is written; `staging.write_staged` says when."""
        for _ in range(count):
            self._written_bytes += self._line.release()
        self._on_written(self._written_bytes)

    def run(self) -> None:
        """Write until the end."""
        dataset = self._target.dataset
        try:
            name = staging.write_staged(dataset, self, self._target.name, direct=self._direct)
        except (OSError, DatasetUnusable) as error:
            self.fail(error)
            name = ""
        self._line.drain()
        if name and not self._is_whole(name):
            with suppress(OSError):
                dataset.discard(name)


class RemoteWriter(_Ending):
    """Has the worker process of a dataset write from the shared blocks."""

    def __init__(
        self,
        target: Target,
        ring: Ring,
        on_written: Written,
        stall_timeout_s: float,
        *,
        direct: bool,
    ) -> None:
        super().__init__()
        self._target = target
        self._ring = ring
        self._on_written = on_written
        self._stall_timeout_s = stall_timeout_s
        self._held: deque[Block] = deque()
        self._lock = threading.Lock()
        self._over = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._writing: Future[str] = target.host.submit_in(
                Lane.WRITES,
                staging.write_shared,
                target.dataset,
                Passed(theirs.fileno()),
                target.name,
                direct,
            )

    @property
    def waiting_blocks(self) -> int:
        """How many blocks it has not let go of."""
        return len(self._held)

    def put(self, block: Block) -> None:
        """Hand over a block."""
        with self._lock:
            if not self._over:
                self._held.append(block)
                with suppress(OSError):  # the worker is gone: `run` finds out
                    staging.send_block(self._channel, block.number, block.filled)
                return
        self._ring.release(block)

    def end(self) -> None:
        """Say that no more blocks come."""
        with self._lock, suppress(OSError):
            if self.cancelled or self.error:
                self._channel.shutdown(socket.SHUT_RDWR)
            else:
                staging.send_end(self._channel)

    def abandon(self) -> None:
        """Leave the worker to itself."""
        self.abandoned = True
        self.fail(_too_slow())
        with self._lock, suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Look after the worker until it is done or given up."""
        written_bytes = 0
        while count := staging.wait_released(self._channel):
            for _ in range(count):
                with self._lock:
                    block = self._held.popleft()
                written_bytes += block.filled
                self._ring.release(block)
            self._on_written(written_bytes)
        with self._lock:
            self._over = True
            self._channel.close()
            held, self._held = self._held, deque()
        for block in held:
            self._ring.release(block)
        self._take_result()

    def _take_result(self) -> None:
        name = ""
        try:
            # What was given up had its time already; what is not wanted is cleared away first (Q3).
            name = self._writing.result(0 if self.abandoned else self._stall_timeout_s)
        except (OSError, DatasetUnusable) as error:
            self.fail(error)
        if not self._is_whole(name):
            self._writing.add_done_callback(self._discard)

    def _discard(self, writing: Future[str]) -> None:
        # It was whole before it heard that nobody wants it.
        if not writing.cancelled() and writing.exception() is None and (name := writing.result()):
            self._target.host.submit(Dataset.discard, self._target.dataset, name)
