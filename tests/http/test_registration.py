"""An agent's registration with coordinators: real HTTP servers, and a real agent that has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from blockbuster import BlockBuster

from agent.assembly import Agent
from agent.config.loading import check
from agent.opening import opened
from agent.registration import Registration, SledAddress
from depot import init_datasets
from depot.errors import DepotError, NoDataset, Refused, Unreachable
from tests.http.servers import serve_endpoints
from tests.http.stub import stub

NOBODY = "http://127.0.0.1:1"
"""Port 1: nothing listens there."""
HERE = SledAddress("sled-7", "http://10.0.0.7:12345", "http://10.0.0.7:12348")
SENT = {"agent_url": HERE.agent_url, "depot_url": HERE.depot_url}


class Coordinator:
    """Takes registrations, until it is told to refuse.

    Attributes:
        told: the sled and the body of each that it took.
        heard: set with each.
    """

    def __init__(self) -> None:
        self.url = ""
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.heard = asyncio.Event()
        self.refusal: DepotError | None = None

    async def take(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            raise self.refusal
        self.told.append((request.match_info["sled_id"], await request.json()))
        self.heard.set()
        return web.json_response({})


@asynccontextmanager
async def coordinator() -> AsyncIterator[Coordinator]:
    made = Coordinator()
    async with serve_endpoints([stub("PUT", "/v1/sleds/{sled_id}", made.take)]) as service:
        made.url = service.url
        yield made


@pytest.fixture
async def one() -> AsyncIterator[Coordinator]:
    async with coordinator() as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[Coordinator]:
    async with coordinator() as made:
        yield made


async def test_a_coordinator_is_told_who_and_where_the_sled_is(one: Coordinator) -> None:
    await Registration([one.url], lambda: HERE).tell()
    assert one.told == [("sled-7", SENT)]


async def test_one_coordinator_is_enough_and_is_asked_first_from_then_on(
    one: Coordinator, other: Coordinator
) -> None:
    one.refusal = NoDataset("not now")
    registration = Registration([NOBODY, one.url, other.url], lambda: HERE)
    await registration.tell()
    one.refusal = None
    await registration.tell()
    assert (one.told, other.told) == ([], [("sled-7", SENT)] * 2)


async def test_a_coordinator_that_goes_away_is_left_for_another(
    one: Coordinator, other: Coordinator
) -> None:
    registration = Registration([one.url, other.url], lambda: HERE)
    await registration.tell()
    one.refusal = NoDataset("not any more")
    await registration.tell()
    assert (len(one.told), len(other.told)) == (1, 1)


async def test_s5_a_refusal_says_who_refused_and_why(one: Coordinator) -> None:
    one.refusal = NoDataset("the sled was expunged")
    with pytest.raises(Refused, match="the sled was expunged") as caught:
        await Registration([one.url], lambda: HERE).tell()
    assert one.url in str(caught.value)


async def test_s5_with_no_coordinator_there_each_is_named(one: Coordinator) -> None:
    one.refusal = NoDataset("not now")
    with pytest.raises(Unreachable) as caught:
        await Registration([NOBODY, one.url], lambda: HERE).tell()
    assert NOBODY in str(caught.value)
    assert one.url in str(caught.value)


async def test_a_sled_that_does_not_know_its_name_says_so(one: Coordinator) -> None:
    with pytest.raises(NoDataset):
        await Registration([one.url], lambda: SledAddress(None, "http://a", "http://a")).tell()
    assert not one.told


async def test_s2_a_coordinator_that_never_answers_is_given_up(one: Coordinator) -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with serve_endpoints([stub("PUT", "/v1/sleds/{sled_id}", hang)]) as slow:
        await Registration([slow.url, one.url], lambda: HERE, timeout_s=0.05).tell()
        never.set()
    assert one.told == [("sled-7", SENT)]


async def test_s4_a_redirect_is_not_followed(one: Coordinator) -> None:
    async def away(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{one.url}{request.path}")

    async with serve_endpoints([stub("PUT", "/v1/sleds/{sled_id}", away)]) as elsewhere:
        with pytest.raises(DepotError):
            await Registration([elsewhere.url], lambda: HERE).tell()
    assert not one.told


@asynccontextmanager
async def running(root: Path, *coordinators: str, **agent: object) -> AsyncIterator[Agent]:
    """An agent on two datasets, with its duties."""
    datasets = [root / "a", root / "b"]
    await asyncio.to_thread(_prepare, datasets)
    settings, problems = check(
        {
            "datasets": [{"path": str(path)} for path in datasets],
            "storage": {"device_workers": "thread"},
            "agent": {"listen": "127.0.0.1:0", **agent},
            "depot": {"listen": "127.0.0.1:0"},
            "coordinator": {"urls": list(coordinators)},
        }
    )
    assert not problems
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(opened(settings, root / "state"))
        await made.listen()
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = made.begin_duties(group)
        yield made
        for task in tasks:
            task.cancel()


def _prepare(datasets: list[Path]) -> None:
    for dataset in datasets:
        dataset.mkdir()
    init_datasets(datasets, sled_id="sled-7")


async def test_an_agent_registers_with_the_ports_that_it_got(
    tmp_path: Path, one: Coordinator, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()  # before it serves anyone, an agent may look up its version
    async with running(tmp_path, one.url) as agent:
        async with asyncio.timeout(20):
            await one.heard.wait()
        sent = {"agent_url": agent.agent_server.url, "depot_url": agent.depot_server.url}
        assert one.told == [("sled-7", sent)]


async def test_an_agent_registers_what_its_configuration_advertises(
    tmp_path: Path, one: Coordinator, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()
    async with running(tmp_path, one.url, advertise_url="http://sled-7.lan:12345"):
        async with asyncio.timeout(20):
            await one.heard.wait()
        assert one.told[0][1]["agent_url"] == "http://sled-7.lan:12345"


async def test_s5_an_agent_serves_with_no_coordinator_there_and_says_that_it_is_not_registered(
    tmp_path: Path, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()
    async with running(tmp_path, NOBODY) as agent, aiohttp.ClientSession() as session:
        async with asyncio.timeout(20), session.get(f"{agent.agent_server.url}/health/ready") as ok:
            assert ok.status == 200
        async with asyncio.timeout(20):
            event = await _next_event(session, f"{agent.agent_server.url}/events", "duty_failed")
        assert event["duty"] == "registration"
        assert NOBODY in event["error"]
        assert [d.name for d in agent.duties.snapshot() if d.failing] == ["registration"]


async def _next_event(session: aiohttp.ClientSession, url: str, kind: str) -> dict[str, Any]:
    after = 0
    while True:
        async with session.get(url, params={"after": after, "wait_s": 10}) as answer:
            page = await answer.json()
        for event in page["events"]:
            if event["kind"] == kind:
                return dict(event)
            after = event["sequence"]


async def test_an_agent_without_coordinators_has_no_such_duty(
    tmp_path: Path, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()
    async with running(tmp_path):
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "node" in names
        assert "registration" not in names
