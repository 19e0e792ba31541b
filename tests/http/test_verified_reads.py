"""What leaves the depot is checked by block; a bad block comes from the other mirror (B2).

The real store and the real depot app; the files are hurt behind the store's back, and keep their
modification times, as rot does.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from depot.device.host import DeviceWorkers
from depot.http.depot_api import depot_app
from depot.http.hot_artifacts import HotArtifacts
from depot.http.pump import Pump
from depot.http.way import Way
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from tests.http.raw import Answer, RawClient
from tests.http.servers import serve
from tests.store.builders import MIB, A, B, Node, config, copies, hash_of, off_loop, put

LARGE = random.Random(3).randbytes(5 * MIB + 4321)
MEDIUM = random.Random(4).randbytes(300 << 10)
SMALL = random.Random(5).randbytes(40 << 10)

Harm = Callable[[bytearray], bytearray]


def flip(offset: int) -> Harm:
    def harm(content: bytearray) -> bytearray:
        content[offset] ^= 0x10
        return content

    return harm


def zero(block: int) -> Harm:
    def harm(content: bytearray) -> bytearray:
        content[block * MIB : (block + 1) * MIB] = bytes(len(content[block * MIB :][:MIB]))
        return content

    return harm


def truncate(size_bytes: int) -> Harm:
    return lambda content: content[:size_bytes]


def swap(content: bytearray) -> bytearray:
    """Another file of the same size."""
    return content[::-1]


HARMS = {
    "a bit flipped in the first byte": flip(0),
    "a bit flipped in the last byte": flip(-1),
    "a bit flipped at the end of a block": flip(2 * MIB - 1),
    "a block zeroed": zero(2),
    "the last block zeroed": zero(5),
    "truncated inside a block": truncate(3 * MIB + 5),
    "truncated to whole blocks": truncate(MIB),
    "empty": truncate(0),
    "another file": swap,
}
SMALL_HARMS = {"a bit flipped": flip(77), "truncated": truncate(99), "another file": swap}


async def hurt(node: Node, index: int, content: bytes, harm: Harm) -> None:
    """Change a copy where it lies; its modification time stays."""

    def change() -> None:
        path = node.file(index, content)
        before = path.stat()
        harmed = harm(bytearray(path.read_bytes()))
        path.chmod(0o644)
        path.write_bytes(harmed)
        path.chmod(0o444)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    await off_loop(change)


@asynccontextmanager
async def depot(
    node: Node, *contents: bytes, verify_reads: str = "always", way: Way = Way.AUTO
) -> AsyncIterator[tuple[ArtifactStore, str]]:
    """A stocked store and the address of its depot."""
    async with node.open(verify_reads=VerifyReads(verify_reads)) as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        app = depot_app(store, pump=Pump(way=way), hot=HotArtifacts())
        async with serve(app) as service:
            yield store, service.url


def line(content: bytes, method: str = "GET") -> str:
    return f"{method} /artifact/sha256/{hash_of(content)} HTTP/1.1"


async def ask(url: str, content: bytes, *headers: str) -> Answer:
    async with RawClient.connect(url) as client:
        await client.send(line(content), *headers)
        return await client.answer()


async def ask_range(url: str, content: bytes, start: int, end: int) -> Answer:
    return await ask(url, content, f"Range: bytes={start}-{end - 1}")


async def ask_in_vain(url: str, content: bytes) -> tuple[int, int, bytes]:
    """Status, announced length, and what came before the connection was cut."""
    async with RawClient.connect(url) as client:
        await client.send(line(content))
        status, headers = await client.head()
        return status, int(headers["content-length"]), await client.rest()


async def drop_digests(node: Node) -> None:
    """Lose the block digests of LARGE on both datasets; their calls are counted from now on."""
    for path in node.paths:
        await off_loop((path / ".sled-depot/blocks" / str(hash_of(LARGE))).unlink)
    for index in (A, B):
        node.disk(index).calls.clear()


def artifact_reads(node: Node) -> list[tuple[str, str]]:
    called = [call for index in (A, B) for call in node.disk(index).calls]
    return [call for call in called if "read" in call[0] and str(hash_of(LARGE)) in call[1]]


@pytest.fixture(params=list(DeviceWorkers), ids=str)
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    made = Node.make(tmp_path)
    made.workers = request.param
    return made


async def test_rot_is_told_with_its_dataset_and_not_as_an_error_of_the_device(
    node: Node, logged: list[MutableMapping[str, Any]]
) -> None:
    async with depot(node, LARGE) as (_, url):
        await hurt(node, A, LARGE, flip(MIB))
        assert (await ask(url, LARGE)).status == 200
    (told,) = [each for each in logged if each["event"] == "artifact copy failed while it was sent"]
    assert told["dataset"] == str(node.paths[A])
    assert told["reason"] == f"the block at byte {MIB} does not match its digest"


@pytest.mark.parametrize("verify_reads", ["always", "auto"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
async def test_b2_a_bad_block_comes_from_the_other_mirror_within_the_same_response(
    node: Node, harm: Harm, verify_reads: str
) -> None:
    async with depot(node, LARGE, verify_reads=verify_reads) as (store, url):
        await hurt(node, A, LARGE, harm)
        answer = await ask(url, LARGE)
        assert (answer.status, answer.body == LARGE) == (200, True)
        assert copies(store) == {hash_of(LARGE): 1}, "the bad copy is counted"
        assert await store.remirror() == 1
        assert copies(store) == {hash_of(LARGE): 2}
        assert await node.read(A, LARGE) == LARGE


@pytest.mark.parametrize("content", [MEDIUM, SMALL], ids=["streamed", "in memory"])
@pytest.mark.parametrize("harm", SMALL_HARMS.values(), ids=SMALL_HARMS.keys())
async def test_b2_an_artifact_of_one_block_is_checked_too(
    node: Node, content: bytes, harm: Harm
) -> None:
    async with depot(node, content) as (store, url):
        await hurt(node, A, content, harm)
        answer = await ask(url, content)
        assert (answer.status, answer.body == content) == (200, True)
        assert copies(store) == {hash_of(content): 1}
        assert await store.remirror() == 1
        assert await node.read(A, content) == content


@pytest.mark.parametrize("content", [LARGE, MEDIUM, SMALL], ids=["large", "medium", "small"])
async def test_b2_a_copy_that_was_truncated_while_nobody_looked_is_not_taken_for_the_whole(
    node: Node, content: bytes
) -> None:
    async with depot(node, content):
        pass
    await hurt(node, A, content, truncate(len(content) // 2))
    async with (
        node.open(verify_reads=VerifyReads.ALWAYS) as store,
        serve(depot_app(store)) as service,
    ):
        answer = await ask(service.url, content)
        assert (answer.status, answer.body == content) == (200, True)
        assert copies(store) == {hash_of(content): 1}
        assert await store.remirror() == 1
        assert await node.read(A, content) == content


async def test_b2_a_long_range_with_a_bad_block_is_exact(node: Node) -> None:
    start, end = MIB - 7, 4 * MIB + 9
    async with depot(node, LARGE) as (store, url):
        await hurt(node, A, LARGE, flip(2 * MIB + 5))
        answer = await ask_range(url, LARGE, start, end)
        assert (answer.status, answer.body == LARGE[start:end]) == (206, True)
        assert copies(store) == {hash_of(LARGE): 1}


@pytest.mark.parametrize(
    ("start", "end"), [(MIB, 2 * MIB), (MIB + 3, MIB + 10), (0, 2 * MIB), (3 * MIB, len(LARGE))]
)
async def test_a_range_reads_and_checks_only_its_blocks(node: Node, start: int, end: int) -> None:
    async with depot(node, LARGE) as (store, url):
        await hurt(node, A, LARGE, zero(2))
        answer = await ask_range(url, LARGE, start, end)
        assert (answer.status, answer.body == LARGE[start:end]) == (206, True)
        assert copies(store) == {hash_of(LARGE): 2}, "a block outside the range was looked at"


@pytest.mark.parametrize("verify_reads", ["always", "auto"])
async def test_b2_mirrors_that_are_bad_in_different_blocks_still_make_a_whole(
    node: Node, verify_reads: str
) -> None:
    async with depot(node, LARGE, verify_reads=verify_reads) as (store, url):
        for block in (0, 2, 4):
            await hurt(node, A, LARGE, zero(block))
        for block in (1, 3):
            await hurt(node, B, LARGE, zero(block))
        answer = await ask(url, LARGE)
        assert (answer.status, answer.body == LARGE) == (200, True)
        assert copies(store) == {}, "neither copy is a good one"


async def test_b2_a_small_range_is_made_of_two_mirrors_too(node: Node) -> None:
    start, end = 2 * MIB - 100, 2 * MIB + 100
    async with depot(node, LARGE) as (_, url):
        await hurt(node, A, LARGE, zero(1))
        await hurt(node, B, LARGE, zero(2))
        answer = await ask_range(url, LARGE, start, end)
        assert (answer.status, answer.body == LARGE[start:end]) == (206, True)


async def test_b2_both_bad_in_the_same_block_is_never_a_clean_end(node: Node) -> None:
    async with depot(node, LARGE) as (store, url):
        await hurt(node, A, LARGE, flip(3 * MIB))
        await hurt(node, B, LARGE, flip(3 * MIB + 1))
        status, announced_bytes, received = await ask_in_vain(url, LARGE)
        assert (status, announced_bytes) == (200, len(LARGE))
        assert received == LARGE[: 3 * MIB], "a byte of the bad block left"
        assert copies(store) == {}
        again = await ask(url, LARGE)
        assert (again.status, again.json()["error_code"]) == (404, "NotFound")
        assert again.json()["details"] == {"damaged": 2}


async def test_b2_both_bad_is_a_refusal_when_nothing_was_sent(node: Node) -> None:
    async with depot(node, SMALL) as (_, url):
        for index in (A, B):
            await hurt(node, index, SMALL, flip(index))
        answer = await ask(url, SMALL)
        assert (answer.status, answer.json()["details"]) == (404, {"damaged": 2})


async def test_many_readers_of_a_bad_copy_all_get_the_named_bytes(node: Node) -> None:
    async with depot(node, LARGE) as (store, url):
        await hurt(node, A, LARGE, flip(MIB))
        answers = await asyncio.gather(*(ask(url, LARGE) for _ in range(6)))
        assert all(answer.body == LARGE for answer in answers)
        assert copies(store) == {hash_of(LARGE): 1}


@pytest.mark.parametrize(
    ("method", "condition", "status"),
    [
        ("HEAD", "If-None-Match: *", 304),
        ("GET", "If-None-Match: *", 304),
        ("GET", f'If-None-Match: "x", "sha256:{hash_of(LARGE)}"', 304),
        ("GET", 'If-Match: "x"', 412),
    ],
)
async def test_an_answer_without_content_reads_no_artifact_also_when_its_digests_are_gone(
    node: Node, method: str, condition: str, status: int
) -> None:
    async with depot(node, LARGE) as (_, url):
        await drop_digests(node)
        async with RawClient.connect(url) as client:
            await client.send(line(LARGE, method), condition)
            assert (await client.head())[0] == status
        assert not artifact_reads(node)


async def test_a_condition_that_does_not_hold_the_answer_back_changes_nothing_of_the_check(
    node: Node,
) -> None:
    async with depot(node, LARGE) as (store, url):
        await hurt(node, A, LARGE, flip(MIB))
        answer = await ask(url, LARGE, 'If-None-Match: "x"')
        assert (answer.status, answer.body == LARGE) == (200, True)
        assert copies(store) == {hash_of(LARGE): 1}


async def test_head_reads_no_artifact_also_when_its_digests_are_gone(node: Node) -> None:
    async with depot(node, LARGE) as (_, url):
        await drop_digests(node)
        async with RawClient.connect(url) as client:
            await client.send(line(LARGE, "HEAD"))
            answer = await client.answer(has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(LARGE)))
        assert not artifact_reads(node)


@pytest.mark.parametrize(("verify_reads", "spliced"), [("never", True), ("always", False)])
async def test_no_byte_passes_through_memory_where_no_check_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify_reads: str, spliced: bool
) -> None:
    sent_bytes = 0
    splice = os.splice

    def counting(source: int, target: int, count: int, **offsets: int) -> int:
        nonlocal sent_bytes
        moved_bytes = splice(source, target, count, **offsets)
        if not offsets:  # out of a pipe, and not into it from a file
            sent_bytes += moved_bytes
        return moved_bytes

    monkeypatch.setattr(os, "splice", counting)
    node = await off_loop(Node.make, tmp_path)
    async with depot(node, LARGE, verify_reads=verify_reads, way=Way.SPLICE) as (_, url):
        assert (await ask(url, LARGE)).body == LARGE
    assert sent_bytes == len(LARGE) * spliced
