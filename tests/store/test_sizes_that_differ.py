"""Copies of one artifact that differ in size: which is whole is not known without reading them.

With records a file that lost its bytes is known for what it is. Without them, or for a file that is
in none, only the other dataset's copy tells that something is wrong, and not with which of the two.
"""

from __future__ import annotations

import errno
import random

import pytest

from depot.scrub.copy_database import FILE_NAME
from depot.store import ArtifactStore
from tests.store.builders import (
    MIB,
    ONE,
    TWO,
    A,
    B,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    read_back,
)
from tests.store.damage import Harm, hurt, quarantined, truncate
from tests.store.duties import running
from tests.store.test_heal import GoodPeer, assert_whole, stock

LARGE = random.Random(21).randbytes(2 * MIB + 77)
HARMS: dict[str, Harm] = {
    "short": truncate(5),
    "a block short": truncate(MIB),
    "long": lambda content: content + b"x",
}
harms = pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
each = pytest.mark.parametrize("index", [A, B])


async def forget_records(node: Node) -> None:
    for ending in ("", "-wal", "-shm"):
        path = node.state_dir / f"{FILE_NAME}{ending}"
        await off_loop(path.unlink, missing_ok=True)


async def spoil(node: Node, harms: dict[int, Harm]) -> None:
    """Have LARGE and ONE on both datasets, some files of LARGE spoilt, and no record of any."""
    async with node.open() as store:
        await stock(store, ONE, LARGE)
    for index, harm in harms.items():
        await hurt(node, index, LARGE, harm)
    await forget_records(node)


def in_doubt(store: ArtifactStore) -> list[int]:
    return [dataset.in_doubt for dataset in store.status().datasets]


def counted(store: ArtifactStore) -> int:
    """How many copies of LARGE the list says there are; all others have all of theirs."""
    said = copies(store)
    number = said.pop(hash_of(LARGE), 0)
    assert set(said.values()) == {2}
    assert (hash_of(LARGE) in store.status().under_replicated) == (number < 2)
    return number


async def assert_healed(node: Node, store: ArtifactStore, good: dict[int, int]) -> None:
    """Every copy is whole, the file that was `good`, by its inode, has not been touched."""
    assert counted(store) == 2
    assert in_doubt(store) == [0, 0]
    await assert_whole(node, ONE, LARGE)
    assert {index: await node.inode(index, LARGE) for index in good} == good


@each
@harms
async def test_b6_of_copies_that_differ_in_size_none_counts_before_one_was_verified(
    node: Node, index: int, harm: Harm
) -> None:
    await spoil(node, {index: harm})
    good = {1 - index: await node.inode(1 - index, LARGE)}
    async with node.open() as store:
        assert counted(store) == 0
        assert in_doubt(store) == [1, 1]
        assert [c.present for c in (await store.describe(hash_of(LARGE))).copies] == [False] * 2
        assert store.status().healing.todo_bytes >= 0
        await store.check_datasets()
        await store.reconcile()
        assert counted(store) == 0, "before anything was read"
        await store.scrub()
        assert counted(store) == 1
        assert in_doubt(store) == [0, 0]
        await store.remirror()
        await assert_healed(node, store, good)
    assert len(await quarantined(node, index, LARGE)) == 1


@each
@harms
async def test_b5_they_are_verified_and_healed_without_a_scrub(
    node: Node, index: int, harm: Harm
) -> None:
    await spoil(node, {index: harm})
    good = {1 - index: await node.inode(1 - index, LARGE)}
    async with node.open() as store:
        assert await store.remirror() == 1
        await assert_healed(node, store, good)


async def test_b5_they_are_verified_and_healed_without_a_request(node: Node) -> None:
    await spoil(node, {A: truncate(MIB)})
    good = {B: await node.inode(B, LARGE)}
    async with running(node) as (store, happened):
        await happened.wait_for("healed")
        await assert_healed(node, store, good)


@each
async def test_a_read_gives_the_whole_one_and_settles_which_that_is(node: Node, index: int) -> None:
    await spoil(node, {index: truncate(5)})
    async with node.open() as store:
        assert await read_back(store, LARGE) == LARGE
        assert counted(store) == 1
        assert in_doubt(store) == [0, 0]


async def test_b6_where_none_is_whole_none_counts_and_a_peer_heals_both(node: Node) -> None:
    await spoil(node, {A: truncate(5), B: truncate(MIB)})
    async with node.open() as store:
        assert counted(store) == 0
        await store.remirror()
        assert hash_of(LARGE) not in copies(store)
        assert [dataset.quarantined for dataset in store.status().datasets] == [1, 1]
        await store.remirror(GoodPeer(store, (LARGE,)))
        await assert_healed(node, store, {})


@each
async def test_b6_a_dataset_that_comes_later_puts_both_in_doubt(node: Node, index: int) -> None:
    await spoil(node, {index: truncate(5)})
    good = {1 - index: await node.inode(1 - index, LARGE)}
    await node.take_away(B)
    async with node.open() as store:
        assert copies(store) == {hash_of(ONE): 1, hash_of(LARGE): 1}
        await node.bring_back(B)
        await store.check_datasets()
        assert counted(store) == 0
        assert in_doubt(store) == [1, 1]
        await store.remirror()
        await assert_healed(node, store, good)


async def test_a_copy_that_was_verified_counts_whatever_size_another_has(node: Node) -> None:
    await spoil(node, {B: truncate(5)})
    await node.take_away(B)
    async with node.open() as store:
        await store.scrub()
        await node.bring_back(B)
        await store.check_datasets()
        assert counted(store) == 1
        assert in_doubt(store) == [0, 1]


async def test_b6_a_file_that_appears_is_compared_with_the_other_copy_too(node: Node) -> None:
    async with node.open() as store:
        await stock(store, ONE, LARGE)
        await off_loop(node.file(B, LARGE).unlink)
        await store.reconcile()
        assert counted(store) == 1
        await node.write_file(B, str(hash_of(LARGE)), LARGE[:5])
        await store.reconcile()
        assert counted(store) == 1
        assert in_doubt(store) == [0, 1]
        await store.remirror()
        await assert_healed(node, store, {})


async def test_room_that_comes_back_settles_nothing(node: Node) -> None:
    await spoil(node, {A: truncate(5)})
    async with node.open() as store:
        await store.put_config(config(2, ONE, TWO, LARGE))
        node.disk(A).fail("write", errno.ENOSPC, times=1)
        assert (await put(store, TWO, generation=2)).copies == 1
        assert store.status().datasets[A].full
        await store.check_datasets()
        assert not store.status().datasets[A].full
        assert in_doubt(store) == [1, 1]


async def test_what_is_in_doubt_here_stays_so_when_the_other_copy_goes_away(node: Node) -> None:
    await spoil(node, {A: truncate(5)})
    async with node.open() as store:
        await node.take_away(B)
        await store.check_datasets()
        assert copies(store) == {hash_of(ONE): 1}
        await store.remirror()
        await node.bring_back(B)
        await store.check_datasets()
        await store.remirror()
        await assert_healed(node, store, {})
