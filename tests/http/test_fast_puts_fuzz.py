"""Whatever bytes a client sends, in whatever pieces: the way past the library changes no answer.

Two sleds with the same config, one without that way, are sent the same; what comes back is compared
to the last byte, but for dates and request ids, and so is what they hold at the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from depot.store import ArtifactStore
from tests.http.raw import RawClient
from tests.http.sled import Sled, agent_api
from tests.http.test_fast_path_fuzz import comparable, converse, is_quiet
from tests.memory_dir import memory_dir
from tests.store.builders import Node, config, copies, hash_of

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "100"))
NAME: Final = b"@NAME@"
BODY: Final = b"@BODY@"
"""Stand for an artifact that was not put before, and its content."""
BODY_BYTES: Final = 12
ROUNDS: Final = 200
"""Answers on another connection meanwhile; a put takes some of them."""
ARTIFACTS: Final = EXAMPLES * 100

mostly = st.sampled_from([True, True, True, False])
a_target = st.sampled_from(
    [
        *[b"/artifacts/@NAME@?generation=1"] * 12,
        b"/artifacts/@NAME@?generation=2",
        b"/artifacts/@NAME@?generation=01",
        b"/artifacts/@NAME@?generation=1&x=1",
        b"/artifacts/@NAME@?generation=1#x",
        b"/artifacts/@NAME@?generation=%31",
        b"/artifacts/@NAME@",
        b"/artifacts/@NAME@/?generation=1",
        b"//artifacts/@NAME@?generation=1",
        b"/artifacts/" + b"0" * 64 + b"?generation=1",
        b"/health/live",
    ]
)
a_plain_line = st.sampled_from(
    [b"User-Agent: curl/8.5.0", b"Accept: */*", b"Content-Type: a/b", b"Connection: keep-alive"]
)
a_line = st.sampled_from(
    [
        b"Host: again",
        b"Accept:*/*",
        b" folded",
        b"no colon",
        b"Connection: close",
        b"Expect: cake",
        b"api-version: 99.0.0",
        b"Content-Encoding: identity",
        b"Content-Length: 12",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"X-Bytes: \xff",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A put that is plain, nearly so, or not at all."""
    plain = draw(mostly)
    method = b"PUT" if plain else draw(st.sampled_from([b"PUT", b"GET", b"put", b"\r\nPUT"]))
    version = b"HTTP/1.1" if plain else draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
    lines = draw(st.lists(a_plain_line, max_size=2, unique=True))
    length = b"Content-Length: 12"
    if not plain:
        lines += draw(st.lists(a_line, max_size=2))
        length = draw(st.sampled_from([length, b"Content-Length: 5", b"Content-Length: 012", b""]))
    first = b" ".join([method, draw(a_target), version])
    head = [first, b"Host: test", *filter(None, [length]), *lines, b"", b""]
    body = BODY if plain else draw(st.sampled_from([BODY, b"x" * 12, BODY + b"\r\n", b""]))
    return b"\r\n".join(head) + body


cuts = st.lists(st.floats(0, 1), max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], list[float] | None]:
    """What one connection is sent: a request in a piece for each, or all of them cut anywhere."""
    asked = draw(st.lists(requests(), min_size=1, max_size=5))
    return asked, None if draw(mostly) else draw(cuts)


class Sleds:
    """Two of them, the plain one first.

    Attributes:
        runner: of the loop that they belong to.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._open = AsyncExitStack()
        self._sleds: list[Sled] = []
        self._stores: list[ArtifactStore] = []
        self._next = iter(range(ARTIFACTS))
        self.runner: asyncio.Runner

    async def start(self) -> None:
        contents = [_content(number) for number in range(ARTIFACTS)]
        for node, fast in zip(self._nodes, (False, True), strict=True):
            store = await self._open.enter_async_context(node.open())
            await store.put_config(config(1, *contents))
            taker = store.short_puts if fast else None
            serving = agent_api(store, node.root, short_puts=taker)
            self._sleds.append(await self._open.enter_async_context(serving))
            self._stores.append(store)

    async def stop(self) -> None:
        await self._open.aclose()

    @property
    def fast_answers(self) -> int:
        fast_puts = self._sleds[1].fast_puts
        assert fast_puts is not None
        return fast_puts.answers

    def held(self) -> list[object]:
        return [copies(store) for store in self._stores]

    def pieces(self, asked: list[bytes], where: list[float] | None) -> list[bytes]:
        """The bytes to be sent, each artifact another one than ever before."""
        whole = [self._filled(request) for request in asked]
        if where is None:
            return whole
        joined = b"".join(whole)
        at = sorted(int(each * len(joined)) for each in where)
        return [joined[a:b] for a, b in zip([0, *at], [*at, len(joined)], strict=True) if a < b]

    def _filled(self, request: bytes) -> bytes:
        content = _content(next(self._next))
        return request.replace(NAME, str(hash_of(content)).encode()).replace(BODY, content)

    async def answers(self, sent: list[bytes]) -> list[bytes]:
        return [await self._talk(sled, sent) for sled in self._sleds]

    async def _talk(self, sled: Sled, sent: list[bytes]) -> bytes:
        async def settle(other: RawClient) -> None:
            # But for a put of which only a part is here: that one waits.
            for _ in range(ROUNDS):
                if await is_quiet(other, sled.activity):
                    return

        return await converse(sled.url, sent, settle)


def _content(number: int) -> bytes:
    return str(number).zfill(BODY_BYTES).encode()


@pytest.fixture
def sleds(blocking_calls_fail: BlockBuster) -> Iterator[Sleds]:
    # In memory where there is such a place: no put waits for a disk that others keep busy.
    with (
        TemporaryDirectory(dir=memory_dir()) as root,
        asyncio.Runner() as runner,
    ):
        nodes = []
        for name in ("plain", "fast"):
            (Path(root) / name).mkdir()
            nodes.append(Node.make(Path(root) / name))
        sleds = Sleds(nodes)
        sleds.runner = runner
        runner.run(sleds.start())
        yield sleds
        runner.run(sleds.stop())


@pytest.mark.timeout(0 if "FUZZ_EXAMPLES" in os.environ else 300)
def test_b2_no_answer_differs_whatever_is_sent(sleds: Sleds) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(conversations())
    def compare(conversation: tuple[list[bytes], list[float] | None]) -> None:
        before = sleds.fast_answers
        plain, fast = map(comparable, sleds.runner.run(sleds.answers(sleds.pieces(*conversation))))
        assert fast == plain
        event(f"answered past the library: {sleds.fast_answers - before}")

    compare()
    plain, fast = sleds.held()
    assert fast == plain
    assert sleds.fast_answers > EXAMPLES / 4, "that was the plain path all the time"
