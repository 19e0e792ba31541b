"""Whatever bytes a client sends, in whatever pieces: the fast path changes no answer.

Depots on the same artifacts, without the fast path, with it, and with it but nothing in memory, are
sent the same; what comes back is compared to the last byte, but for dates and request ids.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from yarl import URL

from depot.artifact import ArtifactHash
from depot.http.activity import Activity
from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.http.fast_path import FAST_PATH, FastPath
from depot.http.hot_artifacts import HotArtifacts
from depot.http.service import ACTIVITY
from tests.fakes import FakeStore
from tests.http.raw import RawClient
from tests.http.servers import serve

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "150"))
CONTENTS: Final = (b"", b"a small artifact" * 9, b"x" * 5000)
NAMES: Final = tuple(str(ArtifactHash.of(content)) for content in CONTENTS)
BODY: Final = b"GET "

mostly = st.sampled_from([True, True, True, False])
a_target = st.sampled_from(
    [
        *[f"/artifact/sha256/{name}" for name in NAMES] * 6,
        f"/artifact/sha256/{NAMES[1].upper()}",
        f"/artifact/sha256/{NAMES[1]}?x=1",
        f"/artifact/sha256/{NAMES[1]}/",
        f"/artifact/sha256/{NAMES[1][:-1]}",
        f"/artifact/sha256/{NAMES[1]}0",
        f"//artifact/sha256/{NAMES[1]}",
        f"/artifact/sha256/%{ord(NAMES[1][0]):x}{NAMES[1][1:]}",
        f"http://test/artifact/sha256/{NAMES[1]}",
        f"/artifact/sha256/{'0' * 64}",
        "/health/live",
        "*",
    ]
)
a_plain_line = st.sampled_from(
    [
        b"User-Agent: curl/8.5.0",
        b"Accept: */*",
        b"Accept-Encoding: identity",
        b"Accept-Encoding: gzip, deflate, zstd",
        b"Accept-Language: en",
        b"Connection: keep-alive",
        b"api-version: 1.0.0",
    ]
)
a_line = st.sampled_from(
    [
        b"Host: again",
        b"accept: */*",
        b"Accept:*/*",
        b"Accept:  \t*/*  ",
        b"Accept : */*",
        b"Accept:",
        b"Accept: \xff",
        b"Accept: a\x0bb",
        b"Accept: a\n b",
        b" folded",
        b"no colon",
        b": no name",
        b"Accept-Encoding: zstd, identity;q=0",
        b"Connection: close",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"Range: bytes=1-3",
        b"If-None-Match: *",
        b'If-Match: "other"',
        b"If-Range: x",
        b"Expect: cake",
        b"Expect: 100-continue",
        b"Authorization: Basic eA==",
        b"api-version: 9.0.0",
        b"Content-Length: 0",
        b"Content-Length: 4",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"User-Agent: " + b"y" * 2500,
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is plain, nearly so, or not at all."""
    plain = draw(mostly)
    method = "GET" if plain else draw(st.sampled_from(["GET", "HEAD", "POST", "get", "\r\nGET"]))
    version = "HTTP/1.1" if plain else draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]))
    lines = draw(st.lists(a_plain_line, max_size=3))
    if not plain:
        lines += draw(st.lists(a_line, max_size=2))
    first = f"{method} {draw(a_target)} {version}".encode()
    head = b"\r\n".join([first, b"Host: test", *draw(st.permutations(lines)), b"", b""])
    if any(line.startswith((b"Content-Length: 4", b"Expect: 100")) for line in lines):
        head += BODY
    if b"Transfer-Encoding: chunked" in lines:
        head += b"4\r\n" + BODY + b"\r\n0\r\n\r\n"
    return head if plain or draw(mostly) else draw(_mutated(head))


@st.composite
def _mutated(draw: st.DrawFn, head: bytes) -> bytes:
    where = draw(st.integers(0, len(head) - 1))
    byte = draw(st.binary(max_size=2) | st.sampled_from([b"\r", b"\n", b" ", b"\r\n", b"\x00"]))
    return head[:where] + byte + head[where + draw(st.integers(0, 1)) :]


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """What one connection is sent: requests, mostly in a piece for each, or cut anywhere."""
    asked = draw(st.lists(requests(), min_size=1, max_size=6))
    if draw(mostly):
        return asked
    whole = b"".join(asked)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]


class Collector(asyncio.Protocol):
    """Keeps what comes; whatever the server does to the connection is an end of it."""

    def __init__(self) -> None:
        self.content = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.content += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class Depots:
    """The servers, the plain one first.

    Attributes:
        runner: of the loop that they belong to.
    """

    def __init__(self, root: Path) -> None:
        self._store = FakeStore(root)
        self._open = AsyncExitStack()
        self._servers: list[tuple[str, Activity]] = []
        self._fast: list[FastPath] = []
        self.runner: asyncio.Runner

    async def start(self) -> None:
        for content in CONTENTS:
            await self._store.add(content)
        self._store.reads_together = asyncio.Event()
        self._store.reads_together.set()
        for hot in (None, HotArtifacts(), HotArtifacts(0)):
            app = depot_app(self._store, compressor=Compressor(min_size_bytes=1000), hot=hot)
            service = await self._open.enter_async_context(serve(app))
            self._servers.append((service.url, app[ACTIVITY]))
            if hot is not None:
                self._fast.append(app[FAST_PATH])

    async def stop(self) -> None:
        await self._open.aclose()

    @property
    def fast_answers(self) -> list[int]:
        """How many answers each fast path has given."""
        return [fast.answers for fast in self._fast]

    async def answers(self, sent: list[bytes]) -> list[bytes]:
        return [await self._talk(url, activity, sent) for url, activity in self._servers]

    async def _talk(self, url: str, activity: Activity, sent: list[bytes]) -> bytes:
        async def settle(other: RawClient) -> None:
            while not await is_quiet(other, activity):
                pass

        return await converse(url, sent, settle)


async def converse(
    url: str, sent: list[bytes], settle: Callable[[RawClient], Awaitable[None]]
) -> bytes:
    """Send each piece, wait until the server has done with it, and at the end for the end.

    Pieces that the server gets together by chance are a request that is lost: the library forgets
    those that came with one that cannot be parsed.
    """
    address = URL(url)
    loop = asyncio.get_running_loop()
    assert address.host
    assert address.port
    transport, collector = await loop.create_connection(Collector, address.host, address.port)
    try:
        async with RawClient.connect(url) as other:
            for piece in sent:
                transport.write(piece)
                await settle(other)
        if not transport.is_closing():
            transport.write_eof()
        async with asyncio.timeout(30):
            await collector.ended.wait()
    finally:
        transport.abort()
    return collector.content


async def is_quiet(other: RawClient, activity: Activity) -> bool:
    """Have another request answered; whether nothing else was left to be by then."""
    await other.send("GET /health/live HTTP/1.1")
    assert (await other.answer()).status == 200
    return not activity.running


@pytest.fixture
def depots(tmp_path: Path) -> Iterator[Depots]:
    depots = Depots(tmp_path)
    with asyncio.Runner() as runner:
        depots.runner = runner
        runner.run(depots.start())
        yield depots
        runner.run(depots.stop())


def comparable(content: bytes) -> bytes:
    content = re.sub(rb"(\r\nDate: )[^\r]*", rb"\1", content)
    return re.sub(rb"(x-request-id: |\"request_id\": \")[0-9a-f]{32}", rb"\1", content)


def test_b2_no_answer_differs_whatever_is_sent(depots: Depots) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(pieces())
    def compare(sent: list[bytes]) -> None:
        before, _ = depots.fast_answers
        plain, cached, read = map(comparable, depots.runner.run(depots.answers(sent)))
        assert cached == plain
        assert read == plain
        event(f"answered on the fast path: {depots.fast_answers[0] - before}")

    compare()
    assert min(depots.fast_answers) > EXAMPLES / 4, "that was the plain path all the time"
