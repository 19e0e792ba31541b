"""`AgentClient` against a real agent, and against servers that are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent.client import AgentClient, PutAnswer
from agent.copies.record import CopyRecord
from depot import ArtifactConfig, ArtifactHash, Generation, StoreOptions
from depot.client import ClientTimeouts
from depot.errors import DepotCopy, InvalidRequest, QuotaExceeded, Refused, Unreachable
from depot.http.openapi import Endpoint
from tests.http.servers import serve_endpoints
from tests.http.sled import (
    FakeCopies,
    RefusingStore,
    Sled,
    agent_api,
    prepare_datasets,
    sled_with_store,
)
from tests.http.stub import refusing, stub

CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)
LARGE = random.Random(2).randbytes((5 << 20) + 7)
GENERATION = Generation(1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    (tmp_path / "large").write_bytes(LARGE)
    return tmp_path


@pytest.fixture
def copies() -> FakeCopies:
    return FakeCopies()


@pytest.fixture
async def sled(root: Path, copies: FakeCopies) -> AsyncIterator[Sled]:
    async with sled_with_store(root, copies=copies) as sled:
        yield sled


@pytest.fixture
async def client(sled: Sled) -> AsyncIterator[AgentClient]:
    async with AgentClient(sled.url) as client:
        yield client


async def test_a_config_is_put_and_got(client: AgentClient) -> None:
    with pytest.raises(Refused) as caught:
        await client.config()
    assert (caught.value.status, caught.value.remote_code) == (404, "NoConfig")
    config = ArtifactConfig.make(7, [NAME])
    await client.put_config(config)
    assert await client.config() == config
    await client.reset(Generation(7))
    with pytest.raises(Refused):
        await client.config()


async def test_a_config_of_100_000_artifacts_goes_both_ways(client: AgentClient) -> None:
    config = ArtifactConfig.make(1, [ArtifactHash.of(str(n).encode()) for n in range(100_000)])
    await client.put_config(config)
    assert await client.config() == config


@pytest.mark.parametrize("content", [b"", CONTENT, LARGE])
async def test_an_artifact_is_put_once(client: AgentClient, content: bytes) -> None:
    name, sent = ArtifactHash.of(content), [0]
    await client.put_config(ArtifactConfig.make(1, [name]))
    answer = await client.put(name, GENERATION, content, on_sent=sent.append)
    assert answer == PutAnswer(2, 2, sent=True)
    assert sent[-1] == len(content)
    assert sent == sorted(sent)
    again = await client.put(name, GENERATION, content, on_sent=sent.append)
    assert again == PutAnswer(2, 2, sent=False)
    assert (await client.list_artifacts()).list == {str(name): 2}
    assert [copy.size_bytes for copy in (await client.describe(name)).copies] == [len(content)] * 2


async def test_a_file_is_put_without_being_read_whole(client: AgentClient, root: Path) -> None:
    name = ArtifactHash.of(LARGE)
    await client.put_config(ArtifactConfig.make(1, [name]))
    assert (await client.put(name, GENERATION, root / "large")).sent


async def test_a_file_that_cannot_be_read_is_no_fault_of_the_agent(
    client: AgentClient, root: Path
) -> None:
    await client.put_config(ArtifactConfig.make(1, [NAME]))
    with pytest.raises(FileNotFoundError):
        await client.put(NAME, GENERATION, root / "missing")
    with pytest.raises(IsADirectoryError):
        await client.put(NAME, GENERATION, root)


async def test_a_refusal_arrives_before_anything_is_sent(client: AgentClient) -> None:
    sent: list[int] = []
    with pytest.raises(Refused) as caught:
        await client.put(ArtifactHash.of(LARGE), GENERATION, LARGE, on_sent=sent.append)
    assert caught.value.remote_code == "NoConfig"
    assert caught.value.request_id
    assert not sent


async def test_a_refusal_has_the_details_that_the_agent_gave(client: AgentClient) -> None:
    await client.put_config(ArtifactConfig.make(5, [NAME]))
    with pytest.raises(Refused) as caught:
        await client.put(NAME, Generation(3), b"")
    assert caught.value.remote_details == {"attempted_generation": 3, "current_generation": 5}


async def test_wrong_bytes_are_refused_after_they_were_sent(client: AgentClient) -> None:
    await client.put_config(ArtifactConfig.make(1, [NAME]))
    with pytest.raises(Refused) as caught:
        await client.put(NAME, GENERATION, LARGE)
    assert (caught.value.status, caught.value.remote_code) == (400, "HashMismatch")


@pytest.mark.parametrize("size_bytes", [100, 1 << 20, 16 << 20])
async def test_a_refusal_in_the_middle_of_the_body_is_no_broken_pipe(
    tmp_path: Path, size_bytes: int
) -> None:
    store = RefusingStore(QuotaExceeded("every dataset ran full"), in_body=True)
    async with agent_api(store, tmp_path) as sled, AgentClient(sled.url) as client:
        with pytest.raises(Refused) as caught:
            await client.put(NAME, GENERATION, bytes(size_bytes))
    assert (caught.value.status, caught.value.remote_code) == (507, "QuotaExceeded")


async def test_copies_are_started_and_listed(client: AgentClient, copies: FakeCopies) -> None:
    assert await client.copy(NAME, GENERATION, ["http://a:1", "http://b:2"]) == "copy-1"
    assert copies.started == [(NAME, GENERATION, ("http://a:1", "http://b:2"))]
    copies.records = (record("copy-1"), record("copy-2"))
    assert [copy.copy_id for copy in await client.copies()] == ["copy-1", "copy-2"]
    assert (await client.copy_state("copy-2")).state == "running"
    with pytest.raises(Refused) as caught:
        await client.copy_state("copy-3")
    assert caught.value.remote_code == "NotFound"


async def test_a_copy_without_a_source_is_not_asked_for(client: AgentClient) -> None:
    with pytest.raises(InvalidRequest):
        await client.copy(NAME, GENERATION, [])


async def test_a_copy_that_is_refused_says_why(client: AgentClient, copies: FakeCopies) -> None:
    copies.refusal = DepotCopy("http://a:1 answered 404")
    with pytest.raises(Refused) as caught:
        await client.copy(NAME, GENERATION, ["http://a:1"])
    assert (caught.value.status, caught.value.remote_message) == (502, "http://a:1 answered 404")


async def test_pins_are_put_got_listed_and_deleted(client: AgentClient) -> None:
    await client.put_config(ArtifactConfig.make(1, [NAME]))
    await client.put_pin("vm.1", [NAME])
    assert await client.pin("vm.1") == {NAME}
    assert await client.pins() == {"vm.1": {NAME}}
    await client.delete_pin("vm.1")
    assert await client.pins() == {}


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a?b", "a#b", "%2e%2e", "ä"])
async def test_a_name_with_other_meaning_in_a_url_is_a_name_all_the_same(
    client: AgentClient, name: str
) -> None:
    with pytest.raises((Refused, InvalidRequest)) as caught:
        await client.delete_pin(name)
    if isinstance(caught.value, Refused):
        assert caught.value.remote_code == "NotFound"
        assert "no such path" not in caught.value.remote_message


async def test_status_health_metrics_and_events_are_read(client: AgentClient, sled: Sled) -> None:
    status, identity = await client.status(), await client.identity()
    assert status.version == "1.2.3"
    assert (identity.sled_id, identity.relay.offered) == (status.sled_id, True)
    assert (await client.ready()).status == "ok"
    assert "sled_depot_info" in await client.metrics()
    sled.events.emit("put", {"sha256": str(NAME)})
    page = await client.events(after=0, wait_s=30)
    assert page.events[0].model_extra == {"sha256": str(NAME)}
    assert (await client.events(after=page.latest, limit=1)).events == ()


async def test_a_refusal_says_when_to_ask_again(root: Path) -> None:
    options = StoreOptions(quota_bytes=len(CONTENT) + 1)
    other = b"too much for what is left"[: len(CONTENT)]
    async with sled_with_store(root, options=options) as sled, AgentClient(sled.url) as client:
        await client.put_config(ArtifactConfig.make(1, [NAME, ArtifactHash.of(other)]))
        await client.put(NAME, Generation(1), CONTENT)
        with pytest.raises(Refused, match="QuotaExceeded") as caught:
            await client.put(ArtifactHash.of(other), Generation(1), other)
        assert caught.value.retry_after_s == QuotaExceeded.retry_after_s


async def test_an_artifact_that_can_never_fit_is_refused(root: Path) -> None:
    options = StoreOptions(max_artifact_size_bytes=10)
    async with sled_with_store(root, options=options) as sled, AgentClient(sled.url) as client:
        await client.put_config(ArtifactConfig.make(1, [NAME]))
        with pytest.raises(Refused) as caught:
            await client.put(NAME, GENERATION, CONTENT)
        assert caught.value.status == 413


# ---- servers that are no agent


@asynccontextmanager
async def asking(endpoint: Endpoint) -> AsyncIterator[AgentClient]:
    """An impatient client of a server that has one endpoint."""
    timeouts = ClientTimeouts(idle_s=0.2)
    async with (
        serve_endpoints([endpoint]) as service,
        AgentClient(service.url, timeouts=timeouts) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://h", "http://", "http://u:p@h", "http://h?q", "http://h#f"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        AgentClient(url)


async def test_nobody_listening_is_unreachable(unused_tcp_port: int) -> None:
    async with AgentClient(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(Unreachable):
            await client.status()
        with pytest.raises(Unreachable):
            await client.put(NAME, GENERATION, CONTENT)


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"generation": "1", "artifacts": []}'])
async def test_an_answer_of_another_shape_is_not_taken_for_one(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with asking(stub("GET", "/artifacts-config", answer)) as client:
        with pytest.raises(Unreachable, match="no sled agent"):
            await client.config()


async def test_redirects_are_not_followed() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async with asking(stub("GET", "/status", answer)) as client:
        with pytest.raises(Refused) as caught:
            await client.status()
    assert caught.value.status == 302


async def test_a_refusal_without_a_body_is_a_refusal() -> None:
    async with asking(stub("GET", "/status", refusing(503))) as client:
        with pytest.raises(Refused) as caught:
            await client.status()
    assert (caught.value.status, caught.value.remote_code) == (503, None)


async def test_silence_is_unreachable() -> None:
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    async with asking(stub("GET", "/status", answer)) as client:
        with pytest.raises(Unreachable):
            await client.status()
        released.set()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_an_agent_that_stops_taking_the_body_is_unreachable(first: bytes) -> None:
    ended = asyncio.Event()

    async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await ended.wait()
        writer.transport.abort()

    server = await asyncio.start_server(stall, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    async with server, AgentClient(f"http://127.0.0.1:{port}", answer_timeout_s=0.2) as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.put(NAME, GENERATION, bytes(16 << 20))
        ended.set()


async def test_a_session_that_was_given_stays_open(sled: Sled) -> None:
    async with aiohttp.ClientSession() as session:
        async with AgentClient(sled.url, session=session) as client:
            await client.status()
        assert not session.closed


def record(copy_id: str) -> CopyRecord:
    return CopyRecord(
        copy_id=copy_id,
        sha256=NAME,
        generation=GENERATION,
        sources=("http://a:1",),
        state="running",
        bytes_done=5,
        bytes_total=None,
        started_at=1_700_000_000.0,
    )
