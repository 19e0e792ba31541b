"""Copies that fail while they are compressed: the stream is right, or it has no end (B2).

Over a fake store with a disk that fails, and over the real one, whose files are hurt.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.http.pump import Pump
from depot.reading.reader import VerifyReads
from tests.fakes import FakeStore, FaultyDisk
from tests.http.servers import serve
from tests.http.test_verified_reads import flip, hurt, truncate, zero
from tests.http.zstd import MIB, TEXT, ask, cut_short, decode, is_encoded
from tests.store.builders import A, B, Node, config, copies, hash_of, put

EIO = OSError(errno.EIO, "injected")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    store = FakeStore(tmp_path)
    yield store
    assert store.open_descriptors() == 0, "a file was left open"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


@asynccontextmanager
async def depot(store: FakeStore, pump: Pump) -> AsyncIterator[str]:
    async with serve(depot_app(store, pump=pump, compressor=Compressor())) as service:
        yield service.url


def on(mirrors: set[str], error: OSError) -> Callable[[str], None]:
    def fault(mirror: str) -> None:
        if mirror in mirrors:
            raise error

    return fault


@pytest.mark.parametrize("fails_at", [0, 1, 3 * MIB + 7, len(TEXT) - 1])
async def test_b2_a_read_error_is_left_for_the_other_mirror_within_the_stream(
    store: FakeStore, fails_at: int
) -> None:
    artifact = await store.add(TEXT)
    pump = Pump(read=FaultyDisk(fails_at, on({"m2-a"}, EIO)).read)
    async with depot(store, pump) as url:
        answer = await ask(url, artifact)
    assert (is_encoded(answer), decode(answer.body) == TEXT) == (True, True)
    assert store.failures[0] == (0, EIO)


async def test_b4_a_read_that_hangs_is_left_for_the_other_mirror(store: FakeStore) -> None:
    artifact = await store.add(TEXT)
    release = threading.Event()

    def hang(mirror: str) -> None:
        if mirror == "m2-a":
            release.wait(60)

    pump = Pump(read=FaultyDisk(3 * MIB, hang).read, read_timeout_s=0.05)
    async with depot(store, pump) as url:
        answer = await ask(url, artifact)
        release.set()
    assert (is_encoded(answer), decode(answer.body) == TEXT) == (True, True)
    assert {(dataset, error.errno) for dataset, error in store.failures} == {(0, errno.ETIMEDOUT)}


async def test_b2_with_no_good_copy_left_the_chunks_have_no_end(store: FakeStore) -> None:
    artifact = await store.add(TEXT)
    # Judged while all was well: what follows fails under way, not before the head.
    compressor = Compressor()
    async with serve(depot_app(store, compressor=compressor)) as service:
        assert is_encoded(await ask(service.url, artifact))
        pump = Pump(read=FaultyDisk(3 * MIB, on({"m2-a", "m2-b"}, EIO)).read)
        async with serve(depot_app(store, pump=pump, compressor=compressor)) as failing:
            decoded = await cut_short(failing.url, artifact)
    assert len(decoded) <= 3 * MIB
    assert TEXT.startswith(decoded)
    assert [dataset for dataset, _ in store.failures] == [0, 1]


async def test_no_good_copy_is_a_refusal_when_the_samples_tell(store: FakeStore) -> None:
    artifact = await store.add(TEXT)
    pump = Pump(read=FaultyDisk(0, on({"m2-a", "m2-b"}, EIO)).read)
    async with depot(store, pump) as url:
        answer = await ask(url, artifact)
    assert (answer.status, answer.json()["error_code"]) == (404, "NotFound")


# ---- copies that rot, over the real store


@asynccontextmanager
async def real_depot(node: Node, *contents: bytes) -> AsyncIterator[str]:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        async with serve(depot_app(store, compressor=Compressor())) as service:
            yield service.url
            assert copies(store) != {hash_of(TEXT): 2}, "the damage was not noticed"


@pytest.mark.parametrize(
    "harm", [flip(0), flip(-1), flip(2 * MIB + 5), zero(2), truncate(3 * MIB + 5), truncate(0)]
)
async def test_b2_a_bad_block_comes_from_the_other_mirror_and_never_into_the_stream(
    node: Node, harm: Callable[[bytearray], bytearray]
) -> None:
    async with real_depot(node, TEXT) as url:
        await hurt(node, A, TEXT, harm)
        answer = await ask(url, hash_of(TEXT))
        assert (is_encoded(answer), decode(answer.body) == TEXT) == (True, True)


async def test_b2_mirrors_that_are_bad_in_different_blocks_still_make_a_whole_stream(
    node: Node,
) -> None:
    async with real_depot(node, TEXT) as url:
        for block in (0, 2, 4):
            await hurt(node, A, TEXT, zero(block))
        for block in (1, 3):
            await hurt(node, B, TEXT, zero(block))
        answer = await ask(url, hash_of(TEXT))
        assert (is_encoded(answer), decode(answer.body) == TEXT) == (True, True)


async def test_b2_both_bad_in_the_same_block_is_never_a_clean_end(node: Node) -> None:
    async with real_depot(node, TEXT) as url:
        assert is_encoded(await ask(url, hash_of(TEXT)))
        await hurt(node, A, TEXT, flip(3 * MIB))
        await hurt(node, B, TEXT, flip(3 * MIB + 1))
        decoded = await cut_short(url, hash_of(TEXT))
        assert len(decoded) <= 3 * MIB
        assert TEXT.startswith(decoded)
