from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.client import ANSWER_TIMEOUT_S
from agent.copies.networks import AllowedNetworks
from coordinator.api.sled_desk import RESET_ANSWER_S
from coordinator.replication.agents import Agents
from coordinator.replication.collect import ARTIFACTS_PER_S, TIMEOUT_S
from coordinator.replication.verdict import Kind, judge
from coordinator.values import Sled
from depot.artifact import ArtifactHash, Generation
from depot.errors import BadSource, Unreachable
from depot.http.limits import MAX_JSON_BODY_BYTES
from tests.unit.fake_node import FakeNode

HASTE_S = 0.1
LOOPBACK = AllowedNetworks.of(["127.0.0.0/8"])


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


def slow_to_answer(asked: asyncio.Event, durable: asyncio.Event) -> web.Application:
    """A reset sends nothing before every dataset has it; nor does a large config."""

    async def config(_: web.Request) -> web.Response:
        asked.set()
        await durable.wait()
        return web.json_response({"generation": 7, "artifacts": []})

    app = web.Application()
    app.router.add_get("/artifacts-config", config)
    return app


def sled(agent_url: str) -> Sled:
    return Sled("s1", agent_url, agent_url)


async def test_s4_a_name_is_judged_by_its_addresses_when_it_is_asked(node: FakeNode) -> None:
    async def lookup(host: str, _port: int) -> Sequence[str]:
        return {"inside": ["127.0.0.1", "203.0.113.7"], "outside": ["203.0.113.7"]}[host]

    port = node.agent_url.rpartition(":")[2]
    node.config = (7, [])
    async with Agents(LOOPBACK, lookup=lookup) as agents:
        assert (await agents(sled(f"http://inside:{port}")).config()).generation == 7
        with pytest.raises(BadSource, match=r"outside is at 203\.0\.113\.7, which is outside"):
            await agents(sled(f"http://outside:{port}")).config()


async def test_s4_an_address_that_the_database_has_is_judged_too() -> None:
    async with Agents(LOOPBACK) as agents:
        with pytest.raises(BadSource, match="outside the allowed networks") as caught:
            agents(sled("http://203.0.113.7:12345"))
    verdict = judge(caught.value, Generation(1))
    assert (verdict.kind, verdict.reason) == (Kind.REFUSED, str(caught.value))


def test_no_answer_is_cut_before_whoever_waits_for_it_gives_it_up() -> None:
    """The largest config has the most time, and a sled says nothing while it makes it durable."""
    largest = MAX_JSON_BODY_BYTES / len(f'"{ArtifactHash.of(b"")}",')
    assert TIMEOUT_S + largest / ARTIFACTS_PER_S < ANSWER_TIMEOUT_S
    assert RESET_ANSWER_S < ANSWER_TIMEOUT_S


async def test_a_client_waits_as_long_as_it_was_told_also_in_silence() -> None:
    asked, durable = asyncio.Event(), asyncio.Event()
    async with (
        TestServer(slow_to_answer(asked, durable)) as server,
        Agents(LOOPBACK, longest_s=HASTE_S) as agents,
    ):
        at = sled(str(server.make_url("")))
        patient = asyncio.ensure_future(agents.within(at, 60.0).config())
        await asked.wait()
        # Whoever asks later gives up earlier: nothing has come for as long as that takes.
        with pytest.raises(Unreachable, match="no answer in time"):
            await agents(at).config()
        durable.set()
        assert (await patient).generation == 7


async def test_s1_a_sled_that_is_somewhere_else_every_time_has_one_client() -> None:
    async with Agents(LOOPBACK) as agents:
        first = agents(sled("http://127.0.0.1:1"))
        assert agents(sled("http://127.0.0.1:1")) is first
        second = agents(sled("http://127.0.0.1:2"))
        assert second is not first
        assert agents(sled("http://127.0.0.1:1")) is not first
