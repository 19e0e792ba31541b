"""Moving part of a file into a pipe, in the worker process that has the file open.

The agent sends from the pipe, so that no client's socket ever comes near a device, and a device
that hangs leaves nothing behind but what it was asked for: the agent knows to the byte what it has
sent. Where nothing has to look at the bytes, the pipe takes references to the page cache.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Final

from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.file_state import FileState, too_short

ReadInto = Callable[[int, memoryview, int], int]
# The filesystem cannot, the system cannot, or a sandbox forbids it.
_NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})


def feed(
    fd: int,
    start: int,
    end: int,
    read: ReadInto | None,
    pipe_fd: int,
    state: FileState | None = None,
) -> None:
    """Write bytes `start` to `end` of a file to a pipe, which is closed when it is over.

    That is at the end, or when nobody reads the pipe any more. Every byte comes through `read`,
    unless that is None: then any way will do. With a `state`, the file is to stay in that.

    Raises:
        FileChanged: it did not; of what is in the pipe, or was, some may be wrong.
        OSError: the file cannot be read at the byte after those in the pipe.
    """
    own_fd = -1
    try:
        # The number may be somebody else's before this has ended.
        own_fd = os.dup(fd)
        pipe = _Pipe(pipe_fd)
        if read is not None or not _splice(own_fd, start, end, pipe, state):
            _copy(own_fd, start, end, read or _read_into, pipe, state)
    except _Over:
        return
    finally:
        os.close(pipe_fd)
        if own_fd >= 0:
            os.close(own_fd)


class _Over(Exception):
    """Nobody reads the pipe."""


class _Pipe:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)

    def wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if poll.poll()[0][1] & (select.POLLERR | select.POLLHUP):
            raise _Over

    def write(self, content: memoryview) -> None:
        while content:
            try:
                content = content[os.write(self.fd, content) :]
            except BlockingIOError:
                self.wait_for_room()
            except BrokenPipeError:
                raise _Over from None


def _splice(fd: int, start: int, end: int, pipe: _Pipe, state: FileState | None) -> bool:
    """Move the bytes without copying them; False when that is not possible here."""
    offset = start
    while offset < end:
        try:
            count = os.splice(fd, pipe.fd, end - offset, offset_src=offset)
        except BlockingIOError:
            pipe.wait_for_room()
            continue
        except BrokenPipeError:
            raise _Over from None
        except OSError as error:
            if offset == start and error.errno in _NO_SPLICE:
                return False
            raise
        if state is not None:
            state.check(fd)
        if not count:
            raise too_short(offset, end)
        offset += count
    return True


def _copy(
    fd: int, start: int, end: int, read: ReadInto, pipe: _Pipe, state: FileState | None
) -> None:
    block = memoryview(bytearray(BLOCK_SIZE_BYTES))
    offset = start
    while offset < end:
        # Never past the end of a block: the rest of one is read with the next.
        most_bytes = min(BLOCK_SIZE_BYTES - offset % BLOCK_SIZE_BYTES, end - offset)
        count = read(fd, block[:most_bytes], offset)
        if state is not None:
            state.check(fd)
        if not count:
            raise too_short(offset, end)
        pipe.write(block[:count])
        offset += count


def _read_into(fd: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(fd, [buffer], offset)
