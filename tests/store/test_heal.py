"""Where an artifact comes back from when copies are bad (B5), and what if nobody has it."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotCopy, NotFound, QuotaExceeded
from depot.mirrors.inventory import Copy
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.writing.stored import Stored
from tests.store.builders import (
    MIB,
    ONE,
    TWO,
    A,
    B,
    BytesSource,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    read_back,
    reserved_bytes,
    states,
    used_bytes,
)
from tests.store.damage import Harm, flip, hurt, quarantined, truncate, zero
from tests.store.duties import running

LARGE = random.Random(11).randbytes(5 * MIB + 4321)
OTHER = random.Random(12).randbytes(3 * MIB)


@dataclass
class GoodPeer:
    """A peer that has everything it is asked for; `error` instead, as long as there is one."""

    store: ArtifactStore
    contents: tuple[bytes, ...]
    error: Exception | None = None
    asked: list[ArtifactHash] = field(default_factory=list)

    async def fetch(self, artifact: ArtifactHash, generation: Generation) -> Stored | None:
        self.asked.append(artifact)
        if self.error:
            raise self.error
        content = next(each for each in self.contents if hash_of(each) == artifact)
        size_bytes = len(content)
        async with self.store.begin_put(artifact, generation, size_bytes, counted=False) as put:
            return put.held or await put.receive(BytesSource(content))


async def stock(store: ArtifactStore, *contents: bytes) -> None:
    await store.put_config(config(1, *contents))
    for content in contents:
        await put(store, content)


async def discover(store: ArtifactStore, content: bytes) -> None:
    """Read every copy, as a scrub or a reader would."""
    async with store.begin_put(hash_of(content), Generation(1), len(content), counted=False):
        return


def healed_from(node: Node) -> list[object]:
    return [fields["from"] for kind, fields in node.events if kind == "healed"]


def healed_on(node: Node) -> list[object]:
    return [fields["healed_on"] for kind, fields in node.events if kind == "healed"]


async def assert_whole(node: Node, *contents: bytes) -> None:
    for content in contents:
        for index in (A, B):
            assert await node.read(index, content) == content


# ---- from the mirror


@pytest.mark.parametrize("index", [A, B])
@pytest.mark.parametrize("harm", [flip(3 * MIB), truncate(MIB + 5), truncate(0), zero(0, 4)])
async def test_b5_a_bad_copy_is_healed_from_the_mirror_and_kept_aside(
    node: Node, index: int, harm: Harm
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, index, LARGE, harm)
        bad, good = await node.read(index, LARGE), await node.inode(1 - index, LARGE)
        await discover(store, LARGE)
        assert await store.remirror() == 1
        assert copies(store) == {hash_of(LARGE): 2}
        assert await node.inode(1 - index, LARGE) == good, "the good copy was replaced"
        assert healed_from(node) == ["mirror"]
        assert healed_on(node) == [[str(node.paths[index])]]
        (aside,) = await quarantined(node, index)
        assert await off_loop(aside.read_bytes) == bad
        assert used_bytes(store) == [len(LARGE)] * 2
    await assert_whole(node, LARGE)


@pytest.mark.parametrize("bad", [(A,), (A, B)], ids=["mirror", "blocks"])
async def test_healing_writes_no_faster_than_it_may(node: Node, bad: tuple[int, ...]) -> None:
    rate = 8 * MIB
    async with node.open(heal_max_bytes_per_s=rate) as store:
        await stock(store, LARGE)
        for index in bad:
            await hurt(node, index, LARGE, flip((index + 1) * MIB))
        await discover(store, LARGE)
        begin_s = time.monotonic()
        assert await store.remirror() == 1
        # But for the two steps, of a twentieth of a second, that may come at once.
        assert time.monotonic() - begin_s >= 0.85 * (len(LARGE) / rate - 0.1)
    await assert_whole(node, LARGE)


async def test_b5_healing_begins_when_a_read_finds_damage_without_another_request(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
    async with running(node) as (store, happened):
        await hurt(node, A, LARGE, flip(MIB))
        with await store.open_artifact(hash_of(LARGE)) as opened:
            store.read_failed(opened, OSError(errno.EIO, "it does not match its digest"))
        await happened.wait_for("healed")
    await assert_whole(node, LARGE)


async def test_a_copy_that_is_good_after_all_is_counted_again_and_stays(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        before = await node.inode(A, LARGE)
        with await store.open_artifact(hash_of(LARGE)) as opened:
            store.read_failed(opened, OSError(errno.EIO, "one bad read"))
        assert copies(store) == {hash_of(LARGE): 1}
        assert await store.remirror() == 0
        assert copies(store) == {hash_of(LARGE): 2}
        assert await quarantined(node, A) == []
        assert await node.inode(A, LARGE) == before


async def test_b4_copies_that_only_failed_to_be_read_are_read_again_before_none_is_said_to_be_left(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        for other in (B, A):
            with await store.open_artifact(hash_of(LARGE), exclude=[other]) as opened:
                store.read_failed(opened, OSError(errno.EIO, "the device was gone"))
        assert copies(store) == {}
        assert await read_back(store, LARGE) == LARGE


@pytest.mark.parametrize("nth", [1, 2], ids=["the file", "its digests"])
async def test_a_want_of_descriptors_says_nothing_about_a_copy_or_its_dataset(
    node: Node, nth: int
) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        with await store.open_artifact(hash_of(LARGE)) as opened:
            store.read_failed(opened, OSError(errno.EMFILE, "none is left"))
        for path in node.paths:
            await off_loop((path / ".sled-depot/blocks" / str(hash_of(LARGE))).unlink)
        rule = node.disk(A).fail("open", errno.EMFILE, nth=nth, name=str(hash_of(LARGE)))
        assert await read_back(store, LARGE) == LARGE
        assert rule.strikes
        node.disk(A).heal()
        assert copies(store) == {hash_of(LARGE): 2}
        assert states(store) == ["healthy", "healthy"]


async def test_copies_that_are_bad_are_read_again_once_however_many_ask(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        for index, other in ((A, B), (B, A)):
            await hurt(node, index, LARGE, flip(0))
            with await store.open_artifact(hash_of(LARGE), exclude=[other]) as opened:
                store.read_failed(opened, OSError(errno.EIO, "bad"))
        with pytest.raises(NotFound):
            await store.open_artifact(hash_of(LARGE))
        before = sum(call == "pread" for call, _ in node.disk(A).calls)
        with pytest.raises(NotFound):
            await store.open_artifact(hash_of(LARGE))
        assert before > 0
        assert sum(call == "pread" for call, _ in node.disk(A).calls) == before


async def test_a_reader_of_the_file_that_was_replaced_does_not_blame_the_new_one(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, A, LARGE, flip(MIB))
        first = await store.open_artifact(hash_of(LARGE))
        second = await store.open_artifact(hash_of(LARGE))
        with first, second:
            store.read_failed(first, OSError(errno.EIO, "bad"))
            assert await store.remirror() == 1
            store.read_failed(second, OSError(errno.EIO, "bad"))
        assert copies(store) == {hash_of(LARGE): 2}


async def test_a_copy_that_was_verified_by_a_clock_that_was_ahead_is_blamed_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.open() as store:
        with monkeypatch.context() as ahead:
            now_s = time.time()
            ahead.setattr(time, "time", lambda: now_s + 86400)
            await stock(store, LARGE)
        await hurt(node, A, LARGE, flip(MIB))
        with await store.open_artifact(hash_of(LARGE)) as opened:
            store.read_failed(opened, OSError(errno.EIO, "bad"))
        assert copies(store) == {hash_of(LARGE): 1}
        assert await store.remirror() == 1
    await assert_whole(node, LARGE)


async def test_a_reader_that_came_between_two_files_forgets_neither(node: Node) -> None:
    async with node.open() as store:
        await stock(store, ONE)
        moved = asyncio.Event()
        loop = asyncio.get_running_loop()

        def take_place() -> None:
            # The reader finds nothing, and before it says so another file has the name.
            node.file(A, ONE).rename(node.root / "between")
            asyncio.run_coroutine_threadsafe(record_anew(), loop).result()

        async def record_anew() -> None:
            mirror = store._parts.mirrors.all[A]
            mirror.record(hash_of(ONE), Copy(len(ONE), verified_at_s=time.time()))
            moved.set()

        node.disk(A).before("open", take_place, name=str(hash_of(ONE)))
        with await store.open_artifact(hash_of(ONE)) as opened:
            assert opened.dataset == B
        assert moved.is_set()
        assert copies(store) == {hash_of(ONE): 2}
        assert used_bytes(store) == [len(ONE)] * 2


async def test_the_fewest_copies_come_first(node: Node) -> None:
    # What has no good copy at all must not wait behind what has one.
    async with node.open() as store:
        await stock(store, LARGE, OTHER)
        few, more = sorted([LARGE, OTHER], key=hash_of, reverse=True)
        await hurt(node, A, few, zero(0))
        await hurt(node, B, few, zero(1))
        await off_loop(node.file(A, more).unlink)
        await store.reconcile()
        await discover(store, few)
        assert store.status().healing.todo == 2
        assert await store.remirror() == 2
        healed = [fields["sha256"] for kind, fields in node.events if kind == "healed"]
        assert healed == [str(hash_of(few)), str(hash_of(more))]


async def test_b4_a_dataset_that_cannot_rename_keeps_its_damaged_copy_and_is_retried(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, A, LARGE, flip(0))
        with await store.open_artifact(hash_of(LARGE)) as opened:
            store.read_failed(opened, OSError(errno.EIO, "bad"))
        node.disk(A).turn_read_only()
        assert await store.remirror() == 0
        assert states(store) == ["suspect", "healthy"]
        assert copies(store) == {hash_of(LARGE): 1}, "a damaged copy is counted"
        assert await quarantined(node, A) == []
        node.disk(A).heal()
        await store.check_datasets()
        assert await store.remirror() == 1
        assert len(await quarantined(node, A)) == 1
    await assert_whole(node, LARGE)


# ---- from blocks


@pytest.mark.parametrize(
    ("harm_a", "harm_b"),
    [
        (zero(0, 2, 4), zero(1, 3)),
        (truncate(2 * MIB + 7), zero(0, 1)),
        (flip(0), flip(-1)),
        (truncate(0), flip(0)),
    ],
)
async def test_b5_copies_bad_in_different_blocks_are_put_together(
    node: Node, harm_a: Harm, harm_b: Harm
) -> None:
    whole = harm_a(bytearray(LARGE))[:1] != b""
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, A, LARGE, harm_a)
        await hurt(node, B, LARGE, harm_b)
        await discover(store, LARGE)
        assert copies(store) == {}
        assert await store.remirror() == int(whole)
        assert healed_from(node) == ["blocks"] * whole
        assert reserved_bytes(store) == [0, 0]
        if whole:
            assert copies(store) == {hash_of(LARGE): 2}
            assert store.status().healing.todo == 0
            await assert_whole(node, LARGE)


async def test_b5_blocks_come_from_older_copies_in_quarantine_too(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, A, LARGE, zero(0))
        await discover(store, LARGE)
        assert await store.remirror() == 1
        for index in (A, B):
            await hurt(node, index, LARGE, zero(3))
        await discover(store, LARGE)
        assert await store.remirror() == 1
        assert healed_from(node) == ["mirror", "blocks"]
    await assert_whole(node, LARGE)


async def test_b5_damage_is_healed_after_a_restart_as_the_quarantine_remembers_it(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, A, LARGE, zero(1))
        await hurt(node, B, LARGE, zero(2))
        await discover(store, LARGE)
    async with node.open() as store:
        assert copies(store) == {}
        assert store.status().healing.todo == 1
        assert await store.remirror() == 1
        assert copies(store) == {hash_of(LARGE): 2}
    await assert_whole(node, LARGE)


async def test_wrong_block_digests_cannot_spread_a_wrong_byte(node: Node) -> None:
    # They were exchanged for those of other content of the same size, checksum and all.
    async with node.open() as store:
        await stock(store, LARGE)
        for index in (A, B):
            wrong = zero(index)(bytearray(LARGE))
            await spoil_digests(node, index, bytes(wrong))
            await hurt(node, index, LARGE, zero(index))
        await discover(store, LARGE)
        assert await store.remirror() == 0
        assert copies(store) == {}
        assert reserved_bytes(store) == [0, 0]
        for index in (A, B):
            assert await node.read(index, LARGE) is None
            assert len(await quarantined(node, index)) == 1


async def spoil_digests(node: Node, index: int, wrong: bytes) -> None:
    from depot.streams.block_digests import BlockDigests, encode_digests

    starts = range(0, len(wrong), MIB)
    digests = b"".join(ArtifactHash.of(wrong[start : start + MIB]).digest for start in starts)
    content = encode_digests(BlockDigests(hash_of(LARGE), len(wrong), digests))
    path = node.paths[index] / ".sled-depot/blocks" / str(hash_of(LARGE))
    await off_loop(path.write_bytes, content)


# ---- from a peer, or not at all


async def both_bad(node: Node, store: ArtifactStore, content: bytes = LARGE) -> None:
    for index in (A, B):
        await hurt(node, index, content, flip(7))
    await discover(store, content)


async def test_b5_what_no_dataset_has_whole_comes_from_a_peer(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await both_bad(node, store)
        peer = GoodPeer(store, (LARGE,))
        assert await store.remirror(peer) == 1
        assert peer.asked == [hash_of(LARGE)]
        assert healed_from(node) == ["peer"]
        assert "lost" not in node.kinds()
        assert copies(store) == {hash_of(LARGE): 2}
    await assert_whole(node, LARGE)


async def test_a_peer_is_asked_only_for_what_cannot_be_healed_here(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE, OTHER)
        await hurt(node, A, LARGE, flip(0))
        await discover(store, LARGE)
        # Never here: whoever configured it sends it, too.
        await store.put_config(config(2, LARGE, OTHER, ONE))
        peer = GoodPeer(store, (LARGE, OTHER, ONE))
        assert await store.remirror(peer) == 1
        assert peer.asked == []


async def test_remains_that_could_not_be_read_for_a_moment_are_tried_again(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        for index in (A, B):
            await hurt(node, index, LARGE, flip(index * 2 * MIB))
            node.disk(index).fail("pread", errno.EIO, name="quarantine")
        await discover(store, LARGE)
        assert await store.remirror() == 0
        assert store.status().missing == (hash_of(LARGE),)
        for index in (A, B):
            node.disk(index).heal()
        store._parts.rewriter._monotonic = lambda: time.monotonic() + 61
        assert await store.remirror() == 1
        assert copies(store) == {hash_of(LARGE): 2}


async def test_b6_what_nobody_has_is_lost_said_once_and_nothing_is_deleted(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE, ONE)
        await both_bad(node, store)
        peer = GoodPeer(store, (), error=DepotCopy("no source gave it"))
        for _ in range(3):
            assert await store.remirror(peer) == 0
        assert node.kinds().count("lost") == 1
        status = store.status()
        assert status.healing.lost == (hash_of(LARGE),)
        assert any(f"{hash_of(LARGE)} is lost" in warning for warning in status.warnings)
        assert copies(store) == {hash_of(ONE): 2}
        for index in (A, B):
            assert len(await quarantined(node, index, LARGE)) == 1
        peer.error, peer.contents = None, (LARGE,)
        assert await store.remirror(peer) == 1
        assert store.status().healing.lost == ()
        assert not any("is lost" in warning for warning in store.status().warnings)
    await assert_whole(node, LARGE)


async def test_nothing_is_lost_while_a_dataset_that_may_have_it_is_away(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await node.take_away(B)
        await store.check_datasets()
        await hurt(node, A, LARGE, flip(7))
        await discover(store, LARGE)
        assert await store.remirror() == 0
        assert "lost" not in node.kinds()
        await node.bring_back(B)
        await store.check_datasets()
        assert await store.remirror() == 1
        assert healed_from(node) == ["mirror"]
    await assert_whole(node, LARGE)


async def test_a_put_brings_back_what_was_lost(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await both_bad(node, store)
        assert await store.remirror() == 0
        assert store.status().healing.lost == (hash_of(LARGE),)
        assert (await put(store, LARGE)).copies == 2
        assert store.status().healing.lost == ()
        assert store.status().healing.todo == 0
        assert not any(str(hash_of(LARGE)) in said for said in store.status().warnings)


async def test_d1_what_is_not_wanted_any_more_is_not_healed(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE, ONE)
        await both_bad(node, store)
        await store.put_config(config(2, ONE))
        peer = GoodPeer(store, (LARGE,))
        assert await store.remirror(peer) == 0
        assert peer.asked == []
        assert store.status().healing.todo == 0
        assert "lost" not in node.kinds()


# ---- the to-do list


async def test_a_put_that_reached_one_mirror_is_healed_without_anybody_asking(node: Node) -> None:
    async with running(node) as (store, happened):
        await store.put_config(config(1, ONE))
        node.disk(B).fail("fsync", errno.ENOSPC, times=1)
        assert (await put(store, ONE)).copies == 1
        await happened.wait_for("healed")
    await assert_whole(node, ONE)


async def was_away(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        assert (await put(store, ONE)).copies == 1
    await node.bring_back(B)


async def put_reached_one_mirror(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail("fsync", errno.ENOSPC, times=1)
        assert (await put(store, ONE)).copies == 1
        await store.check_datasets()


async def was_set_aside(node: Node) -> None:
    async with node.open() as store:
        await stock(store, ONE)
        await hurt(node, B, ONE, flip(1))
        await discover(store, ONE)
        assert len(await quarantined(node, B)) == 1


@pytest.mark.parametrize("cause", [was_away, put_reached_one_mirror, was_set_aside])
async def test_b5_the_to_do_list_outlives_a_restart_and_is_worked_off_without_anybody_asking(
    node: Node, cause: Callable[[Node], Awaitable[None]]
) -> None:
    await cause(node)
    async with node.open() as store:
        healing = store.status().healing
        assert (healing.todo, healing.todo_bytes, healing.healed) == (1, len(ONE), 0)
        assert store.status().under_replicated == (hash_of(ONE),)
    async with running(node) as (store, happened):
        await happened.wait_for("healed")
        healing = store.status().healing
        assert (healing.todo, healing.todo_bytes, healing.healed) == (0, 0, 1)
    await assert_whole(node, ONE)


async def test_what_failed_waits_before_it_is_tried_again_unless_something_changes(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await both_bad(node, store)
        peer = GoodPeer(store, (), error=DepotCopy("no"))
        await store.remirror(peer)
        healer = store._parts.healer
        assert await healer.fetch(peer, only_due=True) == 0
        assert len(peer.asked) == 1
        assert healer.fetch_due_in_s() is not None
        await store.put_config(config(2, LARGE, ONE))
        await healer.heal_here(only_due=True)
        await healer.fetch(peer, only_due=True)
        assert len(peer.asked) == 2


async def test_s1_what_cannot_be_tried_is_not_due_over_and_over(node: Node) -> None:
    async with node.open() as store:
        await stock(store, ONE)
        await off_loop(node.file(B, ONE).unlink)
        await store.reconcile()
        node.disk(B).fail("create", errno.EROFS)
        await store.remirror()
        assert states(store) == ["healthy", "suspect"]
        healer = store._parts.healer
        assert healer.heal_due_in_s() is not None
        healer._monotonic = lambda: time.monotonic() + 10
        await healer.heal_here(only_due=True)
        assert healer.heal_due_in_s() is None


async def test_what_failed_is_tried_again_in_time_though_the_clock_is_set_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.open() as store:
        await stock(store, ONE)
        await off_loop(node.file(B, ONE).unlink)
        await store.reconcile()
        node.disk(B).fail("rename", errno.ENOSPC, times=1)
        healer = store._parts.healer
        ahead_s = time.time() + 86400
        with monkeypatch.context() as patch:  # whoever goes by the clock of the wall, now or later
            patch.setattr(time, "time", lambda: ahead_s)
            patch.setattr(store._parts.healing, "_clock", time.time)
            assert await store.remirror() == 0
        healer._monotonic = lambda: time.monotonic() + 10
        assert await healer.heal_here(only_due=True) == 1


async def test_the_status_says_how_much_is_to_be_done_and_was_done(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE, ONE, TWO)
        for content in (LARGE, ONE):
            await off_loop(node.file(B, content).unlink)
        await store.reconcile()
        before = store.status().healing
        assert (before.todo, before.todo_bytes) == (2, len(LARGE) + len(ONE))
        assert await store.remirror() == 2
        after = store.status().healing
        assert (after.todo, after.todo_bytes, after.healed, after.failed) == (0, 0, 2, 0)
        assert after.last_heal_s is not None


# ---- room


async def test_b5_a_bad_copy_is_replaced_also_when_the_quota_is_full(node: Node) -> None:
    async with node.open(quota_bytes=len(LARGE)) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await hurt(node, index, LARGE, flip(index))
        assert (await put(store, LARGE)).copies == 2
        assert used_bytes(store) == [len(LARGE)] * 2
        for index in (A, B):
            assert len(await quarantined(node, index)) == 1
    await assert_whole(node, LARGE)


async def test_b5_a_bad_copy_is_healed_also_when_the_quota_is_full(node: Node) -> None:
    async with node.open(quota_bytes=len(LARGE)) as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, truncate(len(LARGE) - 1))
        await discover(store, LARGE)
        assert await store.remirror() == 1
    await assert_whole(node, LARGE)


async def test_q1_what_is_in_quarantine_does_not_count_towards_the_quota(node: Node) -> None:
    async with node.open(quota_bytes=len(LARGE) + len(ONE)) as store:
        await stock(store, LARGE)
        await both_bad(node, store)
        assert used_bytes(store) == [0, 0]
        aside = [dataset.quarantined_bytes for dataset in store.status().datasets]
        assert aside == [len(LARGE)] * 2
    async with node.open(quota_bytes=len(LARGE) + len(ONE)) as store:
        assert used_bytes(store) == [0, 0], "a restart counts the quarantine"
        await store.put_config(config(2, LARGE, OTHER))
        assert (await put(store, OTHER, generation=2)).copies == 2
        with pytest.raises(QuotaExceeded):
            await put(store, LARGE, generation=2)


async def test_not_found_says_how_many_damaged_copies_there_are_also_in_quarantine(
    node: Node,
) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        await both_bad(node, store)
        with pytest.raises(NotFound) as caught:
            await read_back(store, LARGE)
        assert caught.value.damaged == 2
        detail = await store.describe(hash_of(LARGE))
        assert [copy.present for copy in detail.copies] == [False, False]
        assert [copy.damaged for copy in detail.copies] == [True, True]
        assert [len(copy.quarantined) for copy in detail.copies] == [1, 1]
