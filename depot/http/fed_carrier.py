"""A carrier whose disk part is a worker process, which feeds a pipe that the client is sent from.

No byte is read from the device here, so whatever it does, this side goes on: `load` waits for the
pipe, never for the disk, and ends as soon as its turn was given up.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Final

from depot.device.feed import ReadInto, feed
from depot.device.host import Host, Lane
from depot.device.messages import Passed
from depot.device.resident import RemoteFile
from depot.errors import DatasetUnusable
from depot.http.carrier import PIPE_BYTES, Carrier
from depot.os_errors import OwnWords
from depot.streams.file_state import FileState
from depot.streams.verified_read import only_for

_LOOK_EVERY_MS: Final = 250
_ANSWER_TIMEOUT_S: Final = 5.0


class FedCarrier:
    """Carries one range; loaded in order from its start."""

    def __init__(self, outlet: int, feeding: Future[None], given_up: Callable[[], bool]) -> None:
        self._outlet = outlet
        self._feeding = feeding
        self._given_up = given_up
        self._poll = select.poll()
        self._poll.register(outlet, select.POLLIN)
        self._loaded_bytes = 0
        self._spliced = True
        self._content = memoryview(b"")

    def load(self, _fd: int, _offset: int, most_bytes: int) -> int:
        """Wait for bytes; how many there are, at most `most_bytes`."""
        while not self._poll.poll(_LOOK_EVERY_MS):
            if self._given_up():
                raise OSError(errno.ECANCELED, "the turn was given up")
        self._loaded_bytes = min(_readable_bytes(self._outlet), most_bytes)
        if not self._loaded_bytes:
            self._tell_why_no_more()
        return self._loaded_bytes

    def unload(self, sock: socket.socket) -> int:
        """Send some of it; the number of bytes, 0 when the socket is full."""
        try:
            if self._spliced and not self._content:
                count = os.splice(self._outlet, sock.fileno(), self._loaded_bytes)
            else:
                count = self._send_copy(sock)
        except BlockingIOError:
            return 0
        except OSError as error:
            if not self._spliced or error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                raise
            self._spliced = False  # not to this kind of socket
            return 0
        self._loaded_bytes -= count
        return count

    def _send_copy(self, sock: socket.socket) -> int:
        if not self._content:
            self._content = memoryview(os.read(self._outlet, self._loaded_bytes))
        count = sock.send(self._content)
        self._content = self._content[count:]
        return count

    def _tell_why_no_more(self) -> None:
        try:
            self._feeding.result(_ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            if not self._feeding.done():  # or it is the device's
                raise OwnWords(errno.EBUSY, "the worker did not say why") from error
            raise
        except DatasetUnusable as error:
            raise OwnWords(errno.ENODEV, str(error)) from error


@contextmanager
def fed_carrier(
    host: Host,
    file: RemoteFile,
    start: int,
    end: int,
    read: ReadInto | None,
    state: FileState | None,
    given_up: Callable[[], bool],
) -> Iterator[Carrier]:
    """Have a range fed for the block.

    Raises:
        OSError: no pipe is to be had.
    """
    outlet, inlet = os.pipe()
    try:
        with suppress(OSError):  # a user's pipes have a quota; a small pipe only takes more rounds
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        part = only_for(read, start, end)
        feeding = host.submit_in(Lane.FEEDS, feed, file, start, end, part, Passed(inlet), state)
    except BaseException:
        os.close(outlet)
        raise
    finally:
        os.close(inlet)
    try:
        yield FedCarrier(outlet, feeding, given_up)
    finally:
        feeding.cancel()  # one that has begun finds that nobody reads its pipe
        os.close(outlet)


def _readable_bytes(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
