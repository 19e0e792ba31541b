from __future__ import annotations

import asyncio
import errno
import pickle
import threading

import pytest

from depot.concurrency.threads import DaemonThreads
from depot.os_errors import WrongBytes, describe_error, full_disk

WAIT_S = 20.0


class Gate:
    """A call that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self.opened.wait(WAIT_S)
        return "through"


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


async def test_a_call_gives_its_result_or_its_exception() -> None:
    threads = DaemonThreads("plain", 2)
    assert await threads.call(WAIT_S, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.call(WAIT_S, divmod, 7, 0)
    threads.close()


async def test_a_call_that_takes_too_long_is_a_timeout_of_the_device() -> None:
    threads, gate = DaemonThreads("slow", 1), Gate()
    with pytest.raises(TimeoutError) as timeout:
        await threads.call(0.01, gate)
    assert timeout.value.errno == errno.ETIMEDOUT
    gate.opened.set()
    assert await threads.call(WAIT_S, str, 1) == "1"
    threads.close()


async def test_a_call_that_did_not_begin_in_time_never_does() -> None:
    threads, gate = DaemonThreads("queue", 1), Gate()
    stuck = threads.submit(gate)
    await asyncio.to_thread(gate.begun.wait, WAIT_S)
    happened: list[int] = []
    with pytest.raises(TimeoutError):
        await threads.call(0.01, happened.append, 1)
    gate.opened.set()
    assert await asyncio.wrap_future(stuck) == "through"
    await threads.call(WAIT_S, happened.append, 2)
    assert happened == [2]
    threads.close()


async def test_a_caller_that_is_cancelled_takes_its_queued_call_along() -> None:
    threads, gate = DaemonThreads("cancel", 1), Gate()
    stuck = threads.submit(gate)
    await asyncio.to_thread(gate.begun.wait, WAIT_S)
    happened: list[int] = []
    waiting = asyncio.ensure_future(threads.call(WAIT_S, happened.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.opened.set()
    await asyncio.wrap_future(stuck)
    await threads.call(WAIT_S, str)
    assert happened == []
    threads.close()


async def test_no_more_threads_run_than_allowed_and_idle_ones_are_used_again() -> None:
    threads = DaemonThreads("bounded", 3)
    for _ in range(10):
        await threads.call(WAIT_S, str)
    assert len(threads_of("bounded")) == 1
    gates = [Gate() for _ in range(6)]
    calls = [threads.submit(gate) for gate in gates]
    for gate in gates[:3]:
        assert await asyncio.to_thread(gate.begun.wait, WAIT_S)
    assert len(threads_of("bounded")) == 3
    assert not any(gate.begun.is_set() for gate in gates[3:])
    for gate in gates:
        gate.opened.set()
    assert [await asyncio.wrap_future(call) for call in calls] == ["through"] * 6
    threads.close()


async def test_after_close_every_thread_ends_a_busy_one_after_its_call() -> None:
    threads, gate = DaemonThreads("ending", 2), Gate()
    busy = threads.submit(gate)
    await threads.call(WAIT_S, str)
    running = threads_of("ending")
    threads.close()
    gate.opened.set()
    assert await asyncio.wrap_future(busy) == "through"
    for thread in running:
        await asyncio.to_thread(thread.join, WAIT_S)
        assert not thread.is_alive()


def test_threads_do_not_keep_the_interpreter_alive() -> None:
    threads, gate = DaemonThreads("daemon", 1), Gate()
    threads.submit(gate)
    assert all(thread.daemon for thread in threads_of("daemon"))
    gate.opened.set()
    threads.close()


@pytest.mark.parametrize(
    ("number", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (errno.EROFS, False)],
)
def test_full_means_no_room_and_not_broken(number: int, full: bool) -> None:
    assert full_disk(OSError(number, "")) is full


def test_an_error_is_described_without_the_path_it_carries() -> None:
    error = OSError(errno.EIO, "Input/output error", "/m2/a/secret")
    assert describe_error(error) == "EIO: Input/output error"
    assert describe_error(OSError("strange")) == "OSError"


def test_bytes_that_are_wrong_are_no_error_of_the_device() -> None:
    sent = pickle.loads(pickle.dumps(WrongBytes(errno.EIO, "the block at byte 0 is another")))
    assert describe_error(sent) == "the block at byte 0 is another"
