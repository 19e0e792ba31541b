"""Puts that need no task each: which are taken, and that the others find everything as it was."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import pickle
from collections.abc import Awaitable, Callable

import pytest

from depot.artifact import ArtifactHash, Generation
from depot.dataset.publishing import Batch, Entry, Published
from depot.errors import TooLarge
from depot.store import ArtifactStore
from depot.writing.group_commit import (
    FEW,
    MOST_ENTRIES,
    Deadlines,
    Publication,
    most_of_a_batch,
)
from depot.writing.stored import Stored
from tests.store.builders import (
    ONE,
    TWO,
    A,
    B,
    Node,
    config,
    hash_of,
    put,
    put_short,
    reserved_bytes,
    used_bytes,
)
from tests.store.faulty import FaultyDisk

FILLER = bytes(3000)
CONTENT = os.urandom(2000)
OTHER = os.urandom(2000)


class FullDisk(FaultyDisk):
    """Says that nothing is left of one of the things that a filesystem counts."""

    def __init__(self, field: int) -> None:
        super().__init__()
        self._field = field

    def statvfs(self, fd: int) -> os.statvfs_result:
        found = list(super().statvfs(fd))
        found[self._field] = 0
        return os.statvfs_result(found)


async def take(store: ArtifactStore, content: bytes) -> Stored | None:
    return await put_short(store, hash_of(content), Generation(1), content)


async def is_left_to_the_ordinary_way(store: ArtifactStore, content: bytes, copies: int) -> None:
    before = used_bytes(store)
    assert await take(store, content) is None
    assert (used_bytes(store), reserved_bytes(store)) == (before, [0, 0])
    assert (await put(store, content)).copies == copies
    assert reserved_bytes(store) == [0, 0]


async def quota(node: Node, index: int) -> None:
    await node.write_file(index, str(hash_of(FILLER)), FILLER)


async def blocks(node: Node, index: int) -> None:
    f_bavail = 4
    node.disks[node.paths[index]] = FullDisk(f_bavail)


async def inodes(node: Node, index: int) -> None:
    f_favail = 7
    node.disks[node.paths[index]] = FullDisk(f_favail)


@pytest.mark.parametrize("index", [A, B])
@pytest.mark.parametrize("lack", [quota, blocks, inodes])
async def test_q1_it_is_not_taken_where_a_dataset_has_no_room(
    node: Node, lack: Callable[[Node, int], Awaitable[None]], index: int
) -> None:
    await lack(node, index)
    async with node.open(quota_bytes=4000) as store:
        await store.put_config(config(1, FILLER, CONTENT))
        await is_left_to_the_ordinary_way(store, CONTENT, 1)


async def test_one_that_is_too_long_is_left_to_be_refused(node: Node) -> None:
    async with node.open(max_artifact_size_bytes=len(CONTENT) - 1) as store:
        await store.put_config(config(1, CONTENT))
        assert await take(store, CONTENT) is None
        with pytest.raises(TooLarge):
            await put(store, CONTENT)


async def test_it_is_not_taken_where_the_quarantine_has_to_yield_first(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO, CONTENT))
        await put(store, ONE)
        await node.write_file(A, str(hash_of(ONE)), bytes(len(ONE)))
        await put(store, ONE)
        assert "quarantined" in node.kinds()
        node.disk(A).fill_up()
        assert (await put(store, TWO)).copies == 1
        node.disk(A).heal()
        await is_left_to_the_ordinary_way(store, CONTENT, 2)


async def test_it_is_not_taken_where_there_is_a_copy(node: Node) -> None:
    await node.write_file(B, str(hash_of(CONTENT)), CONTENT)
    async with node.open() as store:
        await store.put_config(config(1, CONTENT))
        await is_left_to_the_ordinary_way(store, CONTENT, 2)


async def test_it_is_taken_where_a_dataset_is_away(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, CONTENT))
        await node.take_away(A)
        await store.check_datasets()
        assert await take(store, CONTENT) == Stored(datasets=1, copies=1)
        await node.bring_back(A)


async def test_of_two_that_begin_together_the_second_finds_the_room_that_the_first_has_left(
    node: Node,
) -> None:
    async with node.open(quota_bytes=3500) as store:
        await store.put_config(config(1, CONTENT, OTHER))
        first, second = await asyncio.gather(take(store, CONTENT), take(store, OTHER))
        assert (first, second) == (Stored(datasets=2, copies=2), None)
        assert (used_bytes(store), reserved_bytes(store)) == ([len(CONTENT)] * 2, [0, 0])


# Batches


@pytest.mark.parametrize(
    ("under_way", "most"),
    [(1, FEW), (FEW, FEW), (2 * FEW + 2, FEW + 1), (101, 51), (10 * MOST_ENTRIES, MOST_ENTRIES)],
)
def test_behind_a_quick_batch_half_of_what_is_under_way_is_left_to_the_one_after(
    under_way: int, most: int
) -> None:
    assert most_of_a_batch(under_way, 0.0) == most


@pytest.mark.parametrize("took_s", [0.5, math.inf])
def test_b4_behind_a_batch_that_took_long_nothing_waits_for_another_one(took_s: float) -> None:
    assert most_of_a_batch(100, took_s) == 100
    assert most_of_a_batch(10 * MOST_ENTRIES, took_s) == MOST_ENTRIES


async def test_all_that_come_together_are_one_batch_as_long_as_none_was_quick(node: Node) -> None:
    contents = [b"content %d" % each for each in range(4 * FEW)]
    async with node.open(max_concurrent_puts=len(contents)) as store:
        await store.put_config(config(1, *contents))
        disk = node.disk(A)
        disk.calls.clear()
        stored = await asyncio.gather(*(take(store, content) for content in contents))
        assert stored == [Stored(datasets=2, copies=2)] * len(contents)
        # Of each batch the names are made durable once, when all are given.
        calls = [call for call, _ in disk.calls if call in ("rename", "fsync_directory")]
        assert calls == ["rename"] * len(contents) + ["fsync_directory"]


async def test_a_publication_that_has_ended_is_not_told_again_that_it_is_too_late() -> None:
    told: list[Publication] = []
    publication = Publication((), 2, Deadlines(0.0), told.append)
    for index in (A, B):
        publication.has_come(index, Published(None))
    publication.too_late()
    await asyncio.sleep(0)
    assert told == [publication]


async def test_nobody_is_too_late_as_long_as_no_other_has_it() -> None:
    told: list[Publication] = []
    publication = Publication((), 2, Deadlines(0.0), told.append)
    publication.has_come(A, OSError(errno.EIO, "failed"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == []
    publication.has_come(B, Published(None))
    assert told == [publication]


def test_entries_cross_to_another_process_as_they_are() -> None:
    there_was = Entry(hash_of(ONE), "", ONE, aside=f"{hash_of(ONE)}.1.replaced")
    was_staged = Entry(hash_of(TWO), "staged", b"", aside=None)
    batch = Batch([there_was, was_staged])
    crossed = pickle.loads(pickle.dumps(batch))
    assert crossed == batch
    assert {type(each) for each in crossed} == {Entry}
    assert {type(each.artifact) for each in crossed} == {ArtifactHash}
    assert pickle.loads(pickle.dumps(Batch())) == Batch()
