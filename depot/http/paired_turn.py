"""A turn of two threads, each of which reads, checks and sends every other block.

One reads and hashes while the other sends, and a block stays with the thread that hashed it, and so
in the cache of its processor. Rules kept here:

- Blocks are sent in order, and nothing after one that could not be read or sent: the offset is as
  exact as in a turn of one thread (B2).
- The second thread ends with the turn; a read that hangs in either shows in how long that takes.
"""

from __future__ import annotations

import threading
import time

from depot.http.carrier import Carrier, ReadInto, open_carrier
from depot.http.turn import TURN_S, Outcome, State, Turn, not_read, turn_end
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.file_state import too_short


class PairedTurn:
    """Takes one turn for `turn`, reading with `read` from `fd` up to `end`."""

    def __init__(self, turn: Turn, fd: int, read: ReadInto, end: int) -> None:
        self._turn = turn
        self._fd = fd
        self._read = read
        self._end = end
        self._pieces = _pieces(turn.offset, turn_end(turn.offset, end))
        self._until_s = time.monotonic() + TURN_S
        # Whose piece is to be sent next.
        self._places = threading.Semaphore(1), threading.Semaphore(0)
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def run(self) -> Outcome:
        """Send as much as one turn may."""
        second = threading.Thread(target=self._run_place, args=(1,), name="send-pair", daemon=True)
        try:
            second.start()
        except RuntimeError:  # no more threads are to be had: one is slower, and does it
            return self._turn.run()
        self._run_place(0)
        second.join()
        if self._error is not None:
            raise self._error
        if self._outcome is not None:
            return self._outcome
        return Outcome(State.SENT if self._turn.offset == self._end else State.SHARE_USED)

    def _run_place(self, place: int) -> None:
        try:
            with open_carrier(self._read) as carrier:
                for start, end in self._pieces[place::2]:
                    if not self._carry(carrier, place, start, end):
                        break
        except BaseException as error:  # a thread's root: `run` raises it
            self._error = error
        finally:
            self._places[1 - place].release()

    def _carry(self, carrier: Carrier, place: int, start: int, end: int) -> bool:
        """Send a piece when those before it are sent; False when the turn is over."""
        failed: OSError | None = None
        try:
            self._load(carrier, start, end)
        except OSError as error:
            failed = error
        self._places[place].acquire()
        if self._outcome is None and self._error is None:
            if failed is not None:
                self._outcome = not_read(failed)
            elif time.monotonic() > self._until_s and start > self._pieces[0][0]:
                self._outcome = Outcome(State.SHARE_USED)
            else:
                self._outcome = self._turn.send_loaded(carrier, end - start)
        over = self._outcome is not None or self._error is not None
        if not over:
            self._places[1 - place].release()
        return not over

    def _load(self, carrier: Carrier, start: int, end: int) -> None:
        count = carrier.load(self._fd, start, end - start)
        if count < end - start:
            raise too_short(start + count, self._end)


def _pieces(start: int, end: int) -> list[tuple[int, int]]:
    """Split a range where blocks end."""
    bounds = [
        start,
        *range(start - start % BLOCK_SIZE_BYTES + BLOCK_SIZE_BYTES, end, BLOCK_SIZE_BYTES),
    ]
    return list(zip(bounds, [*bounds[1:], end], strict=True))
