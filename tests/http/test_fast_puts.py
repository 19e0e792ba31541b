"""Plain puts that are taken past the HTTP library: answered as on the plain path, or left to it.

Every sled here has both; what was answered past the library is counted, so that each test knows
which one it was. The rules of puts themselves are in `test_agent_artifacts`, which runs both ways,
and in `tests.store.test_group_commit`.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from depot.http.limits import HttpLimits
from depot.store import ArtifactStore
from depot.writing.put import WHOLE_BYTES
from tests.http.raw import Answer, RawClient
from tests.http.sled import Sled, agent_api
from tests.store.builders import A, B, Node, config, copies, hash_of, off_loop, reserved_bytes
from tests.store.faulty import WAIT_S, Hang

CONTENT = b"an artifact's bytes"
OTHER = b"another artifact's bytes"
STORED = {"datasets": 2, "successful_writes": 2}


@dataclass
class Served:
    node: Node
    store: ArtifactStore
    sled: Sled

    @property
    def fast_answers(self) -> int:
        assert self.sled.fast_puts is not None
        return self.sled.fast_puts.answers

    def connect(self) -> AbstractAsyncContextManager[RawClient]:
        return RawClient.connect(self.sled.url)

    def puts(self) -> int:
        """How many puts the store has told of."""
        return self.node.kinds().count("put")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


@pytest.fixture
def nodes(tmp_path: Path) -> list[tuple[bool, Node]]:
    """One node for each way."""
    made = []
    for fast in (True, False):
        root = tmp_path / f"fast-{fast}"
        root.mkdir()
        made.append((fast, Node.make(root)))
    return made


@asynccontextmanager
async def serve(
    node: Node, *, fast: bool = True, limits: HttpLimits | None = None, **options: Any
) -> AsyncIterator[Served]:
    async with node.open(**options) as store:
        await store.put_config(
            config(1, CONTENT, OTHER, bytes(WHOLE_BYTES), bytes(WHOLE_BYTES + 1))
        )
        taker = store.short_puts if fast else None
        async with agent_api(store, node.root, limits=limits, short_puts=taker) as sled:
            yield Served(node, store, sled)


@pytest.fixture
async def served(node: Node) -> AsyncIterator[Served]:
    async with serve(node) as served:
        yield served


def line(content: bytes, generation: int = 1) -> str:
    return f"PUT /artifacts/{hash_of(content)}?generation={generation} HTTP/1.1"


def request(content: bytes, *headers: str, generation: int = 1) -> bytes:
    lines = [line(content, generation), "Host: test", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def put(client: RawClient, content: bytes, *headers: str, generation: int = 1) -> Answer:
    await client.send_bytes(request(content, *headers, generation=generation))
    return await client.answer()


async def raw_answer(client: RawClient) -> bytes:
    """An answer as it came, but for its date and its request id."""
    head = await client.reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)\r\n", head)
    assert length is not None
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", head)
    head = re.sub(rb"(Date|x-request-id): [^\r]*", rb"\1", head)
    return head + await client.reader.readexactly(int(length[1]))


async def begun(hangs: list[Hang]) -> None:
    for hang in hangs:
        await off_loop(hang.wait_begun)


def hang_syncs(node: Node) -> list[Hang]:
    return [node.disk(index).hang("fsync", name="staging") for index in (A, B)]


# ---- the same answers


@pytest.mark.parametrize("content", [b"x", CONTENT, bytes(WHOLE_BYTES)])
async def test_the_answer_is_that_of_the_plain_path_byte_for_byte(
    nodes: list[tuple[bool, Node]], content: bytes
) -> None:
    answers, files = [], []
    for fast, node in nodes:
        async with serve(node, fast=fast) as served, served.connect() as client:
            await served.store.put_config(config(2, content))
            await client.send_bytes(request(content, generation=2))
            answers.append(await raw_answer(client))
            assert copies(served.store) == {hash_of(content): 2}
            files.append([await node.read(index, content) for index in (A, B)])
            assert served.sled.fast_puts is None or served.fast_answers == fast
            assert served.puts() == 1
    assert answers[0] == answers[1]
    assert files == [[content, content]] * 2


async def test_one_connection_puts_again_and_again(served: Served) -> None:
    async with served.connect() as client:
        for content in (CONTENT, OTHER):
            assert (await put(client, content)).json() == STORED
    assert served.fast_answers == 2


async def test_a_put_behind_a_body_that_was_parsed_is_taken(served: Served) -> None:
    body = f'{{"generation": 2, "artifacts": ["{hash_of(CONTENT)}"]}}'.encode()
    async with served.connect() as client:
        head = ["PUT /artifacts-config HTTP/1.1", f"Content-Length: {len(body)}"]
        await client.send(*head, body=body)
        assert (await client.answer(has_body=False)).status == 204
        assert (await put(client, CONTENT, generation=2)).json() == STORED
    assert served.fast_answers == 1


async def test_it_is_counted_as_the_plain_path_counts(nodes: list[tuple[bool, Node]]) -> None:
    counted = []
    for fast, node in nodes:
        async with serve(node, fast=fast) as served, served.connect() as client:
            assert (await put(client, CONTENT)).status == 200
            text = served.sled.metrics.render().decode()
            counted.append(re.findall(r"^sled_depot_http_.*artifact_put.*$", text, re.MULTILINE))
    assert len(counted[0]) == 3
    assert counted[0] == counted[1]


async def test_the_store_is_busy_and_a_put_runs_until_it_has_ended(
    node: Node, served: Served
) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        assert served.store.status().puts_running == 1
        assert reserved_bytes(served.store) == [len(CONTENT)] * 2
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).json() == STORED
    assert served.store.status().puts_running == 0
    assert reserved_bytes(served.store) == [0, 0]


# ---- left to the plain path


@pytest.mark.parametrize(
    ("first", "headers", "code"),
    [
        (line(CONTENT), ["Content-Encoding: identity"], "200"),
        (line(CONTENT), ["Content-Encoding: gzip"], "415 UnsupportedEncoding"),
        (line(CONTENT), ["Connection: close"], "200"),
        (line(CONTENT), ["X-Unknown: 1"], "200"),
        (line(CONTENT), ["Accept:*/*"], "200"),
        (line(CONTENT), ["Expect: cake"], "417 ExpectationFailed"),
        (line(CONTENT), ["api-version: 99.0.0"], "400 ApiVersion"),
        (line(CONTENT), ["Host: twice"], "400 InvalidRequest"),
        (line(CONTENT).replace("generation=1", "generation=01"), [], "200"),
        (line(CONTENT).replace("generation=1", "generation=%31"), [], "200"),
        (line(CONTENT).replace("?generation=1", ""), [], "400 InvalidRequest"),
        (line(CONTENT).replace("=1", "=1&generation=1"), [], "400 InvalidRequest"),
        (line(CONTENT).replace("=1", "=1&x=1"), [], "400 InvalidRequest"),
        (line(CONTENT).replace(str(hash_of(CONTENT)), str(hash_of(CONTENT)).upper()), [], "200"),
        (line(CONTENT).replace(str(hash_of(CONTENT)), "ab"), [], "400 InvalidRequest"),
        (line(CONTENT).replace("PUT", "POST"), [], "405 MethodNotAllowed"),
        (line(CONTENT).replace("1.1", "1.0"), [], "200"),
        (line(CONTENT, generation=2), [], "409 ARTIFACT_GENERATION"),
        (line(b"not wanted"), [], "400 NotInConfig"),
        (line(OTHER), [], "400 HashMismatch"),
    ],
)
async def test_whatever_is_not_plain_or_not_right_goes_the_normal_way(
    served: Served, first: str, headers: list[str], code: str
) -> None:
    async with served.connect() as client:
        await client.send(first, f"Content-Length: {len(CONTENT)}", *headers, body=CONTENT)
        assert (await client.answer()).code == code
    assert served.fast_answers == 0
    assert reserved_bytes(served.store) == [0, 0]
    assert await served.node.leftovers() == []


@pytest.mark.parametrize("length", ["+19", "019", "19 ", "0x13"])
async def test_a_length_in_another_form_is_not_plain(served: Served, length: str) -> None:
    assert len(CONTENT) == 19
    async with served.connect() as client:
        await client.send(line(CONTENT), f"Content-Length: {length}", body=CONTENT)
        await client.head()
    assert served.fast_answers == 0


async def test_an_empty_body_a_long_one_and_a_chunked_one_go_the_normal_way(
    served: Served,
) -> None:
    await served.store.put_config(config(2, b"", CONTENT, bytes(WHOLE_BYTES + 1)))
    async with served.connect() as client:
        for content in (b"", bytes(WHOLE_BYTES + 1)):
            assert (await put(client, content, generation=2)).status == 200
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT)
        await client.send(line(CONTENT, 2), "Transfer-Encoding: chunked", body=chunk)
        assert (await client.answer()).status == 200
    assert served.fast_answers == 0


async def test_a_request_that_comes_in_parts_goes_the_normal_way(served: Served) -> None:
    whole = request(CONTENT)
    async with served.connect() as client:
        await client.send_bytes(whole[:-3])
        await round_trip(served)
        await client.send_bytes(whole[-3:])
        assert (await client.answer()).json() == STORED
        assert served.fast_answers == 0
        assert (await put(client, OTHER)).json() == STORED
        assert served.fast_answers == 1, "the one after it is whole again"


async def test_pipelined_puts_are_answered_in_their_order(served: Served) -> None:
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT) + request(OTHER, generation=7))
        assert (await client.answer()).json() == STORED
        assert (await client.answer()).code == "409 ARTIFACT_GENERATION"
    assert served.fast_answers == 0


async def test_what_is_held_is_answered_by_the_plain_path(served: Served) -> None:
    async with served.connect() as client:
        for _ in range(3):
            assert (await put(client, CONTENT)).json() == STORED
    assert served.fast_answers == 1
    assert served.puts() == 1


async def test_too_many_puts_are_refused_here_too(node: Node) -> None:
    async with serve(node, max_concurrent_puts=1) as served:
        hangs = hang_syncs(node)
        async with served.connect() as client, served.connect() as crowded:
            await client.send_bytes(request(CONTENT))
            await begun(hangs)
            assert (await put(crowded, OTHER)).code == "429 TooManyPuts"
            for hang in hangs:
                hang.let_go()
            assert (await client.answer()).json() == STORED
            assert (await put(crowded, OTHER)).json() == STORED
    assert served.fast_answers == 2


async def test_without_a_config_or_a_dataset_the_plain_path_says_so(node: Node) -> None:
    async with (
        node.open() as store,
        agent_api(store, node.root, short_puts=store.short_puts) as sled,
        RawClient.connect(sled.url) as client,
    ):
        assert (await put(client, CONTENT)).code == "400 NoConfig"
        for index in (A, B):
            await node.take_away(index)
        await store.check_datasets()
        assert (await put(client, CONTENT)).code == "503 NoDataset"


async def test_two_puts_of_one_artifact_land_one_after_the_other(
    node: Node, served: Served
) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client, served.connect() as again:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        await again.send_bytes(request(CONTENT))
        await round_trip(served)
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).json() == STORED
        assert (await again.answer()).json() == STORED
    assert served.fast_answers == 1
    assert copies(served.store) == {hash_of(CONTENT): 2}


# ---- what goes wrong on the way


async def test_g5_a_put_that_a_new_config_drops_is_refused_and_taken_back(
    node: Node, served: Served
) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        await served.store.put_config(config(2, OTHER))
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).code == "409 ARTIFACT_GENERATION"
        assert await node.names(A) == await node.names(B) == set()
        assert served.store.status().puts_running == 0
        assert (await put(client, OTHER, generation=2)).json() == STORED, "the connection is good"
    assert served.puts() == 1


async def test_b4_a_put_that_one_dataset_cannot_write_is_on_the_other(
    node: Node, served: Served
) -> None:
    node.disk(A).fail("fsync", errno.EIO, times=1, name="staging")
    async with served.connect() as client:
        assert (await put(client, CONTENT)).json() == {"datasets": 2, "successful_writes": 1}
    assert served.fast_answers == 1
    assert copies(served.store) == {hash_of(CONTENT): 1}


@pytest.mark.parametrize(
    ("error", "code"), [(errno.EIO, "500 Io"), (errno.ENOSPC, "507 QuotaExceeded")]
)
async def test_b3_a_put_that_no_dataset_can_write_is_told_so_once(
    node: Node, served: Served, error: int, code: str
) -> None:
    for index in (A, B):
        node.disk(index).fail("create", error, times=1, name="staging")
    async with served.connect() as client:
        assert (await put(client, CONTENT)).code == code
    assert served.fast_answers == served.puts() == 0
    assert reserved_bytes(served.store) == [0, 0]
    assert served.sled.events.read(0, 10).events == ()


async def test_too_few_copies_are_no_success_and_stay(node: Node) -> None:
    async with serve(node, min_copies=2) as served, served.connect() as client:
        node.disk(A).fail("create", errno.EIO, times=1, name="staging")
        assert (await put(client, CONTENT)).code == "503 TooFewCopies"
        assert copies(served.store) == {hash_of(CONTENT): 1}
        assert served.puts() == 1


# ---- clients that do other things meanwhile


async def test_what_comes_behind_a_put_waits_for_its_answer(node: Node, served: Served) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        await client.send_bytes(request(OTHER) + b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n")
        await round_trip(served)
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).json() == STORED
        assert (await client.answer()).json() == STORED
        assert (await client.answer()).status == 200
        assert (await put(client, CONTENT)).json() == STORED, "it is read from again"
    assert served.puts() == 2
    assert served.fast_answers == 1


async def test_a_client_that_ends_its_side_hears_its_answer(node: Node, served: Served) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        client.writer.write_eof()
        await round_trip(served)
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).json() == STORED
        assert await client.rest() == b""


async def test_s1_a_client_that_leaves_counts_until_its_put_has_ended(node: Node) -> None:
    limits = HttpLimits(max_connections_per_client=2)
    async with serve(node, limits=limits) as served:
        hangs = hang_syncs(node)
        async with served.connect() as client:
            await client.send_bytes(request(CONTENT))
            await begun(hangs)
            client.reset()
        await round_trip(served)
        async with served.connect() as client:
            assert (await put(client, OTHER, generation=7)).code == "409 ARTIFACT_GENERATION"
            async with served.connect() as crowd:
                assert (await crowd.answer()).code == "503 TooManyConnections"
            for hang in hangs:
                hang.let_go()
            await served.sled.activity.idle()
            assert copies(served.store) == {hash_of(CONTENT): 2}, "it is stored all the same"
            async with served.connect() as another:
                assert (await put(another, OTHER)).json() == STORED


async def test_s3_a_server_that_drains_waits_for_it_and_takes_no_other(
    node: Node, served: Served
) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client, served.connect() as late:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        draining = asyncio.create_task(served.sled.service.drain(60))
        await asyncio.sleep(0)
        assert (await put(late, OTHER)).code == "503 ShuttingDown"
        assert not draining.done()
        for hang in hangs:
            hang.let_go()
        assert (await client.answer()).json() == STORED
        await draining


async def test_s3_a_server_that_ends_waits_no_longer_than_it_may(
    node: Node, served: Served
) -> None:
    hangs = hang_syncs(node)
    async with served.connect() as client:
        await client.send_bytes(request(CONTENT))
        await begun(hangs)
        await served.sled.service.drain(0.001)
        assert (await client.answer()).code == "503 ShuttingDown"
        assert served.store.status().puts_running == 1, "the store does not stop half-way"
        for hang in hangs:
            hang.let_go()
        async with asyncio.timeout(WAIT_S):
            while served.store.status().puts_running:
                await node.names(A)
    assert copies(served.store) == {hash_of(CONTENT): 2}


async def round_trip(served: Served) -> None:
    """Let the server read what has been sent to it."""
    async with served.connect() as other:
        await other.send("GET /health/live HTTP/1.1", "Connection: close")
        assert (await other.answer()).status == 200
        await other.rest()
