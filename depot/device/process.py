"""The host that runs the calls on a dataset in a worker process.

Rules kept here:

- Nothing waits for the worker but futures.
- A worker that does not answer at all, or all of whose calls of a kind have had their time, is
  given up: SIGKILL, and everything that waits for it fails. In the kernel it may go on hanging; it
  holds its own dataset's lock and nothing else. At most `MAX_LEFT_BEHIND` are left so.
- A worker that ended, for whatever reason, is replaced when the dataset is attached again.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec, TypeVar, cast

from depot.concurrency.threads import DaemonThreads, waiting_for
from depot.device.connection import Call, Connection
from depot.device.host import CALLS_AT_ONCE, FEEDS_AT_ONCE, Lane
from depot.device.messages import INLINE_CALL_BYTES, Message, pack, receive, unpack
from depot.errors import DatasetUnusable
from depot.os_errors import describe_error

P = ParamSpec("P")
T = TypeVar("T")

MAX_LEFT_BEHIND: Final = 2
_CONTROL: Final = "control"
_MISSED_PINGS: Final = 5
_LONGEST_SILENCE_S: Final = 10.0
_SHORTEST_SILENCE_S: Final = 2.0
_START_TIMEOUT_S: Final = 60.0
"""A machine that boots is busy, and a worker that takes its time to start does no harm."""
_END_TIMEOUT_S: Final = 2.0


class ProcessHost:
    """Runs the calls on one dataset in a process of their own. Belongs to the running event loop.

    Args:
        name: for threads.
        on_end: called on the event loop when a worker ended by itself or was given up.
        arena_fd: the shared blocks; the worker inherits the descriptor.
        writes_at_once: how many files may be written at once.
        timeout_s: how long one call may take.
    """

    remote = True

    def __init__(
        self,
        name: str,
        on_end: Callable[[DatasetUnusable], None],
        *,
        arena_fd: int,
        writes_at_once: int,
        timeout_s: float,
    ) -> None:
        self._name = name
        self._arena_fd = arena_fd
        self._limits = {
            str(Lane.CALLS): CALLS_AT_ONCE,
            str(Lane.FEEDS): FEEDS_AT_ONCE,
            str(Lane.WRITES): writes_at_once,
            _CONTROL: 1,
        }
        silence_s = max(_SHORTEST_SILENCE_S, min(_LONGEST_SILENCE_S, timeout_s))
        self._tick_s = silence_s / _MISSED_PINGS
        self._most_ticks = math.ceil(timeout_s / self._tick_s) + 1
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._decoder = DaemonThreads(f"{name}-decode", 1)
        self._worker: Connection | None = None
        self._left: list[Connection] = []
        self._gone = asyncio.Event()
        self._ping: Future[None] | None = None
        self._hello: asyncio.Future[None] | None = None
        self._missed_pings = 0

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.pid if self._worker else None

    @property
    def left_behind(self) -> tuple[int, ...]:
        """Process ids of workers that were given up and have not ended."""
        return tuple(worker.pid for worker in self._left if worker.pid is not None)

    def start(self) -> None:
        """Start a worker unless there is one.

        Raises:
            DatasetUnusable: too many hang, or there is no descriptor left for it.
        """
        if self._worker is not None:
            return
        self._left = [worker for worker in self._left if not worker.ended.is_set()]
        if len(self._left) >= MAX_LEFT_BEHIND:
            pids = ", ".join(map(str, self.left_behind))
            raise DatasetUnusable(f"its worker processes hang in the kernel (pid {pids})")
        try:
            worker = self._worker = Connection(self._limits)
        except OSError as error:
            reason = describe_error(error)
            raise DatasetUnusable(f"no worker process can be started: {reason}") from error
        self._gone = asyncio.Event()
        self._missed_pings = 0
        self._ping = self._submit(_CONTROL, _pong, ())
        self._hello = waiting_for(self._ping)
        self._loop.add_reader(worker.answers, self._read, worker)
        threading.Thread(
            target=self._run, args=(worker,), name=f"{self._name}-process", daemon=True
        ).start()
        self._timer = self._timer or self._loop.call_later(self._tick_s, self._tick)

    async def ready(self) -> None:
        """Wait until the worker has started, or taken too long for that."""
        if self._hello is not None:
            await asyncio.wait((self._hello,), timeout=_START_TIMEOUT_S)

    def hangs(self) -> bool:
        """Tell whether a call is running that has had its time long ago."""
        worker = self._worker
        return worker is not None and any(
            worker.overdue(lane, self._most_ticks) for lane in (Lane.CALLS, Lane.FEEDS)
        )

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call."""
        return self._submit(Lane.CALLS, partial(function, **kwargs) if kwargs else function, args)

    def submit_in(self, lane: Lane, function: Callable[..., T], /, *args: object) -> Future[T]:
        """Queue a call of a certain kind."""
        return self._submit(lane, function, args)

    async def close(self) -> None:
        """End the worker, or leave it behind if it hangs."""
        if self._timer is not None:
            self._timer.cancel()
        worker = self._worker
        if worker is not None:
            self._disconnect(worker, "the store is closed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_TIMEOUT_S):
                    await self._gone.wait()
            worker.kill()
        self._decoder.close()

    def _submit(self, lane: str, function: Callable[..., T], args: tuple[object, ...]) -> Future[T]:
        future: Future[T] = Future()
        worker = self._worker
        if worker is None:
            future.set_exception(DatasetUnusable(f"{self._name} has no worker process"))
            return future
        call = Call(future, pack(worker.next_number(), (function, args), INLINE_CALL_BYTES))
        if not worker.add(lane, call):
            future.set_exception(DatasetUnusable(f"the worker process of {self._name} has ended"))
        return future

    # In a thread of its own

    def _run(self, worker: Connection) -> None:
        why = "the worker process ended"
        try:
            worker.run(self._arena_fd)
        except OSError as error:
            why = f"the worker process cannot be started: {error}"
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._ended, worker, why)

    # On the event loop

    def _read(self, worker: Connection) -> None:
        """Take every answer that is there."""
        try:
            while (message := receive(worker.answers)) is not None:
                self._answered(worker, message)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._give_up(worker, "the worker process ended")

    def _answered(self, worker: Connection, message: Message) -> None:
        call = worker.answered(message.number)
        if call is None:
            message.drop()
        elif message.in_memfd:
            self._decoder.submit(_settle, call.future, message)
        else:
            _settle(call.future, message)

    def _ended(self, worker: Connection, why: str) -> None:
        self._gone.set()
        if not worker.over:
            self._read(worker)  # what it said before
            self._give_up(worker, why)

    def _give_up(self, worker: Connection, why: str) -> None:
        if worker.over:
            return
        self._disconnect(worker, why)
        worker.kill()
        if not worker.ended.is_set():
            self._left.append(worker)
        self._on_end(DatasetUnusable(why))

    def _disconnect(self, worker: Connection, why: str) -> None:
        self._loop.remove_reader(worker.answers)
        for call in worker.close():
            call.future.set_exception(DatasetUnusable(why))
        if self._worker is worker:
            self._worker = None

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        if (worker := self._worker) is None:
            return
        started = self._hello is not None and self._hello.done()
        if started:
            worker.tick()
        if self._ping is not None and not self._ping.done():
            # Counted, not measured: when this process was stopped, the worker is not to blame.
            self._missed_pings += 1
        else:
            self._missed_pings = 0
            self._ping = self._submit(_CONTROL, _pong, ())
        pid = worker.pid
        if self._missed_pings >= (_MISSED_PINGS if started else _START_TIMEOUT_S / self._tick_s):
            self._give_up(worker, f"its worker process (pid {pid}) does not answer")
        elif any(worker.overdue(lane, self._most_ticks) >= n for lane, n in _SLOTS):
            self._give_up(worker, f"every call of its worker process (pid {pid}) hangs")


_SLOTS: Final = ((Lane.CALLS, CALLS_AT_ONCE), (Lane.FEEDS, FEEDS_AT_ONCE))


def _pong() -> None:
    """Answer, without touching the device."""


def _settle(future: Future[object], message: Message) -> None:
    try:
        value = unpack(message)
    except BaseException as error:  # whatever happened belongs to the caller
        future.set_exception(error)
        return
    if message.failed:
        future.set_exception(cast("BaseException", value))
    else:
        future.set_result(value)
