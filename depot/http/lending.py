"""Lends a client's socket to the worker process that has the file open, for a turn at a time.

Rules kept here:

- The worker sends only while it holds the permit, and reads no device under it. So a device that
  hangs never keeps the permit, and a worker that is killed keeps it until it is gone.
- How far a turn got is what the worker says, or what the kernel has counted once nobody can send
  any more: the offset is exact, and another copy continues from it, byte for byte (B2).
- Few turns are with a worker at once, so that those that wait need no descriptors (S1).
- A permit that does not come back costs the connection: no client gets a wrong byte, and nobody
  waits for ever.
"""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import Future
from typing import Final

from depot.concurrency.threads import ended_within
from depot.device.host import Host, Lane
from depot.device.messages import Passed
from depot.device.resident import RemoteFile
from depot.errors import DatasetUnusable
from depot.http.carrier import ReadInto
from depot.http.lent_turn import Done, Manner, take_lent_turn
from depot.http.outlet import Outlet
from depot.http.permit import Lent
from depot.http.turn import TURN_S, Outcome, State, not_read, turn_end
from depot.http.written import written_bytes
from depot.os_errors import OwnWords
from depot.streams.file_state import FileState
from depot.streams.verified_read import only_for

TAKE_BACK_S: Final = 15.0
"""For a worker that was stopped while it sent: longer than it takes to be found out and killed."""


class LentTurn:
    """Sends bytes `start` to `end` of a file of a worker process.

    Args:
        places: of the turns that may be with the worker at once; the others wait here.
        timeout_s: how long one read may take, and how long a turn may wait to begin.
        check_s: how often to look whether it takes longer.
        take_back_s: how long a worker that was given up may keep the permit.

    Attributes:
        offset: first byte that was not sent yet; exact whenever no turn runs.
        patient: whether to wait a moment for a client that takes no more.
        mapped: whether to send out of a mapping, where nothing is read through memory.
        state: in which the file is to be still; None: its bytes tell.
    """

    def __init__(
        self,
        remote: tuple[RemoteFile, Host],
        outlet: Outlet,
        start: int,
        end: int,
        read: ReadInto | None,
        *,
        places: asyncio.Semaphore,
        timeout_s: float,
        check_s: float,
        take_back_s: float = TAKE_BACK_S,
    ) -> None:
        self.offset = start
        self.patient = False
        self.mapped = False
        self.state: FileState | None = None
        self._file, self._host = remote
        self._outlet = outlet
        self._socket = outlet.socket
        self._end = end
        self._read = read
        self._places = places
        self._timeout_s = timeout_s
        self._check_s = check_s
        self._take_back_s = take_back_s
        self._running = False

    async def take(self) -> Outcome:
        """Have the worker take a turn.

        Raises:
            ConnectionResetError: the worker was lost with the connection.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._places.acquire()
        except TimeoutError:
            return Outcome(State.ABANDONED)
        try:
            return await self._take()
        finally:
            self._places.release()

    async def _take(self) -> Outcome:
        base_bytes = written_bytes(self._socket)
        try:
            lent = Lent()
        except OSError as error:
            return not_read(error)
        try:
            try:
                turn = self._submit(lent)
            except OSError as error:
                return not_read(error)
            self._running = True
            outcome = await self._outcome(turn)
            if isinstance(outcome, Done):
                self.offset, outcome = outcome.offset, outcome.outcome
            else:
                await self._take_back(lent)
                self.offset += self._sent_bytes(base_bytes)
                if self.offset == self._end:
                    outcome = Outcome(State.SENT)  # it was lost with nothing left to do
            self._running = False
        finally:
            lent.close()
        return outcome

    def abandon(self) -> None:
        """Have nothing more sent: a turn that still runs loses the connection, whose end this is.

        A part of an answer is all that was sent.
        """
        if self._running:
            self._outlet.cut()

    def _submit(self, lent: Lent) -> Future[Done]:
        passed = (Passed(self._socket.fileno()), Passed(lent.outlet), Passed(lent.inlet))
        turn = self._host.submit_in(
            Lane.FEEDS,
            take_lent_turn,
            self._file,
            self.offset,
            self._end,
            only_for(self._read, self.offset, turn_end(self.offset, self._end)),
            Manner(self.patient, self.mapped, self.state),
            passed,
        )
        lent.passed()
        return turn

    async def _outcome(self, turn: Future[Done]) -> Done | Outcome:
        """Wait for a turn, as long as it may take; what became of one that said nothing itself."""
        try:
            run_s = self._timeout_s + TURN_S
            if await ended_within(
                turn, queue_s=self._timeout_s, run_s=run_s, check_s=self._check_s
            ):
                return turn.result()
        except DatasetUnusable as error:
            lost = OwnWords(errno.ENODEV, str(error))
            lost.__cause__ = error
            return Outcome(State.READ_FAILED, lost)
        except OSError as error:
            return not_read(error)
        if turn.cancelled():
            return Outcome(State.ABANDONED)
        silence = OwnWords(errno.ETIMEDOUT, f"no answer in {self._timeout_s:g} s")
        return Outcome(State.READ_FAILED, silence)

    async def _take_back(self, lent: Lent) -> None:
        """Wait until the worker can send no more.

        Raises:
            ConnectionResetError: it does not let go.
        """
        loop = asyncio.get_running_loop()
        back = asyncio.Event()
        # What was not taken from the worker keeps the socket open there.
        self._outlet.shared = True
        loop.add_reader(lent.outlet, back.set)
        try:
            async with asyncio.timeout(self._take_back_s):
                while not lent.take_back():
                    await back.wait()
                    back.clear()
        except TimeoutError:
            raise ConnectionResetError("a worker process keeps the connection") from None
        finally:
            loop.remove_reader(lent.outlet)

    def _sent_bytes(self, base_bytes: int | None) -> int:
        now_bytes = written_bytes(self._socket)
        if base_bytes is None or now_bytes is None:
            raise ConnectionResetError("nobody knows how much of the answer was sent")
        sent_bytes = now_bytes - base_bytes
        if not 0 <= sent_bytes <= self._end - self.offset:
            raise ConnectionResetError(f"{sent_bytes} bytes are not a part of the answer")
        return sent_bytes
