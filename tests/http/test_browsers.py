"""What web pages can do at a sled's two servers: nothing, on whichever way a request is answered.

The rules themselves are tested in `tests.unit.test_http_browsers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from depot.http.browsers import OwnNames
from depot.http.depot_api import depot_app
from depot.http.fast_path import FAST_PATH, FastPath
from depot.http.fast_puts import FastPuts
from depot.http.hot_artifacts import HotArtifacts
from depot.store import ArtifactStore
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.http.sled import agent_api
from tests.store.builders import Node, config, copies, hash_of, put

HELD = b"an artifact that is held"
WANTED = b"an artifact that is wanted"
NAMED = OwnNames.of(("sled-7.example",))
PAGES = (
    (403, ["Host: 127.0.0.1", "Origin: https://evil.example"]),
    (403, ["Host: 127.0.0.1", "Origin: null"]),
    (403, ["Host: 127.0.0.1", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]),
    (421, ["Host: evil.example", "Origin: http://evil.example"]),
)
CODES = {403: "CrossSite", 421: "UnknownHost"}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


@dataclass
class Served:
    store: ArtifactStore
    agent_url: str
    depot_url: str
    puts: FastPuts
    gets: FastPath

    @property
    def fast(self) -> tuple[int, int]:
        return self.puts.answers, self.gets.answers


@asynccontextmanager
async def serving(node: Node, own: OwnNames | None) -> AsyncIterator[Served]:
    """Both servers of a sled that holds one artifact of two, and answers it from memory."""
    async with node.open() as store:
        await store.put_config(config(1, HELD, WANTED))
        await put(store, HELD)
        app = depot_app(store, hot=HotArtifacts(), own=own)
        async with (
            agent_api(store, node.root, short_puts=store.short_puts, own=own) as sled,
            serve(app) as depot,
        ):
            assert sled.fast_puts is not None
            served = Served(store, sled.url, depot.url, sled.fast_puts, app[FAST_PATH])
            for _ in range(2):
                assert await ask(depot.url, GET, ["Host: 127.0.0.1"]) == "200"
            assert served.gets.answers >= 1
            yield served


GET = f"GET /artifact/sha256/{hash_of(HELD)} HTTP/1.1"
PUT = f"PUT /artifacts/{hash_of(WANTED)}?generation=1 HTTP/1.1"
PUT_HELD = f"PUT /artifacts/{hash_of(HELD)}?generation=1 HTTP/1.1"


async def ask(url: str, line: str, headers: list[str], body: bytes = b"") -> str:
    """Ask as it is written here, in one piece; the answer's code."""
    if body:
        headers = [*headers, f"Content-Length: {len(body)}"]
    async with RawClient.connect(url) as client:
        await client.send_bytes("\r\n".join([line, *headers, "", ""]).encode() + body)
        return (await client.answer()).code


@pytest.mark.parametrize("own", [None, NAMED])
async def test_s4_a_page_changes_nothing_and_reads_nothing(
    node: Node, own: OwnNames | None
) -> None:
    config_body = b'{"generation": 2, "artifacts": []}'
    async with serving(node, own) as served:
        before = served.fast
        for status, page in PAGES:
            refused = f"{status} {CODES[status]}"
            for line, body in (
                (PUT, WANTED),
                ("PUT /artifacts-config HTTP/1.1", config_body),
                ("POST /scrub HTTP/1.1", b""),
                ("POST /artifacts-config/reset HTTP/1.1", b'{"expected_generation": 1}'),
                ("DELETE /pins/x HTTP/1.1", b""),
                ("OPTIONS /artifacts-config HTTP/1.1", b""),
                ("GET /status HTTP/1.1", b""),
                ("POST /nothing HTTP/1.1", b""),
            ):
                assert await ask(served.agent_url, line, page, body) == refused, line
            assert await ask(served.depot_url, GET, page) == refused
        assert served.fast == before
        assert served.store.config() == config(1, HELD, WANTED)
        assert copies(served.store) == {hash_of(HELD): 2}


async def test_a_page_is_refused_before_it_may_send_a_body(node: Node) -> None:
    async with serving(node, None) as served, RawClient.connect(served.agent_url) as client:
        page = ["Host: 127.0.0.1", "Origin: null", "Expect: 100-continue", "Content-Length: 9"]
        await client.send_bytes("\r\n".join([PUT, *page, "", ""]).encode())
        assert (await client.answer()).code == "403 CrossSite"


@pytest.mark.parametrize(
    ("own", "names"),
    [
        (None, ["127.0.0.1:1", "[fd00::7]:1", "sled-7", "sled-7.example:12348"]),
        (NAMED, ["127.0.0.1:1", "[fd00::7]:1", "localhost", "Sled-7.example:12348"]),
    ],
)
async def test_programs_take_the_short_ways_under_any_name_that_is_served(
    node: Node, own: OwnNames | None, names: list[str]
) -> None:
    async with serving(node, own) as served:
        assert await ask(served.agent_url, PUT, [f"Host: {names[-1]}"], WANTED) == "200"
        assert served.puts.answers == 1
        for name in names:
            before = served.gets.answers
            assert await ask(served.depot_url, GET, [f"Host: {name}"]) == "200"
            assert served.gets.answers == before + 1


async def test_names_that_are_not_the_sleds_are_refused_on_every_way_once_it_was_told_its_own(
    node: Node,
) -> None:
    async with serving(node, NAMED) as served:
        before = served.fast
        for name in ("evil.example", "evil.example:12348", "sled-7"):
            said = [f"Host: {name}"]
            assert await ask(served.depot_url, GET, said) == "421 UnknownHost"
            assert await ask(served.agent_url, PUT, said, WANTED) == "421 UnknownHost"
            assert await ask(served.agent_url, PUT_HELD, said, HELD) == "421 UnknownHost"
            assert await ask(served.agent_url, "GET /status HTTP/1.1", said) == "421 UnknownHost"
        assert served.fast == before
        assert copies(served.store) == {hash_of(HELD): 2}


async def test_what_curl_sends_by_itself_with_a_put_is_taken(node: Node) -> None:
    form = ["Host: 127.0.0.1", "Content-Type: application/x-www-form-urlencoded"]
    async with serving(node, None) as served:
        assert await ask(served.agent_url, PUT, form, WANTED) == "200"
        assert await ask(served.agent_url, "POST /scrub HTTP/1.1", form) == "400 InvalidRequest"
