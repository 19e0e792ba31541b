"""What the depot answers while it is still receiving the artifact that it is asked for."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from depot.artifact import ArtifactHash
from depot.device.host import DeviceWorkers
from depot.errors import HashMismatch
from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.http.limits import HttpLimits
from depot.http.pump import Pump
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.writing.arriving import MAX_TAIL_READERS
from depot.writing.arriving_tail import MAX_TAILS
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.store.arrivals import eventually, found, putting, until
from tests.store.builders import MIB, ONE, A, B, GatedSource, Node, config, hash_of
from tests.store.faulty import WAIT_S

CONTENT = random.Random(11).randbytes(5 * MIB + 4321)
SIZE = len(CONTENT)
ARTIFACT = hash_of(CONTENT)
LONG = CONTENT * 4
"""More than what the sockets between two processes take."""
LAST_BLOCK = 5 * MIB
WRONG = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])


@pytest.fixture(params=list(DeviceWorkers), ids=str)
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    made = Node.make(tmp_path)
    made.workers = request.param
    return made


@asynccontextmanager
async def depot(
    node: Node, limits: HttpLimits | None = None, pump: Pump | None = None, **options: Any
) -> AsyncIterator[tuple[ArtifactStore, str]]:
    """A store that wants the content, and its depot."""
    async with node.open(**options) as store:
        await store.put_config(config(1, CONTENT, LONG))
        app = depot_app(
            store, limits=limits, pump=pump, arrivals=store.arrivals, compressor=Compressor()
        )
        async with serve(app, limits) as service:
            yield store, service.url


def gated(before_bytes: int, content: bytes = CONTENT) -> GatedSource:
    return GatedSource(content, before_bytes=before_bytes)


async def ask(
    client: RawClient, *headers: str, method: str = "GET", artifact: ArtifactHash = ARTIFACT
) -> tuple[int, dict[str, str]]:
    await client.send(f"{method} /artifact/sha256/{artifact} HTTP/1.1", *headers)
    return await client.head()


async def is_silent(client: RawClient) -> bool:
    """Nothing comes, as far as a moment shows."""
    try:
        async with asyncio.timeout(0.1):
            return not await client.reader.read(1)
    except TimeoutError:
        return True


async def until_cut(client: RawClient) -> bytes:
    """What still comes before the connection breaks."""
    content = bytearray()
    async with asyncio.timeout(WAIT_S):
        try:
            while block := await client.reader.read(MIB):
                content += block
        except ConnectionResetError:
            pass
    return bytes(content)


async def test_what_is_here_is_sent_before_the_rest_has_arrived(node: Node) -> None:
    source = gated(3 * MIB)
    async with depot(node) as (store, url), putting(store, CONTENT, source) as running:
        async with RawClient.connect(url) as client:
            status, headers = await ask(client)
            assert await client.reader.readexactly(3 * MIB) == CONTENT[: 3 * MIB]
            assert not running.done()
            source.open_gate()
            assert await client.reader.readexactly(SIZE - 3 * MIB) == CONTENT[3 * MIB :]
            await running
            # The connection is of use for the next request, which is answered from the copy.
            held_status, held = await ask(client)
            assert await client.reader.readexactly(SIZE) == CONTENT
        assert store.arrivals.relayed_bytes == SIZE
    assert (status, held_status) == (200, 200)
    assert headers.pop("depot-arriving") == "1"
    assert headers.pop("depot-arriving-depth") == "1"
    assert headers.pop("cache-control") == "no-store"
    assert held.pop("cache-control") != "no-store"
    assert held.pop("vary")
    for changing in ("date", "x-request-id"):
        del headers[changing], held[changing]
    assert headers == held


async def test_head_says_how_much_is_arriving(node: Node) -> None:
    async with depot(node) as (store, url), putting(store, CONTENT, gated(MIB)):
        async with RawClient.connect(url) as client:
            status, headers = await ask(client, method="HEAD")
        assert (status, headers["content-length"]) == (200, str(SIZE))
        assert headers["depot-arriving"] == "1"
        assert headers["etag"] == f'"sha256:{ARTIFACT}"'


@pytest.mark.parametrize(
    ("wanted", "start", "end", "free_end"),
    [
        ("0-", 0, SIZE, LAST_BLOCK),
        (f"{2 * MIB + 5}-", 2 * MIB + 5, SIZE, LAST_BLOCK),
        (f"100-{3 * MIB - 1}", 100, 3 * MIB, 2 * MIB),
        (f"100-{2 * MIB}", 100, 2 * MIB + 1, 2 * MIB),
        ("5-9", 5, 10, 5),
        (f"-{MIB}", SIZE - MIB, SIZE, LAST_BLOCK),
        ("-7", SIZE - 7, SIZE, SIZE - 7),
    ],
)
async def test_b2_the_block_a_range_ends_in_is_withheld_until_the_whole_hash_is_right(
    node: Node, wanted: str, start: int, end: int, free_end: int
) -> None:
    source = gated(SIZE)
    async with depot(node) as (store, url), putting(store, CONTENT, source):
        await until(found(store, CONTENT), lambda: _is_there(store))
        async with RawClient.connect(url) as client:
            status, headers = await ask(client, f"Range: bytes={wanted}")
            assert status == 206
            assert headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
            free = await client.reader.readexactly(free_end - start)
            assert free == CONTENT[start:free_end]
            assert await is_silent(client)
            source.open_gate()
            assert await client.reader.readexactly(end - free_end) == CONTENT[free_end:end]


def _is_there(store: ArtifactStore) -> bool:
    arrival = found(store, CONTENT)
    return all(arrival.limit(index, SIZE) == LAST_BLOCK for index in (A, B))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f'If-None-Match: "sha256:{ARTIFACT}"', 304),
        ('If-Match: "sha256:other"', 412),
        (f"Range: bytes={SIZE}-", 416),
    ],
)
async def test_conditions_are_judged_before_the_bytes_are_here(
    node: Node, header: str, status: int
) -> None:
    async with (
        depot(node) as (store, url),
        putting(store, CONTENT, gated(MIB)),
        RawClient.connect(url) as client,
    ):
        assert (await ask(client, header))[0] == status


async def test_if_range_with_the_entity_tag_resumes(node: Node) -> None:
    tag = f'If-Range: "sha256:{ARTIFACT}"'
    source = gated(3 * MIB)
    async with (
        depot(node) as (store, url),
        putting(store, CONTENT, source),
        RawClient.connect(url) as client,
    ):
        status, _ = await ask(client, f"Range: bytes={MIB + 1}-", tag)
        assert status == 206
        assert await client.reader.readexactly(MIB) == CONTENT[MIB + 1 :][:MIB]


async def test_what_arrives_is_not_encoded(node: Node) -> None:
    async with (
        depot(node) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
        RawClient.connect(url) as client,
    ):
        status, headers = await ask(client, "Accept-Encoding: zstd")
        assert (status, headers["content-length"]) == (200, str(SIZE))
        assert "content-encoding" not in headers
        assert await client.reader.readexactly(MIB) == CONTENT[:MIB]


async def test_b2_a_relay_of_wrong_bytes_is_cut_short(node: Node) -> None:
    async with depot(node) as (store, url):
        source = gated(3 * MIB, WRONG)
        async with (
            putting(store, CONTENT, source) as running,
            RawClient.connect(url) as client,
        ):
            await ask(client)
            await client.reader.readexactly(3 * MIB)
            source.open_gate()
            assert 3 * MIB + len(await until_cut(client)) <= LAST_BLOCK
        with pytest.raises(HashMismatch):
            await running


async def test_b2_a_relay_whose_source_breaks_is_cut_short(node: Node) -> None:
    lost = ConnectionResetError()
    source = GatedSource(CONTENT[: 3 * MIB], before_bytes=3 * MIB, error=lost)
    async with depot(node) as (store, url), putting(store, CONTENT, source) as running:
        async with RawClient.connect(url) as client:
            await ask(client)
            await client.reader.readexactly(3 * MIB)
            source.open_gate()
            assert await until_cut(client) == b""
        with pytest.raises(ConnectionResetError):
            await running


@pytest.mark.parametrize(
    ("version", "header", "goes_on"),
    [
        ("1.0", "Accept: */*", False),
        ("1.0", "Connection: keep-alive", True),
        ("1.1", "Expect: 100-continue", True),
        ("1.1", "Connection: close", False),
    ],
)
async def test_a_relay_is_whole_for_clients_of_every_kind(
    node: Node, version: str, header: str, goes_on: bool
) -> None:
    source = gated(3 * MIB)
    async with (
        depot(node) as (store, url),
        putting(store, CONTENT, source),
        RawClient.connect(url) as client,
    ):
        await client.send(f"GET /artifact/sha256/{ARTIFACT} HTTP/{version}", header)
        status, headers = await client.head()
        assert (status, headers["depot-arriving"]) == (200, "1")
        source.open_gate()
        assert await client.reader.readexactly(SIZE) == CONTENT
        if goes_on:
            assert (await ask(client, method="HEAD"))[0] == 200
        else:
            assert await client.rest() == b""


async def test_a_relay_of_what_a_config_drops_is_cut_short(node: Node) -> None:
    async with depot(node) as (store, url), putting(store, CONTENT, gated(3 * MIB)):
        async with RawClient.connect(url) as client:
            await ask(client)
            await client.reader.readexactly(3 * MIB)
            await store.put_config(config(2, ONE))
            assert await until_cut(client) == b""
        async with RawClient.connect(url) as client:
            assert (await ask(client))[0] == 404


async def test_a_relay_that_waits_for_too_long_is_cut_short(node: Node) -> None:
    limits = HttpLimits(idle_timeout_s=0.3)
    async with (
        depot(node, limits) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
        RawClient.connect(url) as client,
    ):
        await ask(client)
        await client.reader.readexactly(3 * MIB)
        assert await until_cut(client) == b""


async def test_a_reader_that_takes_little_does_not_hold_up_the_put(node: Node) -> None:
    there = 20 * MIB
    source = gated(there, LONG)
    async with (
        depot(node) as (store, url),
        putting(store, LONG, source) as running,
        RawClient.connect(url) as client,
    ):
        assert (await ask(client, artifact=hash_of(LONG)))[0] == 200
        assert await client.reader.readexactly(1) == LONG[:1]
        source.open_gate()
        async with asyncio.timeout(WAIT_S):
            assert (await running).copies == 2
        # What was committed meanwhile is what it gets, without a break.
        assert await client.reader.readexactly(len(LONG) - 1) == LONG[1:]


async def test_a_reader_that_takes_nothing_is_cut_off_when_the_put_fails(node: Node) -> None:
    there = LONG[: 20 * MIB]
    source = GatedSource(there, before_bytes=len(there), error=ConnectionResetError())
    async with (
        depot(node) as (store, url),
        putting(store, LONG, source) as running,
        RawClient.connect(url) as client,
    ):
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await ask(client, artifact=hash_of(LONG))
        arrival = found(store, LONG)
        assert await client.reader.readexactly(1) == LONG[:1]
        source.open_gate()
        with pytest.raises(ConnectionResetError):
            await running
        await eventually(lambda: not arrival.readers)
        assert await node.leftovers() == []


async def test_b4_a_dataset_that_gives_other_bytes_back_is_left_for_the_other(node: Node) -> None:
    source = gated(3 * MIB)
    async with (
        depot(node, verify_reads=VerifyReads.ALWAYS) as (store, url),
        putting(store, CONTENT, source),
    ):
        await until(found(store, CONTENT), lambda: found(store, CONTENT).limit(B, SIZE) == 3 * MIB)
        await _damage(node, A, found(store, CONTENT).names[A], 2 * MIB)
        async with RawClient.connect(url) as client:
            await ask(client)
            assert await client.reader.readexactly(3 * MIB) == CONTENT[: 3 * MIB]
            source.open_gate()
            assert await client.reader.readexactly(SIZE - 3 * MIB) == CONTENT[3 * MIB :]


async def _damage(node: Node, index: int, name: str, offset: int) -> None:
    def damage() -> None:
        path = node.paths[index] / name
        mode = path.stat().st_mode
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"damaged")
            os.fsync(file.fileno())
        path.chmod(mode)

    await asyncio.to_thread(damage)


async def test_b2_a_relay_that_no_dataset_can_give_is_cut_short(node: Node) -> None:
    async with (
        depot(node, verify_reads=VerifyReads.ALWAYS) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
    ):
        arrival = found(store, CONTENT)
        await until(arrival, lambda: all(arrival.limit(i, SIZE) == 3 * MIB for i in (A, B)))
        for index in (A, B):
            await _damage(node, index, arrival.names[index], 2 * MIB)
        async with RawClient.connect(url) as client:
            await ask(client)
            assert await client.reader.readexactly(2 * MIB) == CONTENT[: 2 * MIB]
            assert await is_silent(client)


@pytest.mark.parametrize("node", [DeviceWorkers.THREAD], indirect=True)
async def test_whoever_waits_for_busy_datasets_is_not_cut_off_when_it_has_landed(
    node: Node,
) -> None:
    def read_slowly(fd: int, buffer: memoryview, offset: int) -> int:
        time.sleep(0.05)
        return os.preadv(fd, [buffer], offset)

    # Each reader takes longer alone than any of them may wait for one dataset.
    pump = Pump(threads_per_dataset=1, read_timeout_s=0.2, read=read_slowly)
    source = gated(18 * MIB, LONG)
    async with (
        AsyncExitStack() as clients,
        depot(node, pump=pump, verify_reads=VerifyReads.NEVER) as (store, url),
        putting(store, LONG, source) as running,
    ):
        readers = [await clients.enter_async_context(RawClient.connect(url)) for _ in range(5)]
        for reader in readers:
            assert (await ask(reader, artifact=hash_of(LONG)))[0] == 200
        source.open_gate()
        assert (await running).copies == 2
        got = await asyncio.gather(*(each.reader.readexactly(len(LONG)) for each in readers))
        assert set(got) == {LONG}


async def test_readers_take_at_most_half_of_the_connections(node: Node) -> None:
    limits = HttpLimits(max_connections=4)
    async with (
        depot(node, limits) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
        RawClient.connect(url) as one,
        RawClient.connect(url) as two,
        RawClient.connect(url) as three,
    ):
        assert (await ask(one))[0] == 200
        assert (await ask(two))[0] == 200
        status, headers = await ask(three)
        assert status == 503
        assert int(headers["retry-after"]) > 0


async def test_a_reader_that_is_gone_is_forgotten_before_more_arrives(node: Node) -> None:
    async with depot(node) as (store, url), putting(store, CONTENT, gated(3 * MIB)):
        async with RawClient.connect(url) as client:
            await ask(client)
            await client.reader.readexactly(3 * MIB)
            assert store.arrivals.readers == 1
            client.reset()
        await eventually(lambda: not store.arrivals.readers)


async def test_more_readers_than_memory_serves_get_the_same_bytes(node: Node) -> None:
    source = gated(MIB + 100)
    async with (
        AsyncExitStack() as clients,
        depot(node) as (store, url),
        putting(store, CONTENT, source) as running,
    ):
        readers = [
            await clients.enter_async_context(RawClient.connect(url))
            for _ in range(MAX_TAIL_READERS + 3)
        ]
        for reader in readers:
            assert (await ask(reader))[0] == 200
        source.open_gate()
        got = await asyncio.gather(*(reader.reader.readexactly(SIZE) for reader in readers))
        assert set(got) == {CONTENT}
        await running


async def test_more_arrivals_than_have_a_place_in_memory_are_relayed(node: Node) -> None:
    contents = [bytes([number]) + CONTENT[: 3 * MIB] for number in range(MAX_TAILS + 2)]
    async with (
        node.open() as store,
        serve(depot_app(store, arrivals=store.arrivals)) as service,
        AsyncExitStack() as opened,
    ):
        await store.put_config(config(1, *contents))
        sources = [gated(2 * MIB, content) for content in contents]
        for source, content in zip(sources, contents, strict=True):
            await opened.enter_async_context(putting(store, content, source))
        readers = [
            await opened.enter_async_context(RawClient.connect(service.url)) for _ in contents
        ]
        for reader, content in zip(readers, contents, strict=True):
            assert (await ask(reader, artifact=hash_of(content)))[0] == 200
        for source in sources:
            source.open_gate()
        for reader, content in zip(readers, contents, strict=True):
            assert await reader.reader.readexactly(len(content)) == content


async def test_without_a_dataset_nothing_is_relayed(node: Node) -> None:
    async with (
        depot(node) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
        RawClient.connect(url) as client,
    ):
        for index in (A, B):
            await node.take_away(index)
        await store.check_datasets()
        assert (await ask(client))[0] == 503


async def test_nothing_is_relayed_where_that_is_switched_off(node: Node) -> None:
    async with (
        depot(node, relay=False) as (store, url),
        putting(store, CONTENT, gated(3 * MIB)),
        RawClient.connect(url) as client,
    ):
        assert (await ask(client))[0] == 404
