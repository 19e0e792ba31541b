"""What one dataset lacks comes back from the other (B5), and no wrong byte spreads."""

from __future__ import annotations

import asyncio
import errno

import pytest

from depot.store import ArtifactStore
from tests.store.builders import (
    ONE,
    THREE,
    TWO,
    A,
    B,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    reserved_bytes,
    states,
    used_bytes,
)

BOTH = dict.fromkeys(map(hash_of, (ONE, TWO)), 2)


async def put_both(store: ArtifactStore) -> None:
    await store.put_config(config(1, ONE, TWO))
    for content in (ONE, TWO):
        await put(store, content)


@pytest.mark.parametrize("index", [A, B])
async def test_a_replaced_dataset_gets_everything_from_the_other(node: Node, index: int) -> None:
    async with node.open() as store:
        await put_both(store)
        for content in (ONE, TWO):
            await off_loop(node.file(index, content).unlink)
        await store.reconcile()
        assert store.status().under_replicated == tuple(sorted(BOTH))
        assert await store.remirror() == 2
        assert copies(store) == BOTH
        assert store.status().under_replicated == ()
        assert used_bytes(store) == [len(ONE) + len(TWO)] * 2
        assert await store.remirror() == 0
    for content in (ONE, TWO):
        assert await node.read(index, content) == content
    assert node.kinds().count("healed") == 2


async def test_a_rotten_copy_never_spreads(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await off_loop(node.file(B, ONE).unlink)
        await node.write_file(A, str(hash_of(ONE)), b"X" + ONE[1:])
        await store.reconcile()
        assert await store.remirror() == 0
        assert await node.read(B, ONE) is None
        assert copies(store) == {hash_of(TWO): 2}
        assert reserved_bytes(store) == [0, 0]
        assert (await put(store, ONE)).copies == 2


async def test_the_good_copy_heals_the_rotten_one_whichever_dataset_it_is_on(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        for index, content in ((A, ONE), (B, TWO)):
            await node.write_file(index, str(hash_of(content)), content[:-1])
        await store.reconcile()
        assert await store.remirror() == 2
        assert copies(store) == BOTH


@pytest.mark.in_threads
async def test_the_good_dataset_going_away_in_the_middle_ends_nothing_else(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        for content in (ONE, TWO):
            await off_loop(node.file(B, content).unlink)
        await store.reconcile()
        hang = node.disk(B).hang("create")
        healing = asyncio.ensure_future(store.remirror())
        await off_loop(hang.wait_begun)
        await node.take_away(A)
        await store.check_datasets()
        hang.let_go()
        assert await healing <= 1
        await node.bring_back(A)
        await store.check_datasets()
        await store.remirror()
        assert copies(store) == BOTH


@pytest.mark.in_threads
async def test_a_dataset_that_cannot_be_written_shows_as_the_reason(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await off_loop(node.file(B, ONE).unlink)
        await store.reconcile()
        node.disk(B).fail("fsync", errno.EIO)
        assert await store.remirror() == 0
        assert states(store) == ["healthy", "suspect"]
        warnings = store.status().warnings
        assert any(str(hash_of(ONE)) in warning and "EIO" in warning for warning in warnings)
        node.disk(B).heal()
        await store.check_datasets()
        assert await store.remirror() == 1
        assert not any("re-mirrored" in warning for warning in store.status().warnings)


async def test_a_dataset_without_room_shows_as_the_reason(node: Node) -> None:
    async with node.open(quota_bytes=len(ONE) + len(TWO)) as store:
        await put_both(store)
        # B lacks one artifact, and has another in its place that is wanted, too.
        await store.put_config(config(2, ONE, TWO, THREE))
        await off_loop(node.file(B, ONE).unlink)
        await node.write_file(B, str(hash_of(THREE)), THREE)
        await store.reconcile()
        assert await store.remirror() == 0
        assert states(store) == ["healthy", "healthy"]
        warnings = store.status().warnings
        assert f"{hash_of(ONE)} cannot be re-mirrored: dataset 2 is full" in warnings
        await store.put_config(config(3, ONE, TWO))
        await store.reconcile()
        assert await store.remirror() == 1
        assert not any("re-mirrored" in warning for warning in store.status().warnings)


async def test_what_no_config_wants_is_not_brought_back(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await off_loop(node.file(B, ONE).unlink)
        await store.put_config(config(2, TWO, THREE))
        assert await store.remirror() == 0
        assert await node.read(B, ONE) is None


async def test_an_artifact_nobody_has_is_not_under_replicated_but_absent(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        assert store.status().under_replicated == ()
        assert await store.remirror() == 0


async def test_the_duties_remirror_a_returned_dataset_without_being_asked(node: Node) -> None:
    healed = asyncio.Event()

    def on_event(kind: str, _fields: object) -> None:
        if kind == "healed":
            healed.set()

    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await put(store, ONE)
    opening = ArtifactStore.open(node.paths, state_dir=node.state_dir, on_event=on_event)
    async with await opening as store:
        await node.bring_back(B)
        duties = asyncio.ensure_future(store.run_duties())
        await store.check_datasets()
        await asyncio.wait_for(healed.wait(), 20)
        duties.cancel()
        with pytest.raises(asyncio.CancelledError):
            await duties
    assert await node.read(B, ONE) == ONE
