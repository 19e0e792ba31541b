"""The fast path answers as the plain path does, or not at all.

Every depot here has both; what the fast path has answered is counted, so that each test knows which
one it was.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from yarl import URL

from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.http.fast_path import FAST_PATH, FastPath
from depot.http.hot_artifacts import SMALL_BYTES, HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.responder import ArtifactReader
from depot.http.service import ACTIVITY, HttpService
from depot.streams.budget import Budget
from tests.fakes import FakeStore
from tests.http.raw import Answer, RawClient
from tests.http.servers import serve
from tests.store.builders import hash_of

SMALL = b"a small artifact" * 10
OTHER = b"another small artifact"


@dataclass
class Depot:
    service: HttpService
    fast: FastPath

    @property
    def url(self) -> str:
        return self.service.url

    @asynccontextmanager
    async def warm(self, *contents: bytes) -> AsyncIterator[RawClient]:
        """A connection on which each artifact was fetched once, which is how it gets hot."""
        async with RawClient.connect(self.url) as client:
            for content in contents:
                await client.send(get(content))
                assert (await client.answer()).body == content
            yield client

    async def is_fast(self, client: RawClient, content: bytes) -> bool:
        """Fetch an artifact, and tell which path it took."""
        before = self.fast.answers
        await client.send(get(content))
        assert (await client.answer()).body == content
        return self.fast.answers == before + 1

    async def is_at_once(self, client: RawClient, content: bytes) -> bool:
        """The same, and tell whether, by then, it is answered without asking anybody."""
        fast = await self.is_fast(client, content)
        return fast and self.fast.answer(request(content)) is not None


@asynccontextmanager
async def depot(
    store: ArtifactReader,
    *,
    limits: HttpLimits | None = None,
    compressor: Compressor | None = None,
    budget: Budget | None = None,
    hot: HotArtifacts | None = None,
) -> AsyncIterator[Depot]:
    hot = HotArtifacts() if hot is None else hot
    app = depot_app(store, limits=limits, compressor=compressor, budget=budget, hot=hot)
    async with serve(app, limits) as service:
        yield Depot(service, app[FAST_PATH])


@pytest.fixture
def empty(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
async def store(empty: FakeStore) -> FakeStore:
    store = empty
    for content in (b"", SMALL, OTHER, bytes(SMALL_BYTES), bytes(SMALL_BYTES + 1)):
        await store.add(content)
    return store


def get(content: bytes) -> str:
    return f"GET /artifact/sha256/{hash_of(content)} HTTP/1.1"


def request(content: bytes) -> bytes:
    return f"{get(content)}\r\nHost: test\r\n\r\n".encode()


async def ask(client: RawClient, content: bytes) -> Answer:
    await client.send(get(content))
    return await client.answer()


async def raw_answer(client: RawClient) -> bytes:
    """An answer as it came, but for its date and its request id."""
    head = await client.reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)\r\n", head)
    assert length is not None
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", head)
    assert re.search(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", head)
    head = re.sub(rb"(Date|x-request-id): [^\r]*", rb"\1", head)
    return head + await client.reader.readexactly(int(length[1]))


async def round_trip(served: Depot) -> None:
    """Let the server read what has been sent to it."""
    async with RawClient.connect(served.url) as other:
        await other.send("GET /health/live HTTP/1.1", "Connection: close")
        assert (await other.answer()).status == 200
        await other.rest()


# ---- the same answers


@pytest.mark.parametrize("compresses", [False, True])
@pytest.mark.parametrize("content", [b"", SMALL, bytes(SMALL_BYTES)])
async def test_the_answer_is_that_of_the_plain_path_byte_for_byte(
    store: FakeStore, content: bytes, compresses: bool
) -> None:
    compressor = Compressor() if compresses else None
    async with depot(store, compressor=compressor) as served, served.warm() as client:
        answers = []
        for _ in range(3):
            await client.send(get(content))
            answers.append(await raw_answer(client))
    assert served.fast.answers == 2
    assert answers == [answers[0]] * 3


async def test_every_answer_has_a_request_id_of_its_own(store: FakeStore) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        ids = set()
        for _ in range(600):
            await client.send(get(SMALL))
            ids.add((await client.answer()).headers["x-request-id"])
    assert served.fast.answers == len(ids) == 600


async def test_what_is_not_small_is_never_answered_at_once(store: FakeStore) -> None:
    large = bytes(SMALL_BYTES + 1)
    async with depot(store) as served, served.warm(large) as client:
        assert not await served.is_fast(client, large)


# ---- the normal way


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET {} HTTP/1.1", ["Range: bytes=1-2"], 206),
        ("GET {} HTTP/1.1", ["If-None-Match: *"], 304),
        ("GET {} HTTP/1.1", ['If-Match: "x"'], 412),
        ("GET {} HTTP/1.1", ["Connection: close"], 200),
        ("GET {} HTTP/1.1", ["Authorization: Basic eA=="], 200),
        ("GET {} HTTP/1.1", ["X-Unknown: 1"], 200),
        ("GET {} HTTP/1.1", ["Accept: a", "Accept: b"], 200),
        ("GET {} HTTP/1.1", ["Host: twice"], 400),
        ("GET {} HTTP/1.1", ["Accept:*/*"], 200),
        ("GET {} HTTP/1.1", ["Accept-Encoding: zstd, identity;q=0"], 200),
        ("GET {} HTTP/1.1", ["Content-Length: 0"], 200),
        ("GET {} HTTP/1.1", ["Expect: cake"], 417),
        ("GET {} HTTP/1.1", ["api-version: 7.0.0"], 400),
        ("GET {} HTTP/1.1", ["User-Agent: " + "x" * 3000], 200),
        ("GET {}?a=b HTTP/1.1", [], 200),
        ("GET {}/ HTTP/1.1", [], 404),
        ("GET {} HTTP/1.0", [], 200),
        ("GET {} HTTP/2.0", [], 505),
        ("get {} HTTP/1.1", [], 400),
        ("POST {} HTTP/1.1", [], 405),
        ("DELETE {} HTTP/1.1", [], 405),
    ],
)
async def test_whatever_is_not_plain_goes_the_normal_way(
    store: FakeStore, line: str, headers: list[str], status: int
) -> None:
    async with depot(store, compressor=Compressor()) as served, served.warm(SMALL) as client:
        await client.send(line.format(f"/artifact/sha256/{hash_of(SMALL)}"), *headers)
        assert (await client.answer(has_body=status != 304)).status == status
    assert served.fast.answers == 0


async def test_a_head_that_comes_in_parts_goes_the_normal_way(store: FakeStore) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        for cut in (1, 30, 100, -3, -1):
            await client.send_bytes(request(SMALL)[:cut])
            await round_trip(served)
            await client.send_bytes(request(SMALL)[cut:])
            assert (await client.answer()).body == SMALL
        assert served.fast.answers == 0
        assert await served.is_fast(client, SMALL), "the one after it is whole again"


async def test_a_whole_request_behind_a_part_of_one_is_that_ones(store: FakeStore) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        await client.send_bytes(b"GET /health/live HTTP/1.1\r\nX: ")
        await round_trip(served)
        await client.send_bytes(request(SMALL))
        assert (await client.answer()).body == b"", "it was a header's value"
        assert served.fast.answers == 0


async def test_pipelined_requests_go_the_normal_way_in_their_order(store: FakeStore) -> None:
    async with depot(store) as served, served.warm(SMALL, OTHER) as client:
        await client.send_bytes((request(SMALL) + request(OTHER)) * 10)
        for content in [SMALL, OTHER] * 10:
            assert (await client.answer()).body == content
        assert served.fast.answers == 0
        assert await served.is_fast(client, SMALL)


@pytest.mark.parametrize("ending", [b"abc", b"\r\n\r\n"])
async def test_behind_a_body_of_known_length_a_request_is_whole_again(
    store: FakeStore, ending: bytes
) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        length = f"Content-Length: {len(ending)}"
        await client.send(get(SMALL), length, body=ending)
        answer = await client.answer()
        assert answer.status == 200
        assert served.fast.answers == 0
        if answer.headers.get("connection") != "close":
            assert await served.is_fast(client, SMALL)


async def test_behind_a_chunked_body_the_normal_way_is_taken_until_a_request_without_one(
    store: FakeStore,
) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        await client.send(get(SMALL), "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 200
        if answer.headers.get("connection") != "close":
            assert not await served.is_fast(client, SMALL)
            assert await served.is_fast(client, SMALL)


async def test_a_request_behind_a_part_of_a_body_is_a_part_of_that(store: FakeStore) -> None:
    async with depot(store) as served, served.warm(SMALL) as client:
        whole = request(SMALL)
        await client.send(get(OTHER), f"Content-Length: {len(whole)}")
        await round_trip(served)
        await client.send_bytes(whole)
        answer = await client.answer()
        assert answer.body == OTHER
        assert served.fast.answers == 0
        if answer.headers.get("connection") == "close":  # it was answered before its body came
            assert await client.rest() == b""
        else:
            assert await served.is_fast(client, SMALL)


async def test_s3_a_draining_server_refuses_here_too(store: FakeStore) -> None:
    app = depot_app(store, hot=HotArtifacts())
    async with serve(app) as service:
        served = Depot(service, app[FAST_PATH])
        async with served.warm(SMALL) as client:
            assert await served.is_fast(client, SMALL)
            app[ACTIVITY].draining = True
            await client.send(get(SMALL))
            assert (await client.answer()).code == "503 ShuttingDown"


async def test_an_answer_waits_for_its_budget_on_the_plain_path(store: FakeStore) -> None:
    now_s = 0.0
    budget = Budget(20 * len(SMALL), clock=lambda: now_s)  # a step has as many bytes as SMALL
    async with depot(store, budget=budget) as served, served.warm() as client:
        budget.give_back(len(SMALL))
        await client.send(get(SMALL))
        assert (await client.answer()).body == SMALL
        now_s += 1.0
        assert await served.is_fast(client, SMALL)
        now_s += 1.0
        assert budget.pay_now(len(SMALL))
        assert budget.pay_now(1)
        before = served.fast.answers
        await client.send(get(SMALL))
        await round_trip(served)
        assert served.fast.answers == before
        assert (await client.answer()).body == SMALL


# ---- time


async def test_a_first_request_that_is_answered_at_once_ends_the_wait_for_a_head(
    store: FakeStore,
) -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=60)
    async with depot(store, limits=limits) as served:
        async with served.warm(SMALL):
            pass
        async with RawClient.connect(served.url) as client:
            assert await served.is_fast(client, SMALL)
            async with RawClient.connect(served.url) as silent:
                assert await silent.rest() == b""
            assert await served.is_fast(client, SMALL)


async def test_s2_a_head_that_begins_behind_an_answer_has_the_header_timeout(
    store: FakeStore,
) -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=60)
    async with depot(store, limits=limits) as served, served.warm(SMALL) as client:
        assert await served.is_fast(client, SMALL)
        await client.send_bytes(b"GET /hel")
        assert (await client.answer()).status == 408


async def test_s1_a_connection_that_stays_idle_behind_an_answer_is_closed(
    store: FakeStore,
) -> None:
    limits = HttpLimits(idle_timeout_s=0.05)
    async with depot(store, limits=limits) as served, served.warm(SMALL) as client:
        assert await served.is_fast(client, SMALL)
        async with asyncio.timeout(10):
            assert await client.rest() == b""


async def test_each_answer_begins_the_idle_time_anew(store: FakeStore) -> None:
    limits = HttpLimits(idle_timeout_s=0.5)
    loop = asyncio.get_running_loop()
    async with depot(store, limits=limits) as served, served.warm(SMALL) as client:
        end_s = loop.time() + 3 * limits.idle_timeout_s
        while loop.time() < end_s:
            assert await served.is_fast(client, SMALL)


async def test_s2_a_client_that_takes_no_answers_is_given_up(store: FakeStore) -> None:
    limits = HttpLimits(idle_timeout_s=0.2)
    large = bytes(SMALL_BYTES)
    async with depot(store, limits=limits) as served:
        async with served.warm(large):
            pass
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            address = URL(served.url)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (address.host, address.port))
            asked = 0
            while asked == served.fast.answers:  # until its socket is full
                await loop.sock_sendall(deaf, request(large))
                await round_trip(served)
                asked += 1
            while served.service.connections:
                await round_trip(served)
    assert served.fast.answers > 0
