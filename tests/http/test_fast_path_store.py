"""What the store finds out is known to the fast path at once, whatever memory it answers from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

import pytest

from depot.device.host import DeviceWorkers
from depot.http.hot_artifacts import HotArtifacts
from depot.store import ArtifactStore
from tests.http.raw import RawClient
from tests.http.test_fast_path import OTHER, SMALL, Depot, ask, depot
from tests.http.test_verified_reads import flip, hurt, truncate
from tests.needs import need_page_cache
from tests.store.builders import A, B, Node, config, hash_of, off_loop, put


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


class Memory(StrEnum):
    """What answers at once."""

    OURS = "ours"
    KERNEL = "kernel"

    def keeps(self) -> HotArtifacts:
        return HotArtifacts() if self is Memory.OURS else HotArtifacts(0)

    async def prepare(self, node: Node) -> None:
        if self is Memory.KERNEL:
            await off_loop(need_page_cache, node.root)
            node.workers = DeviceWorkers.PROCESS


memories = pytest.mark.parametrize("memory", Memory)


@asynccontextmanager
async def real_depot(
    node: Node, *contents: bytes, memory: Memory = Memory.OURS
) -> AsyncIterator[tuple[Depot, RawClient, ArtifactStore]]:
    """A depot on a real store that holds `contents`, all of them in memory."""
    await memory.prepare(node)
    async with node.open() as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        async with (
            depot(store, hot=memory.keeps()) as served,
            served.warm(*contents) as client,
        ):
            for content in contents:
                assert await served.is_fast(client, content)
            yield served, client, store


@memories
async def test_what_was_deleted_is_not_given_away_any_more(node: Node, memory: Memory) -> None:
    async with real_depot(node, SMALL, OTHER, memory=memory) as (served, client, store):
        await store.put_config(config(2, SMALL))
        assert (await ask(client, OTHER)).status == 200, "it is still there"
        await store.reconcile()
        assert (await ask(client, OTHER)).code == "404 NotFound"
        assert await served.is_at_once(client, SMALL)


@memories
async def test_what_was_deleted_and_stored_again_is_there_again(node: Node, memory: Memory) -> None:
    async with real_depot(node, SMALL, OTHER, memory=memory) as (served, client, store):
        await store.put_config(config(2, SMALL))
        await store.reconcile()
        assert (await ask(client, OTHER)).code == "404 NotFound"
        await store.put_config(config(3, SMALL, OTHER))
        await put(store, OTHER, generation=3)
        assert await served.is_at_once(client, OTHER)


async def test_b6_what_is_known_to_be_damaged_everywhere_is_not_given_away(node: Node) -> None:
    async with real_depot(node, SMALL) as (served, client, store):
        for index in (A, B):
            await hurt(node, index, SMALL, flip(3))
        assert await served.is_fast(client, SMALL), "the bytes that are kept are good"
        await store.scrub()
        answer = await ask(client, SMALL)
        assert answer.code == "404 NotFound"
        assert answer.json()["details"] == {"damaged": 2}


@memories
async def test_b5_a_rotten_copy_is_found_and_healed_behind_good_bytes(
    node: Node, memory: Memory
) -> None:
    async with real_depot(node, SMALL, memory=memory) as (served, client, store):
        await hurt(node, A, SMALL, flip(3))
        await store.scrub()
        assert await served.is_at_once(client, SMALL)
        assert await store.remirror() == 1
        assert await node.read(A, SMALL) == SMALL
        assert await served.is_at_once(client, SMALL)


@memories
async def test_copies_of_different_sizes_are_for_the_plain_path_to_judge(
    node: Node, memory: Memory
) -> None:
    await memory.prepare(node)
    async with node.open() as store:
        await store.put_config(config(1, SMALL))
        await put(store, SMALL)
    await hurt(node, B, SMALL, truncate(9))
    # With what is remembered, a start knows which of them is short.
    await asyncio.to_thread((node.state_dir / "copies.sqlite3").unlink)
    async with node.open() as store:
        holdings = store.holdings()
        assert holdings.size_of(hash_of(SMALL)) is None
        async with depot(store, hot=memory.keeps()) as served, served.warm(SMALL) as client:
            assert holdings.size_of(hash_of(SMALL)) == len(SMALL), "the short one was found out"
            assert await served.is_at_once(client, SMALL)


@memories
async def test_without_a_dataset_nothing_is_given_away(node: Node, memory: Memory) -> None:
    async with real_depot(node, SMALL, memory=memory) as (served, client, store):
        await node.take_away(A)
        await store.check_datasets()
        assert await served.is_at_once(client, SMALL), "the other has it"
        await node.take_away(B)
        await store.check_datasets()
        assert (await ask(client, SMALL)).code == "503 NoDataset"
        await node.bring_back(B)
        await store.check_datasets()
        assert (await ask(client, SMALL)).code == "200"


@memories
async def test_a_released_dataset_is_not_served_from_memory(node: Node, memory: Memory) -> None:
    async with real_depot(node, SMALL, memory=memory) as (served, client, store):
        await store.release_dataset(node.paths[A])
        assert await served.is_at_once(client, SMALL), "the other has it"
        await store.release_dataset(node.paths[B], last=True)
        assert (await ask(client, SMALL)).code == "503 NoDataset"
