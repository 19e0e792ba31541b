"""What this sled had and is on no dataset any more is healed from a peer, or lost (B5).

What it never had is neither: it is awaited.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest

from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotCopy, NotFound
from depot.initialise import init_datasets
from depot.store import ArtifactStore
from depot.store_status import MAX_TROUBLES_NAMED
from depot.writing.stored import Stored
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
)
from tests.store.duties import done_at_the_start, running
from tests.store.test_heal import GoodPeer, healed_from

LOST = (hash_of(ONE),)


async def put_both(store: ArtifactStore) -> None:
    await store.put_config(config(1, ONE, TWO, THREE))
    for content in (ONE, TWO):
        await put(store, content)


async def remove(node: Node, content: bytes) -> None:
    for index in (A, B):
        await off_loop(node.file(index, content).unlink)


async def find_gone(store: ArtifactStore, how: str) -> None:
    if how == "scrub":
        await store.scrub()
    elif how == "reconcile":
        await store.reconcile()
    else:
        for _ in (A, B):
            with suppress(NotFound), await store.open_artifact(hash_of(ONE)):
                pytest.fail("nobody has it")


def lost(store: ArtifactStore) -> tuple[ArtifactHash, ...]:
    return store.status().healing.lost


def told_lost(node: Node) -> list[object]:
    return [fields["sha256"] for kind, fields in node.events if kind == "lost"]


@pytest.mark.parametrize("how", ["read", "scrub", "reconcile"])
async def test_b5_what_is_gone_from_both_datasets_is_lost_and_said_to_be(
    node: Node, how: str
) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, how)
        assert await store.remirror() == 0
        assert lost(store) == LOST, "what was never sent is not lost"
        assert told_lost(node) == [str(hash_of(ONE))]
        (warning,) = [each for each in store.status().warnings if "is lost" in each]
        assert "quarantine" not in warning, "nothing is left of it"
        await put(store, ONE)
        assert lost(store) == ()
        assert not [each for each in store.status().warnings if "is lost" in each]


@pytest.mark.parametrize("how", ["read", "scrub", "reconcile"])
async def test_b5_what_is_gone_from_both_datasets_comes_back_from_a_peer(
    node: Node, how: str
) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, how)
        peer = GoodPeer(store, (ONE, TWO, THREE))
        assert await store.remirror(peer) == 1
        assert peer.asked == [hash_of(ONE)], "what was never sent is not the healer's to fetch"
        assert healed_from(node) == ["peer"]
        assert lost(store) == ()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}


class OvertakenPeer:
    """Has nothing, and says so only once somebody has sent the artifact to this sled."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    async def fetch(self, _artifact: ArtifactHash, _generation: Generation) -> Stored | None:
        await put(self._store, ONE)
        raise DepotCopy("no peer has it")


async def test_what_was_sent_while_peers_were_asked_is_not_lost(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, "scrub")
        assert await store.remirror(OvertakenPeer(store)) == 0
        assert told_lost(node) == []
        assert copies(store)[hash_of(ONE)] == 2


class DroppingPeer:
    """Has nothing, and says so only once nobody wants the artifact any more."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    async def fetch(self, _artifact: ArtifactHash, _generation: Generation) -> Stored | None:
        await self._store.put_config(config(2, TWO, THREE))
        raise DepotCopy("no peer has it")


async def test_what_was_dropped_while_peers_were_asked_is_not_lost(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, "scrub")
        assert await store.remirror(DroppingPeer(store)) == 0
        assert told_lost(node) == []


async def test_s1_of_many_that_are_lost_the_warnings_name_some_and_count_the_rest(
    node: Node,
) -> None:
    contents = [b"artifact %d" % number for number in range(MAX_TROUBLES_NAMED + 7)]
    async with node.open() as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
            await remove(node, content)
        await store.reconcile()
        await store.remirror()
        assert lost(store) == tuple(sorted(map(hash_of, contents)))
        told = [each for each in store.status().warnings if "artifacts" in each or "lost" in each]
        named = [str(artifact) for artifact in lost(store)[:MAX_TROUBLES_NAMED]]
        assert [each.partition(" ")[0] for each in told[:-1]] == named
        assert told[-1].startswith("7 more artifacts")


async def test_b5_peers_are_asked_in_the_pass_that_finds_the_other_mirrors_copy_gone_too(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        with pytest.raises(NotFound):
            await store.open_artifact(hash_of(ONE), exclude=[A])
        assert hash_of(ONE) in store.status().under_replicated, "nobody has looked at the other"
        assert await store.remirror(GoodPeer(store, (ONE,))) == 1
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_b5_what_went_is_lost_after_a_restart_too(node: Node, when: str) -> None:
    async with node.open() as store:
        await put_both(store)
        if when == "before":
            await remove(node, ONE)
            await find_gone(store, "scrub")
    if when == "after":
        await remove(node, ONE)
    for _ in range(2):
        async with node.open() as store:
            await store.remirror()
            assert lost(store) == LOST


async def test_b5_what_only_a_replaced_disk_had_is_lost(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, TWO)
        await store.release_dataset(node.paths[B])
        await put(store, ONE)
        await store.attach_dataset(node.paths[B])
        await store.release_dataset(node.paths[A])
        await off_loop(shutil.rmtree, node.paths[A])
        await off_loop(node.paths[A].mkdir)
        await store.replace_dataset(node.paths[A], plain_directory=True)
        await store.remirror()
        assert lost(store) == LOST
        assert copies(store) == {hash_of(TWO): 2}


async def test_what_a_dataset_that_is_away_may_have_is_not_lost(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await store.release_dataset(node.paths[B])
        await put(store, ONE)
        await store.attach_dataset(node.paths[B])
        await store.release_dataset(node.paths[A])
        await store.remirror()
        assert lost(store) == ()
        assert "lost" not in node.kinds()
        await store.attach_dataset(node.paths[A])
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2}


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_was_deleted_and_is_wanted_again_is_not_lost(
    node: Node, restarted: bool
) -> None:
    async with node.open() as store:
        await put_both(store)
        await store.put_config(config(2, TWO, THREE))
        assert await store.reconcile() == 1
        if not restarted:
            await store.put_config(config(3, ONE, TWO, THREE))
            await store.remirror()
            assert lost(store) == ()
    if restarted:
        async with node.open() as store:
            await store.put_config(config(3, ONE, TWO, THREE))
            await store.remirror()
            assert lost(store) == ()
    assert "lost" not in node.kinds()


async def test_what_was_lost_and_is_dropped_is_awaited_when_it_is_wanted_again(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, "scrub")
        await store.remirror()
        await store.put_config(config(2, TWO, THREE))
        await store.reconcile()
        await store.put_config(config(3, ONE, TWO, THREE))
        await store.remirror()
        assert lost(store) == ()


async def test_nothing_is_lost_after_a_reset(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await remove(node, ONE)
        await find_gone(store, "scrub")
        await store.reset(config(1).generation)
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        await store.remirror()
        assert lost(store) == ()
        assert copies(store) == {hash_of(TWO): 2}


async def test_what_another_sled_had_is_not_lost_here(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
        await store.remirror()
    for path in node.paths:
        await off_loop(shutil.rmtree, path)
        await off_loop(path.mkdir)
    await off_loop(init_datasets, node.paths, sled_id="another sled")
    for _ in range(2):
        async with node.open() as store:
            await store.put_config(config(1, ONE, TWO, THREE))
            await store.remirror()
            assert store.status().sled_id == "another sled"
            assert lost(store) == ()


async def test_b5_what_is_gone_is_lost_although_the_records_cannot_be_used(node: Node) -> None:
    async with node.open() as store:
        await put_both(store)
    database = node.state_dir / "copies.sqlite3"
    await off_loop(database.write_bytes, b"not a database")
    async with node.open() as store:
        await remove(node, ONE)
        await find_gone(store, "scrub")
        await store.remirror()
        assert lost(store) == LOST
    async with node.open() as store:
        await store.remirror()
        assert lost(store) == LOST


async def test_b5_a_read_of_what_is_gone_has_it_fetched_without_another_request(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_both(store)
    going = running(node, lambda store: GoodPeer(store, (ONE,)), reconcile_interval_s=3600.0)
    async with going as (store, happened):
        await done_at_the_start(store, happened)
        await remove(node, ONE)
        await find_gone(store, "read")
        await happened.wait_for("healed", 1, **{"sha256": str(hash_of(ONE)), "from": "peer"})
        assert len(happened.of("copy_gone", sha256=str(hash_of(ONE)))) == 2
