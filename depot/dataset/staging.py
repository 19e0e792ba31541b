"""Writing one file onto one dataset, without a name of its own yet, from blocks as they come.

Runs where the device is touched: in a thread of the ingest, or in the dataset's worker process,
which has the blocks in shared memory and is told by number which to write. Whatever fails, no
staged file is left behind by a writer that can still run (Q3).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from depot.dataset.dataset import Dataset
from depot.errors import DatasetUnusable
from depot.streams.arena import shared_block

ALIGNMENT_BYTES: Final = 4096
SYNC_EVERY_BYTES: Final = 64 << 20
MOST_AT_ONCE: Final = 4
"""Blocks in one call, so that the device has the next while one is acknowledged: half a ring."""
QUICK_S: Final = 0.5


class GivenUp(Exception):
    """Nobody wants the file any more."""


class Blocks(Protocol):
    """What is to be written, in order."""

    def take(self) -> memoryview | None:
        """Wait for the next content; None at the end.

        Raises:
            GivenUp: the file is not wanted any more.
        """

    def more(self) -> memoryview | None:
        """Take the next content if it is there already."""

    def release(self, count: int) -> None:
        """Let go of the contents that were taken first."""


class StagedFile:
    """A file being written on one dataset, without a name of its own yet."""

    def __init__(self, dataset: Dataset, name: str, *, direct: bool) -> None:
        self.name = ""
        self._name = name
        self._dataset = dataset
        self._direct = direct
        self._fd = -1
        self._unsynced_bytes = 0

    def begin(self) -> None:
        """Create the file."""
        self._fd, self.name = self._dataset.stage(self._name)
        if self._direct:
            self._set_direct(True)

    def write(self, contents: Sequence[memoryview]) -> None:
        """Append blocks; only the last of all may be shorter than the others."""
        self._flush_in_steps(sum(map(len, contents)))
        for content in self._write_at_once(contents):
            self._write_alone(content)

    def finish(self) -> None:
        """Make the contents durable. After a failed fsync the file is worthless: no second try."""
        fd, self._fd = self._fd, -1
        try:
            os.fchmod(fd, 0o444)
            self._dataset.sync(fd)
        finally:
            os.close(fd)

    def discard(self) -> None:
        """Remove the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.name:
            self._dataset.discard(self.name)

    def _write_at_once(self, contents: Sequence[memoryview]) -> Sequence[memoryview]:
        """Write whole blocks in one call; what is left to be written."""
        whole = contents[:-1] if len(contents[-1]) % ALIGNMENT_BYTES else contents
        if len(whole) < 2:
            return contents
        try:
            written = self._dataset.disk.write_several(self._fd, whole)
        except OSError as error:
            if not (self._direct and error.errno == errno.EINVAL):
                raise
            return contents  # one by one it turns out whether that is the flag's fault
        left = []
        for content in contents:
            left.append(content[written:])
            written = max(0, written - len(content))
        return left

    def _write_alone(self, content: memoryview) -> None:
        while content:
            if self._direct and len(content) % ALIGNMENT_BYTES:
                self._set_direct(False)
            content = content[self._write_some(content) :]

    def _write_some(self, content: memoryview) -> int:
        try:
            return self._dataset.disk.write(self._fd, content)
        except OSError as error:
            if not (self._direct and error.errno == errno.EINVAL):
                raise
        # The filesystem takes the flag but not the write.
        self._set_direct(False)
        return self._dataset.disk.write(self._fd, content)

    def _set_direct(self, on: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(
                self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
            )
            self._direct = on
        except OSError:  # a filesystem without direct I/O
            self._direct = False

    def _flush_in_steps(self, size_bytes: int) -> None:
        # Without direct I/O, dirty pages pile up into one long fsync at the end.
        self._unsynced_bytes += size_bytes
        if not self._direct and self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self._dataset.sync(self._fd)
            self._unsynced_bytes = 0


def write_staged(
    dataset: Dataset,
    blocks: Blocks,
    name: str,
    *,
    direct: bool,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Write a synced file called `name` until `Dataset.commit`; empty when it was given up.

    If `direct`, past the page cache where the filesystem takes that.

    Raises:
        OSError, DatasetUnusable: nothing is left of it.
    """
    file = StagedFile(dataset, name, direct=direct)
    try:
        file.begin()
        at_once = 1
        while contents := _take_some(blocks, at_once):
            began_s = clock()
            file.write(contents)
            # A slow device gives back block after block, or it would be taken for one that hangs.
            at_once = MOST_AT_ONCE if clock() - began_s < QUICK_S else 1
            blocks.release(len(contents))
        file.finish()
    except (GivenUp, OSError, DatasetUnusable) as error:
        with suppress(OSError):
            file.discard()
        if isinstance(error, GivenUp):
            return ""
        raise
    return file.name


def _take_some(blocks: Blocks, most: int) -> list[memoryview]:
    """Wait for the next content, and take what else is there; empty at the end."""
    content, contents = blocks.take(), []
    while content is not None:
        contents.append(content)
        content = blocks.more() if len(contents) < most else None
    return contents


# Between processes: numbers of blocks one way, how many more are written the other way.

_ORDER: Final = struct.Struct(">iI")
_END: Final = -1


def send_block(channel: socket.socket, number: int, filled_bytes: int) -> None:
    """Have a block written; raises OSError when the writer is gone."""
    channel.send(_ORDER.pack(number, filled_bytes))


def send_end(channel: socket.socket) -> None:
    """Have the file synced; raises OSError when the writer is gone."""
    channel.send(_ORDER.pack(_END, 0))


def wait_released(channel: socket.socket) -> int:
    """Wait until the oldest blocks that were sent are free; how many, 0 when nothing more comes."""
    try:
        return sum(channel.recv(1))
    except OSError:
        return 0


class _SharedBlocks:
    """The writer's end of such a channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ended = False

    def take(self) -> memoryview | None:
        return None if self._ended else self._receive(0)

    def more(self) -> memoryview | None:
        try:
            return None if self._ended else self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def release(self, count: int) -> None:
        with suppress(OSError):  # `take` finds out
            self._channel.send(bytes([count]))

    def _receive(self, flags: int) -> memoryview | None:
        try:
            order = self._channel.recv(_ORDER.size, flags)
        except BlockingIOError:
            raise
        except OSError:
            order = b""
        if not order:
            raise GivenUp
        number, filled_bytes = _ORDER.unpack(order)
        self._ended = number == _END
        return None if self._ended else shared_block(number)[:filled_bytes]


def write_shared(dataset: Dataset, channel_fd: int, name: str, direct: bool) -> str:
    """Write a file from shared blocks, in the worker process; as `write_staged`."""
    with socket.socket(fileno=channel_fd) as channel:
        return write_staged(dataset, _SharedBlocks(channel), name, direct=direct)
