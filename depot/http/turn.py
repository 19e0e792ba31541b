"""One turn of a worker thread at sending part of a file to a socket. No event loop in here.

Rules kept here:
- A turn is short: it ends when the socket has been full for `FULL_WAIT_S`, or full at all for a
  client that was slow before, and after `TURN_BYTES`, or the block that was under way after
  `TURN_S`; so a slow reader never pins a thread, and a fast one does not starve the others.
- A block is loaded before its first byte is sent, so after a failed read the offset is exact and
  another copy can continue from it, byte for byte (B2).
- What nobody looks at is not sent once its file was changed; what was sent before it may have
  changed as well, so there is no going on behind it. See `state`.
- After its permit was taken back nothing more is sent, also by a read that hangs and ends later.
"""

from __future__ import annotations

import enum
import errno
import select
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from depot.http.carrier import Carrier, ReadInto, open_carrier
from depot.http.permit import Gate, Permit
from depot.http.window import open_window_carrier
from depot.os_errors import FileChanged, is_shortage
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.file_state import FileState, too_short

Feeder = Callable[[int, int, ReadInto | None, Callable[[], bool]], AbstractContextManager[Carrier]]
"""Called with the start and end of a range, what it must be read through, and whether to go on."""
TURN_BYTES: Final = 128 << 20
TURN_S: Final = 0.1
FULL_WAIT_S: Final = 0.01


def read_part(
    fd: int, start: int, length_bytes: int, read: ReadInto, state: FileState | None = None
) -> bytes:
    """Read a part of a file into memory; raises OSError when it is not there whole."""
    content = bytearray(length_bytes)
    done_bytes = 0
    with memoryview(content) as buffer:
        while done_bytes < length_bytes:
            count = read(fd, buffer[done_bytes:], start + done_bytes)
            if count == 0:
                raise too_short(start + done_bytes, start + length_bytes)
            done_bytes += count
    if state is not None:
        state.check(fd)
    return bytes(content)


class State(enum.Enum):
    """Why a turn ended."""

    SENT = "everything was sent"
    SHARE_USED = "the turn was long enough"
    SOCKET_FULL = "the client does not take more now"
    READ_FAILED = "the file could not be read"
    SHORT = "no descriptor, memory or reader was left, which is nobody's fault"
    CLIENT_GONE = "the connection is lost"
    ABANDONED = "the caller gave the turn up"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended; `error` belongs to READ_FAILED, SHORT and CLIENT_GONE."""

    state: State
    error: OSError | None = None


def is_nobodys_fault(error: OSError) -> bool:
    """Tell whether a read failed for a want that is not the copy's: also one of a free reader."""
    return is_shortage(error) or error.errno == errno.EBUSY


def not_read(error: OSError) -> Outcome:
    """What `error` means for a turn that was to read."""
    return Outcome(State.SHORT if is_nobodys_fault(error) else State.READ_FAILED, error)


class Turn:
    """Sends bytes `start` to `end` of `fd` to `sock`, which does not block.

    Args:
        read: reads through memory; None: whatever way is the fastest.
        feeder: opens a carrier for a range of a file.
        permit: who may send; its own gate, if none is given.

    Attributes:
        patient: whether to wait a moment for a client that takes no more. Not for one that has not
            shown yet that it is fast.
        mapped: whether to send out of a mapping, where nothing is read through memory.
        state: in which the file is to be still; None: its bytes tell.
        offset: first byte that was not sent yet; exact whenever no thread runs the turn.
        reading_since_s: monotonic time at which the running read began, None outside one.
    """

    def __init__(
        self,
        fd: int,
        sock: socket.socket,
        start: int,
        end: int,
        read: ReadInto | None = None,
        feeder: Feeder | None = None,
        permit: Permit | None = None,
    ) -> None:
        self.offset = start
        self.reading_since_s: float | None = None
        self._fd = fd
        self._read = read
        self._socket = sock
        self._end = end
        self._gate = Gate()
        self._permit = permit or self._gate
        self._feeder = feeder
        self.patient = False
        self.mapped = False
        self.state: FileState | None = None

    def run(self) -> Outcome:
        """Send as much as one turn may; called again for the next turn."""
        end = turn_end(self.offset, self._end)
        with self._open_carrier(end) as carrier:
            until_s = time.monotonic() + TURN_S
            while self.offset < end:
                if outcome := self._carry(carrier, end - self.offset):
                    return outcome
                if time.monotonic() >= until_s:
                    break
        return Outcome(State.SENT if self.offset == self._end else State.SHARE_USED)

    def _open_carrier(self, end: int) -> AbstractContextManager[Carrier]:
        if self._feeder is not None:
            return self._feeder(self.offset, end, self._read, lambda: self._gate.shut)
        if self.mapped and self._read is None:
            return open_window_carrier()
        return open_carrier(self._read)

    def abandon(self) -> None:
        """Send nothing more; for a turn that has its own gate."""
        self._gate.take_back()

    def _carry(self, carrier: Carrier, most_bytes: int) -> Outcome | None:
        """Send one block; the outcome of the turn if that ends it."""
        try:
            loaded_bytes = self._load(carrier, most_bytes)
        except OSError as error:
            return not_read(error)
        return self.send_loaded(carrier, loaded_bytes)

    def send_loaded(self, carrier: Carrier, loaded_bytes: int) -> Outcome | None:
        """Send what was loaded from `offset` on; the outcome of the turn if that ends it."""
        try:
            state = self._send(carrier, loaded_bytes)
        except OSError as error:
            if error.errno == errno.EFAULT:  # a page that was mapped is not the file's any more
                changed = FileChanged(errno.EIO, "the file was cut short while it was sent")
                return Outcome(State.READ_FAILED, changed)
            return Outcome(State.CLIENT_GONE, error)
        return Outcome(state) if state else None

    def _load(self, carrier: Carrier, most_bytes: int) -> int:
        self.reading_since_s = time.monotonic()
        try:
            count = carrier.load(self._fd, self.offset, most_bytes)
            if self.state is not None and self._feeder is None:
                self.state.check(self._fd)
        finally:
            self.reading_since_s = None
        if count == 0:
            raise too_short(self.offset, self._end)
        return count

    def _send(self, carrier: Carrier, left_bytes: int) -> State | None:
        while left_bytes:
            if not self._permit.hold():
                return State.ABANDONED
            try:
                sent_bytes = carrier.unload(self._socket)
                self.offset += sent_bytes
            finally:
                self._permit.let_go()
            left_bytes -= sent_bytes
            if not sent_bytes and not (self.patient and self._wait_for_room()):
                return State.SOCKET_FULL
        return None

    def _wait_for_room(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(FULL_WAIT_S * 1000))


def turn_end(offset: int, end: int) -> int:
    """Where a turn ends that begins at `offset`, if nothing ends it before."""
    # At the end of a block where there is one: half of one would be read and checked twice.
    last = offset + TURN_BYTES
    return min(end, last - last % BLOCK_SIZE_BYTES)
