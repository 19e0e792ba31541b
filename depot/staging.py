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
from contextlib import suppress
from typing import Final, Protocol

from depot.dataset import Dataset
from depot.device.arena import shared_block
from depot.errors import DatasetUnusable

ALIGNMENT_BYTES: Final = 4096
SYNC_EVERY_BYTES: Final = 64 << 20


class GivenUp(Exception):
    """Nobody wants the file any more."""


class Blocks(Protocol):
    """What is to be written."""

    def take(self) -> memoryview | None:
        """Wait for the next content; None at the end.

        Raises:
            GivenUp: the file is not wanted any more.
        """

    def release(self) -> None:
        """Let go of the content that was taken."""


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

    def write(self, content: memoryview) -> None:
        """Append; only the last block may be shorter than the others."""
        self._flush_in_steps(len(content))
        while content:
            if self._direct and len(content) % ALIGNMENT_BYTES:
                self._set_direct(False)
            content = content[self._write_some(content) :]

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


def write_staged(dataset: Dataset, blocks: Blocks, name: str, *, direct: bool) -> str:
    """Write a synced file called `name` until `Dataset.commit`; empty when it was given up.

    If `direct`, past the page cache where the filesystem takes that.

    Raises:
        OSError, DatasetUnusable: nothing is left of it.
    """
    file = StagedFile(dataset, name, direct=direct)
    try:
        file.begin()
        while (content := blocks.take()) is not None:
            file.write(content)
            blocks.release()
        file.finish()
    except (GivenUp, OSError, DatasetUnusable) as error:
        with suppress(OSError):
            file.discard()
        if isinstance(error, GivenUp):
            return ""
        raise
    return file.name


# Between processes: numbers of blocks one way, an acknowledgement of each the other way.

_ORDER: Final = struct.Struct(">iI")
_END: Final = -1
_ACKNOWLEDGED: Final = b"\0"


def send_block(channel: socket.socket, number: int, filled_bytes: int) -> None:
    """Have a block written; raises OSError when the writer is gone."""
    channel.send(_ORDER.pack(number, filled_bytes))


def send_end(channel: socket.socket) -> None:
    """Have the file synced; raises OSError when the writer is gone."""
    channel.send(_ORDER.pack(_END, 0))


def wait_released(channel: socket.socket) -> bool:
    """Wait until the oldest block that was sent is free; False when nothing more comes."""
    try:
        return bool(channel.recv(len(_ACKNOWLEDGED)))
    except OSError:
        return False


class _SharedBlocks:
    """The writer's end of such a channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def take(self) -> memoryview | None:
        try:
            order = self._channel.recv(_ORDER.size)
        except OSError:
            order = b""
        if not order:
            raise GivenUp
        number, filled_bytes = _ORDER.unpack(order)
        return None if number == _END else shared_block(number)[:filled_bytes]

    def release(self) -> None:
        with suppress(OSError):  # `take` finds out
            self._channel.send(_ACKNOWLEDGED)


def write_shared(dataset: Dataset, channel_fd: int, name: str, direct: bool) -> str:
    """Write a file from shared blocks, in the worker process; as `write_staged`."""
    with socket.socket(fileno=channel_fd) as channel:
        return write_staged(dataset, _SharedBlocks(channel), name, direct=direct)
