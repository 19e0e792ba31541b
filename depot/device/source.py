"""Sources of the bytes of a file on a dataset: none waits for the device for ever."""

from __future__ import annotations

import errno
import os
import select
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from depot.device.feed import feed
from depot.device.host import Host, Lane
from depot.device.messages import Passed
from depot.device.resident import RemoteFile
from depot.errors import DatasetUnusable
from depot.os_errors import OwnWords
from depot.streams.file_state import too_short

_PART_BYTES: Final = 16 << 20
"""Fed in one call, so that a device's deadline never depends on an artifact's size."""
_MOST_BYTES: Final = 1 << 20
"""Read in one call in this process: it is in memory twice meanwhile."""
_LOOK_EVERY_MS: Final = 250
_ANSWER_TIMEOUT_S: Final = 5.0


class ContentSource:
    """What came with the answer to the open."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end."""
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def abort(self) -> None:
        """Nothing waits here."""


class HostedSource:
    """Reads a file that this process has open, in the threads of its dataset.

    A read that hangs is left behind, with a descriptor and memory that nobody else uses.

    Args:
        fd: duplicated here, so the caller may close it at any time.
        timeout_s: longest silence of the device.
    """

    def __init__(self, host: Host, fd: int, timeout_s: float) -> None:
        self._host = host
        self._fd = os.dup(fd)
        self._timeout_s = timeout_s
        self._offset = 0
        self._reading: Future[bytes] | None = None
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end.

        Raises:
            OSError: the file cannot be read, the device hangs, or `abort` was called.
        """
        size_bytes = min(len(buffer), _MOST_BYTES)
        self._reading = self._host.submit_in(
            Lane.FEEDS, os.pread, self._fd, size_bytes, self._offset
        )
        content = self._read(self._reading)
        buffer[: len(content)] = content
        self._offset += len(content)
        return len(content)

    def abort(self) -> None:
        """Make a running or later `readinto` raise soon."""
        self._aborted = True

    def close(self) -> None:
        """Close the file, once nothing reads it any more."""
        if self._reading is None:
            self._close()
        else:
            self._reading.cancel()
            self._reading.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        # Some filesystems report errors here; what was read was judged by itself.
        with suppress(OSError):
            os.close(self._fd)

    def _read(self, reading: Future[bytes]) -> bytes:
        silence = _Silence(self._timeout_s)
        while not self._aborted:
            try:
                return reading.result(_LOOK_EVERY_MS / 1000)
            except TimeoutError:
                if reading.done():
                    raise  # its own
                silence.goes_on()
        raise _given_up()


class FedSource:
    """Reads a file from its start to its end.

    Args:
        timeout_s: longest silence of the device.
    """

    def __init__(self, host: Host, file: RemoteFile, size_bytes: int, timeout_s: float) -> None:
        self._host = host
        self._file = file
        self._size_bytes = size_bytes
        self._timeout_s = timeout_s
        self._offset = 0
        self._part_end = 0
        self._outlet = -1
        self._feeding: Future[None] | None = None
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of `buffer`; the number of bytes, 0 at the end.

        Raises:
            OSError: the file cannot be read, the device hangs, or `abort` was called.
        """
        if self._offset == self._size_bytes or not buffer:
            return 0
        if self._offset == self._part_end:
            self._begin_part()
        self._await_bytes()
        count = os.readv(self._outlet, [buffer])
        if not count:
            self._tell_why_no_more()
        self._offset += count
        if self._offset == self._part_end:
            self.close()
        return count

    def abort(self) -> None:
        """Make a running or later `readinto` raise soon."""
        self._aborted = True

    def close(self) -> None:
        """Let the worker end what it has begun."""
        outlet, self._outlet = self._outlet, -1
        if outlet >= 0:
            os.close(outlet)

    def _begin_part(self) -> None:
        self._part_end = min(self._offset + _PART_BYTES, self._size_bytes)
        self._outlet, inlet = os.pipe()
        try:
            self._feeding = self._host.submit_in(
                Lane.FEEDS, feed, self._file, self._offset, self._part_end, None, Passed(inlet)
            )
        finally:
            os.close(inlet)

    def _await_bytes(self) -> None:
        poll = select.poll()
        poll.register(self._outlet, select.POLLIN)
        silence = _Silence(self._timeout_s)
        while not poll.poll(_LOOK_EVERY_MS):
            if self._aborted:
                raise _given_up()
            silence.goes_on()

    def _tell_why_no_more(self) -> None:
        assert self._feeding is not None
        try:
            self._feeding.result(_ANSWER_TIMEOUT_S)
        except DatasetUnusable as error:
            raise OwnWords(errno.ENODEV, str(error)) from error
        raise too_short(self._offset, self._size_bytes)


class _Silence:
    """How long a device has not answered, counted in looks."""

    def __init__(self, timeout_s: float) -> None:
        self._left_ms = timeout_s * 1000

    def goes_on(self) -> None:
        """Raises OSError when it has lasted too long."""
        self._left_ms -= _LOOK_EVERY_MS
        if self._left_ms < 0:
            raise OwnWords(errno.ENODEV, "the device does not answer")


def _given_up() -> OSError:
    return OSError(errno.ECANCELED, "the transfer was given up")
