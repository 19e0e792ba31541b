"""Background duties: a failure shows, and nothing ends because of it (S5)."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import pytest

from agent import duties as module
from agent.duties import UNATTENDED, Duties, DutyState
from depot.errors import Internal, Unreachable


class Seen:
    """An event sink."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, object]]] = []

    def __call__(self, kind: str, fields: Mapping[str, object]) -> None:
        self.events.append((kind, fields))


class Script:
    """A duty that fails as often as it is told to, and then says that it came through."""

    def __init__(self, failures: int) -> None:
        self._left = failures
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        if self._left:
            self._left -= 1
            raise OSError("disk on fire")
        self.done.set()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def duties(seen: Seen) -> Duties:
    return Duties(seen, clock=lambda: 7.0, first_restart_s=0)


async def run_until(done: asyncio.Event, work: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_as_coroutine(work))
        await done.wait()
        task.cancel()


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


@pytest.fixture(params=["every", "keep_running"])
def run(request: pytest.FixtureRequest, duties: Duties) -> Callable[[Script], Awaitable[None]]:
    def start(script: Script) -> Awaitable[None]:
        if request.param == "every":
            return duties.every(0, "scrub", script)
        return duties.keep_running("scrub", script)

    return start


async def test_a_duty_that_fails_is_run_again(
    run: Callable[[Script], Awaitable[None]], duties: Duties
) -> None:
    script = Script(failures=3)
    await run_until(script.done, run(script))
    assert duties.snapshot() == (DutyState("scrub", False, 3, "OSError: disk on fire", 7.0),)


async def test_only_the_first_and_the_last_failure_of_a_row_are_events(
    run: Callable[[Script], Awaitable[None]], duties: Duties, seen: Seen
) -> None:
    script = Script(failures=2)
    await run_until(script.done, run(script))
    kinds = [kind for kind, _ in seen.events]
    assert kinds[0] == "duty_failed"
    assert kinds[-1] == "duty_recovered"
    assert seen.events[0][1] == {"duty": "scrub", "error": "OSError: disk on fire"}


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        (Unreachable("http://c: cannot connect: Connection refused"), False),
        (Internal("a defect"), True),
        (OSError("disk on fire"), True),
    ],
)
def test_s5_a_failure_is_logged_with_a_traceback_only_when_nobody_foresaw_it(
    duties: Duties, logged: list[MutableMapping[str, Any]], error: Exception, traced: bool
) -> None:
    duties.failed("registration", error)
    (entry,) = logged
    assert (entry["event"], entry["duty"], entry["failures"]) == ("duty failed", "registration", 1)
    assert entry.get("exc_info") is (error if traced else None)
    assert traced or entry["error"] == f"Unreachable: {error}"


async def test_a_periodic_duty_that_failed_need_not_wait_for_its_next_time(
    duties: Duties,
) -> None:
    script = Script(failures=3)
    async with asyncio.timeout(20):
        await run_until(script.done, duties.every(3600, "register", script, first_retry_s=0))
    assert duties.snapshot()[0].failures == 3


async def test_a_duty_that_ends_is_not_run_again(duties: Duties) -> None:
    await duties.keep_running("scrub", Script(failures=0))
    assert duties.snapshot() == (DutyState("scrub"),)


async def test_a_failing_duty_is_named_until_it_succeeds(duties: Duties) -> None:
    duties.succeeded("b")
    try:
        raise OSError("full")
    except OSError as error:
        duties.failed("a", error)
    assert [(duty.name, duty.failing) for duty in duties.snapshot()] == [("a", True), ("b", False)]
    duties.succeeded("a")
    assert duties.snapshot()[0].last_error == "OSError: full"
    assert not duties.snapshot()[0].failing


def test_pauses_between_restarts_grow_to_a_bound() -> None:
    pauses = module.pauses_s(1.0)
    assert [next(pauses) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def _end_of_a_task_that_nobody_awaits(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    task = asyncio.create_task(fail())
    await asyncio.wait([task])


async def test_s5_an_error_that_nobody_waits_for_is_a_failing_duty(
    duties: Duties, seen: Seen
) -> None:
    asyncio.get_running_loop().set_exception_handler(duties.unattended_failed)
    await _end_of_a_task_that_nobody_awaits(OSError("disk on fire"))
    gc.collect()
    (state,) = duties.snapshot()
    assert state == DutyState(UNATTENDED, True, 1, "OSError: disk on fire", 7.0)
    assert [kind for kind, _ in seen.events] == ["duty_failed"]


async def test_s5_an_error_of_a_callback_is_a_failing_duty(duties: Duties) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(duties.unattended_failed)
    loop.call_soon({}.popitem)
    await asyncio.sleep(0)
    assert duties.snapshot()[0].failures == 1


async def test_a_connection_that_cannot_be_accepted_is_no_failing_duty(
    duties: Duties, caplog: pytest.LogCaptureFixture
) -> None:
    context = {"message": "socket.accept() out of system resource", "exception": OSError(24, "no")}
    duties.unattended_failed(asyncio.get_running_loop(), context)
    assert duties.snapshot() == ()
    assert "out of system resource" in caplog.text
