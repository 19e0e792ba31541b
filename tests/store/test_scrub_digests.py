"""A scrub reads every copy whole: block digests that are missing by then are made up for by it."""

from __future__ import annotations

import errno

import pytest

from depot.store import ArtifactStore
from tests.store.builders import A, B, Node, copies, hash_of, off_loop, states
from tests.store.damage import Harm, flip, hurt, truncate, zero
from tests.store.faulty import HANG_S
from tests.store.test_verified_reads import (
    LARGE,
    ONE_BLOCK,
    OTHER,
    SPOILT,
    Spoil,
    StutteringDisk,
    digest_file,
    keeps_right_ones,
    kept,
    spoil,
    stock,
)

REMOVED = SPOILT["missing"]


async def spoil_all(node: Node, how: Spoil = REMOVED, indexes: tuple[int, ...] = (A, B)) -> None:
    for index in indexes:
        await spoil(node, index, how)


async def bad_found(store: ArtifactStore) -> list[int]:
    return [scrub.bad for scrub in await store.scrub()]


# ---- what is missing


@pytest.mark.parametrize("indexes", [(A,), (B,), (A, B)], ids=["first", "second", "both"])
async def test_a_scrub_makes_up_for_missing_digests_on_every_mirror(
    node: Node, indexes: tuple[int, ...]
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node, indexes=indexes)
        assert await bad_found(store) == [0, 0]
        assert copies(store) == {hash_of(LARGE): 2}
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)
    assert await node.leftovers() == []


@pytest.mark.in_threads
@pytest.mark.parametrize("indexes", [(A,), (B,), (A, B)], ids=["first", "second", "both"])
@pytest.mark.parametrize("how", SPOILT.values(), ids=SPOILT.keys())
async def test_a_scrub_makes_anew_what_cannot_be_believed(
    node: Node, how: Spoil, indexes: tuple[int, ...]
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node, how, indexes)
        assert await bad_found(store) == [0, 0]
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


async def test_a_scrub_takes_over_the_other_mirrors_digests_as_they_are(
    node: Node, chained_digests: bool
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node, indexes=(B,))
        await store.scrub()
    taken_over = await kept(node, B, LARGE)
    assert taken_over is not None
    assert taken_over == await kept(node, A, LARGE)
    assert taken_over.chained is chained_digests, "every block was hashed anew"


async def test_b5_after_a_scrub_copies_bad_in_different_blocks_are_put_together(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        await store.scrub()
        await hurt(node, A, LARGE, zero(0))
        await hurt(node, B, LARGE, zero(2))
        assert await bad_found(store) == [1, 1]
        await store.remirror()
        assert copies(store) == {hash_of(LARGE): 2}
    for index in (A, B):
        assert await node.read(index, LARGE) == LARGE


async def test_a_mirror_without_a_copy_gets_the_digests_as_well(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        await off_loop(node.file(B, LARGE).unlink)
        await store.scrub()
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


async def test_an_artifact_of_one_block_gets_none(node: Node) -> None:
    async with node.open() as store:
        await stock(store, b"", b"small", ONE_BLOCK)
        await store.scrub()
    for index in (A, B):
        for content in (b"", b"small", ONE_BLOCK):
            assert not await off_loop(digest_file(node, index, content).exists)


@pytest.mark.in_threads
async def test_digests_are_of_whole_blocks_also_when_a_scrub_reads_short(node: Node) -> None:
    node.disks[node.paths[A]] = StutteringDisk()
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        await store.scrub()
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


# ---- what must not be kept


@pytest.mark.parametrize("harm", [flip(5), zero(3), truncate(2 << 20)])
async def test_b6_a_scrub_keeps_no_digests_of_a_bad_copy(node: Node, harm: Harm) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        for index in (A, B):
            await hurt(node, index, LARGE, harm)
        assert await bad_found(store) == [1, 1]
    for index in (A, B):
        assert await kept(node, index, LARGE) is None


@pytest.mark.parametrize("bad", [A, B])
async def test_b6_with_one_bad_copy_the_digests_are_those_of_the_good_one(
    node: Node, bad: int
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        await node.write_file(bad, str(hash_of(LARGE)), OTHER)
        assert sum(await bad_found(store)) == 1
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


# ---- what it costs


@pytest.mark.in_threads
async def test_a_scrub_looks_once_at_digests_that_are_there_and_writes_nothing(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE, ONE_BLOCK)
        for index in (A, B):
            node.disk(index).calls.clear()
        await store.scrub()
        for index in (A, B):
            opened = [name for call, name in node.disk(index).calls if call == "open"]
            assert [name for name in opened if "blocks/" in name] == [
                f".sled-depot/blocks/{hash_of(LARGE)}"
            ]
            changes = [call for call in node.disk(index).calls if call[0] in ("create", "rename")]
            assert not changes


@pytest.mark.in_threads
async def test_b4_a_mirror_that_cannot_keep_digests_is_scrubbed_all_the_same(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await spoil_all(node)
        node.disk(A).fail("rename", errno.EIO, name="blocks/")
        assert await bad_found(store) == [0, 0]
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(LARGE): 2}
    assert await kept(node, A, LARGE) is None
    assert await keeps_right_ones(node, B, LARGE)
    assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_digests_that_cannot_be_read_are_no_fault_of_the_copy(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        node.disk(A).fail("pread", errno.EIO, name=f"blocks/{hash_of(LARGE)}", times=2)
        assert await bad_found(store) == [0, 0]
        assert states(store) == ["healthy", "healthy"]
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


@pytest.mark.in_threads
async def test_b4_a_device_that_hangs_over_block_digests_is_waited_for_once_by_a_scrub(
    node: Node,
) -> None:
    contents = (LARGE, OTHER)
    async with node.open(device_timeout_s=HANG_S) as store:
        await stock(store, *contents)
        for content in contents:
            await off_loop(digest_file(node, A, content).unlink)
        # Its own scrub asks for them, and so does that of the other one, which lacks them all.
        hangs = [node.disk(B).hang("pread", name="blocks/") for _ in range(2)]
        (done,) = await store.scrub()
        assert (done.copies, done.bad) == (2, 0)
        assert states(store) == ["healthy", "suspect"]
        assert copies(store) == dict.fromkeys(map(hash_of, contents), 2)
        calls = list(node.disk(B).calls)
        assert len([c for c, name in calls if c == "pread" and "blocks/" in name]) == len(hangs)
        for hang in hangs:
            hang.let_go()
    for content in contents:
        assert await keeps_right_ones(node, A, content)
