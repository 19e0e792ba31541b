"""Who may write to a client's socket: a turn, until it is taken back.

Rules kept here:
- After a permit was taken back nothing more is sent under it, by anybody.
- Whoever holds a permit only sends, to a socket that does not block: it is back in a moment. What
  may hang in a device happens without it.

Within a process a lock is enough. To another process a pipe is passed with one byte in it, and both
ends: to hold the permit is to have taken the byte out. Here only the end to read from is kept, so
its end of file tells that nobody over there has the pipe any more, nor what was passed with it:
also when that process was killed, and not before it is really gone.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Protocol

_BYTE: Final = b"1"


class Permit(Protocol):
    """May be held by one thread at a time."""

    def hold(self) -> bool:
        """Begin to send; False: never again."""

    def let_go(self) -> None:
        """Have ended to send."""


class Gate:
    """A permit of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.shut = False

    def hold(self) -> bool:
        """Begin to send; False: never again."""
        self._lock.acquire()
        if self.shut:
            self._lock.release()
        return not self.shut

    def let_go(self) -> None:
        """Have ended to send."""
        self._lock.release()

    def take_back(self) -> None:
        """Let nobody send. Returns at once: a send that runs now does not block."""
        with self._lock:
            self.shut = True


class PassedPermit:
    """A permit that was passed to this process, as both ends of its pipe."""

    def __init__(self, outlet: int, inlet: int) -> None:
        self._outlet = outlet
        self._inlet = inlet

    def hold(self) -> bool:
        """Begin to send; False: never again."""
        try:
            return bool(os.read(self._outlet, 1))
        except BlockingIOError:
            return False

    def let_go(self) -> None:
        """Have ended to send."""
        os.write(self._inlet, _BYTE)


class Lent:
    """A permit that another process gets.

    Attributes:
        outlet, inlet: the ends of the pipe, to be passed.
    """

    def __init__(self) -> None:
        self.outlet, self.inlet = os.pipe()
        for end in (self.outlet, self.inlet):
            os.set_blocking(end, False)
        os.write(self.inlet, _BYTE)

    def passed(self) -> None:
        """Keep nothing of what the other process needs to have alone."""
        inlet, self.inlet = self.inlet, -1
        if inlet >= 0:
            os.close(inlet)

    def take_back(self) -> bool:
        """Tell whether nobody can send any more; if not, ask again once `outlet` is readable."""
        try:
            os.read(self.outlet, 1)  # the byte, or the end of the pipe
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close what is left of the pipe."""
        self.passed()
        outlet, self.outlet = self.outlet, -1
        if outlet >= 0:
            os.close(outlet)
