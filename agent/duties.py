"""Background duties: who runs them, and where it shows that one failed.

Rules kept here:
- Nothing is fire-and-forget (S5): a duty that raises is logged, counted, named in the status until
  a run succeeds, and recorded as an event when it begins and ceases to fail. A traceback is logged
  with what nobody foresaw: a refusal says in its message what is wrong.
- One failing duty ends neither the agent nor the other duties; it is run again, later and later.
- What nobody waits for (the end of a write that its put gave up, a callback of the event loop) is a
  duty too, in the sum: `UNATTENDED`. It has no next run, so it is named until the agent restarts.

`keep_running` and `every` are task roots: whoever owns the task group starts them in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from depot.errors import DepotError, Internal

EventSink = Callable[[str, Mapping[str, object]], None]

FIRST_RESTART_S: Final = 1.0
LAST_RESTART_S: Final = 60.0
UNATTENDED: Final = "unattended work"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DutyState:
    """How one duty fares. Times are Unix seconds."""

    name: str
    failing: bool = False
    failures: int = 0
    last_error: str | None = None
    last_failed_at: float | None = None


class Duties:
    """The register of background duties."""

    def __init__(
        self,
        on_event: EventSink,
        *,
        clock: Callable[[], float] = time.time,
        first_restart_s: float = FIRST_RESTART_S,
    ) -> None:
        self._on_event = on_event
        self._clock = clock
        self._first_restart_s = first_restart_s
        self._states: dict[str, DutyState] = {}

    def snapshot(self) -> tuple[DutyState, ...]:
        """Every duty that was ever begun, by name."""
        return tuple(self._states[name] for name in sorted(self._states))

    def succeeded(self, name: str) -> None:
        """Note that a run went well, or that a restarted duty is running again."""
        before = self._state(name)
        self._states[name] = replace(before, failing=False)
        if before.failing:
            self._on_event("duty_recovered", {"duty": name})

    def failed(self, name: str, error: Exception) -> None:
        """Note that a run failed."""
        before = self._state(name)
        text = f"{type(error).__name__}: {error}"
        self._states[name] = DutyState(name, True, before.failures + 1, text, self._clock())
        foreseen = isinstance(error, DepotError) and not isinstance(error, Internal)
        log = _log.bind(duty=name, failures=before.failures + 1)
        log.error("duty failed", **({"error": text} if foreseen else {"exc_info": error}))
        if not before.failing:
            self._on_event("duty_failed", {"duty": name, "error": text})

    def unattended_failed(
        self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]
    ) -> None:
        """Note an error that reached the event loop; for `loop.set_exception_handler`."""
        error = context.get("exception")
        # Not a callback's OSError: that is asyncio itself, about a connection it could not accept.
        if isinstance(error, Exception) and ("future" in context or not isinstance(error, OSError)):
            self.failed(UNATTENDED, error)
        else:
            loop.default_exception_handler(dict(context))

    async def keep_running(self, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Run a duty that has no end; when it fails, start it again after a growing pause."""
        for pause_s in pauses_s(self._first_restart_s):
            self.succeeded(name)
            try:
                await duty()
                return
            except Exception as error:  # A task root: S5 instead of the end of the agent.
                self.failed(name, error)
            await asyncio.sleep(pause_s)

    async def every(
        self,
        interval_s: float,
        name: str,
        action: Callable[[], Awaitable[None]],
        *,
        first_retry_s: float | None = None,
    ) -> None:
        """Run `action` now and then `interval_s` after the end of each run.

        With `first_retry_s`, one that failed is run again after that, and after twice as long each
        further time, up to the interval.
        """
        retries = None
        while True:
            pause_s = interval_s
            try:
                await action()
            except Exception as error:  # A task root, as above.
                self.failed(name, error)
                if first_retry_s is not None:
                    retries = retries or pauses_s(first_retry_s)
                    pause_s = min(next(retries), interval_s)
            else:
                self.succeeded(name)
                retries = None
            await asyncio.sleep(pause_s)

    def _state(self, name: str) -> DutyState:
        return self._states.get(name) or DutyState(name)


def pauses_s(first_s: float) -> Iterator[float]:
    """How long to wait after each failure: twice as long as before, up to `LAST_RESTART_S`."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LAST_RESTART_S)


@contextmanager
def unattended_work(duties: Duties) -> Iterator[None]:
    """Have the errors that no task waits for noted as a failing duty."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(duties.unattended_failed)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
