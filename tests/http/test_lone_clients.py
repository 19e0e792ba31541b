"""Who is sent to out of a mapping of the file: a lone client of the same machine, which is fast."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Final, TypeVar

import pytest

from depot.device.host import Lane
from depot.device.resident import RemoteFile
from depot.http.lent_turn import Done, Manner
from depot.http.outlet import Outlet
from depot.http.pump import Pump
from depot.http.turn import Outcome, State
from depot.http.way import Way
from depot.mirrors.open_artifact import OpenArtifact
from depot.streams.sources import Pace
from tests.store.builders import MIB, hash_of

T = TypeVar("T")
TURNS: Final = 5
STEP_BYTES: Final = 2 * MIB
PACE: Final = Pace(idle_timeout_s=30, min_bytes_per_s=1)


class PlayedWorker:
    """A host that says it sent a step in each turn, once it may.

    Attributes:
        mapped: of each turn, whether it was to be sent out of a mapping.
    """

    def __init__(self, step_bytes: int = STEP_BYTES, ends_with: State = State.SHARE_USED) -> None:
        self.mapped: list[bool] = []
        self.called = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._step_bytes = step_bytes
        self._ends_with = ends_with

    def submit_in(self, lane: Lane, _function: Callable[..., T], /, *args: object) -> Future[Done]:
        _file, start, end, _read, manner, _lent = args
        assert lane is Lane.FEEDS
        assert isinstance(start, int)
        assert isinstance(end, int)
        assert isinstance(manner, Manner)
        self.mapped.append(manner.mapped)
        self.called.set()
        answer: Future[Done] = Future()
        answer.set_running_or_notify_cancel()
        offset = min(start + self._step_bytes, end)
        state = State.SENT if offset == end else self._ends_with
        task = asyncio.create_task(self._answer(answer, Done(offset, Outcome(state))))
        answer.add_done_callback(lambda _: task.cancel())
        return answer

    async def _answer(self, answer: Future[Done], done: Done) -> None:
        await self.may_answer.wait()
        answer.set_result(done)

    def opened(self) -> OpenArtifact:
        """An artifact of a few turns, open in this worker."""
        opened = OpenArtifact(hash_of(b"played"), TURNS * STEP_BYTES, 0, -1)
        opened.remote = RemoteFile("epoch", 7), self  # type: ignore[assignment]
        return opened


@pytest.fixture
def connect() -> Iterator[Callable[..., Outlet]]:
    """Connect from an address to 127.0.0.1; what that side has of the connection."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))

        def connected(source: str = "127.0.0.1") -> Outlet:
            client = socket.socket()
            held.enter_context(client)
            client.bind((source, 0))
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            select.select([listener], [], [], 30)
            listener.setblocking(False)
            return Outlet(held.enter_context(listener.accept()[0]), PACE)

        yield connected


async def send(pump: Pump, outlet: Outlet, worker: PlayedWorker) -> list[bool]:
    sent = await pump.send(outlet, worker.opened(), 0, TURNS * STEP_BYTES)
    assert sent.error is None
    return worker.mapped


@pytest.mark.parametrize("way", [Way.AUTO, Way.SPLICE, Way.COPY])
async def test_whoever_has_shown_to_be_fast_is_if_that_is_the_way(
    connect: Callable[..., Outlet], way: Way
) -> None:
    mapped = await send(Pump(way=way), connect(), PlayedWorker())
    assert mapped == [False, *[way is Way.AUTO] * (TURNS - 1)]


async def test_a_slow_client_is_not(connect: Callable[..., Outlet]) -> None:
    assert not any(await send(Pump(), connect(), PlayedWorker(step_bytes=MIB - 1)))


async def test_a_client_of_another_address_is_not(connect: Callable[..., Outlet]) -> None:
    assert not any(await send(Pump(), connect("127.0.0.2"), PlayedWorker()))


async def test_one_of_two_is_not_until_the_other_was_served(
    connect: Callable[..., Outlet],
) -> None:
    pump, held = Pump(), PlayedWorker()
    held.may_answer.clear()
    waiting = asyncio.create_task(send(pump, connect(), held))
    await held.called.wait()
    assert not any(await send(pump, connect(), PlayedWorker()))
    held.may_answer.set()
    assert (await waiting)[1:] == [True] * (TURNS - 1)


async def test_a_client_that_is_waited_for_is_company(connect: Callable[..., Outlet]) -> None:
    pump, slow = Pump(), PlayedWorker(ends_with=State.SOCKET_FULL)
    outlet = connect()
    outlet.socket.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            outlet.socket.send(bytes(MIB))
    waiting = asyncio.create_task(send(pump, outlet, slow))
    await slow.called.wait()
    await asyncio.sleep(0.05)
    assert not any(await send(pump, connect(), PlayedWorker()))
    assert len(slow.mapped) == 1, "or it did not wait"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
