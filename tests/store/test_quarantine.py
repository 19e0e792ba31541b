"""Damaged copies are set aside, kept within a bound, listed, restored, let go (B6, Q1)."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.artifact import Generation
from depot.errors import Io, KeptInQuarantine, NoDataset, NotFound, QuotaExceeded
from depot.initialise import init_datasets
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
    states,
    used_bytes,
)
from tests.store.damage import flip, hurt, hurt_file, quarantined, truncate
from tests.store.faulty import FaultyDisk
from tests.store.loop_mount import fill_bytes, loop_mount

LARGE = random.Random(21).randbytes(3 * MIB + 5)
BIG = random.Random(22).randbytes(8 * MIB)


async def stock(store: ArtifactStore, *contents: bytes) -> None:
    await store.put_config(config(1, *contents))
    for content in contents:
        await put(store, content)


async def discover(store: ArtifactStore, content: bytes) -> None:
    async with store.begin_put(hash_of(content), Generation(1), len(content), counted=False):
        return


async def lose(node: Node, store: ArtifactStore, content: bytes = LARGE) -> None:
    """Damage every copy."""
    for index in (A, B):
        await hurt(node, index, content, flip(9))
    await discover(store, content)


async def rot_and_heal(node: Node, store: ArtifactStore, index: int, content: bytes) -> None:
    await hurt(node, index, content, flip(9))
    await discover(store, content)
    assert await store.remirror() == 1


# ---- setting aside


@pytest.mark.parametrize(
    ("harm", "reason"), [(flip(5), "mismatch"), (truncate(100), "short"), (truncate(0), "short")]
)
async def test_b6_a_damaged_copy_is_set_aside_whole_and_an_event_says_why(
    node: Node, harm: object, reason: str
) -> None:
    assert callable(harm)
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, harm)
        bad = await node.read(B, LARGE)
        await discover(store, LARGE)
        (found,) = store.quarantined()
        assert found.file.artifact == hash_of(LARGE)
        assert (found.file.reason, found.file.size_bytes) == (reason, len(bad or b""))
        assert await off_loop(Path(found.path).read_bytes) == bad
        assert Path(found.path).parent == node.paths[B] / ".sled-depot/quarantine"
        assert not found.last_copy
        (event,) = [fields for kind, fields in node.events if kind == "quarantined"]
        assert event == {
            "sha256": str(hash_of(LARGE)),
            "dataset": str(node.paths[B]),
            "reason": reason,
            "size_bytes": len(bad or b""),
        }


async def test_b6_a_copy_that_cannot_be_read_is_set_aside_as_such(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        node.disk(B).fail("pread", errno.EIO, name=str(hash_of(LARGE)))
        await discover(store, LARGE)
        (found,) = store.quarantined()
        assert found.file.reason == "unreadable"
        assert states(store) == ["healthy", "healthy"]


async def test_b6_what_stands_unverified_in_a_good_copys_place_is_not_overwritten(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        async with store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted:
            # It appears while the body is being sent.
            await node.write_file(A, str(hash_of(ONE)), b"somebody's")
            from tests.store.builders import BytesSource

            assert (await admitted.receive(BytesSource(ONE))).copies == 2
        (found,) = store.quarantined()
        assert found.file.reason == "replaced"
        assert await off_loop(Path(found.path).read_bytes) == b"somebody's"
        assert used_bytes(store) == [len(ONE)] * 2


async def test_the_quarantine_survives_a_restart_and_other_peoples_files_are_left_alone(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await lose(node, store)
        before = store.quarantined()
    stranger = node.paths[A] / ".sled-depot/quarantine/notes.txt"
    await off_loop(stranger.write_bytes, b"somebody's")
    async with node.open() as store:
        assert store.quarantined() == before
        assert [each.last_copy for each in before] == [True, True]
    assert await off_loop(stranger.exists)


async def test_setting_aside_is_one_rename_that_is_synced_on_both_sides(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, flip(0))
        node.disk(B).calls.clear()
        await discover(store, LARGE)
        changes = [
            (call, name)
            for call, name in node.disk(B).calls
            if call in ("rename", "fsync_directory", "unlink", "mkdir")
            and "/staging/" not in name  # the device was asked first whether it can be believed
        ]
        (found,) = store.quarantined()
        root = str(node.paths[B])
        assert changes == [
            ("mkdir", ".sled-depot/quarantine"),
            ("fsync_directory", f"{root}/.sled-depot"),
            ("rename", f"{hash_of(LARGE)} -> .sled-depot/quarantine/{found.file.name}"),
            ("fsync_directory", f"{root}/.sled-depot/quarantine"),
            ("fsync_directory", root),
        ]


@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync_directory"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
async def test_b6_a_fault_while_setting_aside_loses_nothing(
    node: Node, call: str, error: int
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, flip(0))
        bad = await node.read(B, LARGE)
        node.disk(B).fail(call, error, times=1)
        await discover(store, LARGE)
        aside = [await off_loop(path.read_bytes) for path in await quarantined(node, B)]
        standing = await node.read(B, LARGE)
        assert [*aside, standing] in ([bad], [bad, None])
        assert copies(store) == {hash_of(LARGE): 1}
        node.disk(B).heal()
        await store.check_datasets()
        await store.reconcile()
        await store.remirror()
        assert copies(store) == {hash_of(LARGE): 2}
        (found,) = store.quarantined()
        assert await off_loop(Path(found.path).read_bytes) == bad
    assert await node.read(B, LARGE) == LARGE


async def test_a_failed_sync_while_setting_aside_casts_doubt_on_the_dataset(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, flip(0))
        # Of the metadata, of the quarantine, and then of the dataset itself. Not a full disk.
        rule = node.disk(B).fail("fsync_directory", errno.ENOSPC, nth=3, times=1)
        await discover(store, LARGE)
        assert rule.strikes == 1
        assert states(store) == ["healthy", "suspect"]


# ---- the bound


async def test_q1_the_quarantine_keeps_within_its_bound_the_oldest_go_first(node: Node) -> None:
    async with node.open(quarantine_bytes=2 * len(LARGE)) as store:
        await stock(store, LARGE)
        for _ in range(3):
            await rot_and_heal(node, store, B, LARGE)
        held = store.quarantined()
        assert len(held) == 2
        assert node.kinds().count("quarantined") == 3
        (purged,) = [fields for kind, fields in node.events if kind == "quarantine_purged"]
        assert (purged["why"], purged["size_bytes"]) == ("bound", len(LARGE))
        assert len(await quarantined(node, B)) == 2
        assert store.status().datasets[B].quarantined_bytes == 2 * len(LARGE)


async def test_the_last_copy_stays_also_past_the_bound_and_the_status_says_so(node: Node) -> None:
    async with node.open(quarantine_bytes=1) as store:
        await stock(store, LARGE)
        await lose(node, store)
        await store.remirror()
        assert [each.last_copy for each in store.quarantined()] == [True, True]
        assert any("over its bound" in warning for warning in store.status().warnings)
        # Once there are good copies again, the bound holds.
        assert (await put(store, LARGE)).copies == 2
        await store.remirror()
        assert store.quarantined() == ()
        assert not any("over its bound" in warning for warning in store.status().warnings)


async def test_nothing_is_purged_while_no_config_says_what_is_wanted(node: Node) -> None:
    async with node.open(quarantine_bytes=1) as store:
        await stock(store, LARGE)
        await lose(node, store)
        await store.reset(Generation(1))
        await store.remirror()
        assert len(store.quarantined()) == 2


async def test_d4_what_a_config_dropped_in_its_grace_period_is_kept(node: Node) -> None:
    async with node.open(quarantine_bytes=1, delete_grace_s=3600) as store:
        await stock(store, LARGE)
        await lose(node, store)
        await store.put_config(config(2))
        await store.remirror()
        assert len(store.quarantined()) == 2
        await store.put_config(config(3, LARGE))
        assert [each.last_copy for each in store.quarantined()] == [True, True]


async def test_b6_an_event_is_recorded_also_when_whoever_set_it_aside_was_cancelled(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, flip(9))
        hang = node.disk(B).hang("rename", name="quarantine")
        putting = asyncio.ensure_future(discover(store, LARGE))
        await off_loop(hang.wait_begun)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        hang.let_go()
        await off_loop(hang.wait_ended)
        await store.reconcile()
        assert node.kinds().count("quarantined") == 1
        assert "copy_gone" not in node.kinds(), "it is told as if somebody had removed it"
        assert len(store.quarantined()) == 1
        assert await store.remirror() == 1
    async with node.open() as store:
        await store.reconcile()
        assert node.kinds().count("quarantined") == 1, "a restart tells it again"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Node]:
    """A node whose first dataset is a filesystem of 64 MiB."""
    with loop_mount(tmp_path) as disk:
        other = tmp_path / "m2-b"
        other.mkdir()
        paths = [disk, other]
        init_datasets(paths)
        yield Node(tmp_path, paths, {path: FaultyDisk() for path in paths})


async def test_the_quarantine_yields_before_a_put_is_refused_for_want_of_disk(small: Node) -> None:
    async with small.open() as store:
        await store.put_config(config(1, BIG, LARGE))
        await put(store, LARGE)
        await put(store, BIG)
        await rot_and_heal(small, store, A, BIG)
        assert len(await quarantined(small, A)) == 1
        await store.put_config(config(2, BIG, LARGE, ONE, TWO))
        await off_loop(fill_bytes, small.paths[A])
        await store.check_datasets()
        other = os.urandom(6 * MIB)
        await store.put_config(config(3, BIG, LARGE, other))
        stored = await put(store, other, generation=3)
        assert stored.copies == 2, stored.failures
        assert await quarantined(small, A) == []
        purged = [fields["why"] for kind, fields in small.events if kind == "quarantine_purged"]
        assert purged == ["space"]


async def test_d1_the_last_copy_yields_to_nothing(small: Node) -> None:
    async with small.open() as store:
        await store.put_config(config(1, BIG, LARGE))
        await put(store, BIG)
        await lose(small, store, BIG)
        await off_loop(fill_bytes, small.paths[A])
        await store.check_datasets()
        stored = await put(store, LARGE)
        assert stored.copies == 1
        assert len(await quarantined(small, A)) == 1


# ---- what an operator does


async def test_a_copy_that_is_good_after_all_gets_its_name_back(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        node.disk(B).fail("pread", errno.EIO, name=str(hash_of(LARGE)))
        await discover(store, LARGE)
        node.disk(B).heal()
        (found,) = store.quarantined()
        await store.restore_quarantined(found.id)
        assert store.quarantined() == ()
        assert copies(store) == {hash_of(LARGE): 2}
        assert used_bytes(store) == [len(LARGE)] * 2
        assert node.kinds().count("restored") == 1
    assert await node.read(B, LARGE) == LARGE


async def test_what_was_restored_on_one_dataset_is_not_called_lost_any_more(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await lose(node, store)
        assert await store.remirror() == 0
        assert store.status().healing.lost == (hash_of(LARGE),)
        found = store.quarantined()[0]
        await off_loop(hurt_file, Path(found.path), flip(9))  # and so it is right again
        await store.restore_quarantined(found.id)
        assert copies(store) == {hash_of(LARGE): 1}
        assert store.status().healing.lost == ()
        assert not any(str(hash_of(LARGE)) in said for said in store.status().warnings)


async def test_b1_wrong_bytes_do_not_get_an_artifacts_name(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await lose(node, store)
        for found in store.quarantined():
            with pytest.raises(KeptInQuarantine, match="hash to"):
                await store.restore_quarantined(found.id)
        assert len(store.quarantined()) == 2
        for index in (A, B):
            assert await node.read(index, LARGE) is None


async def test_a_good_copy_is_never_replaced_by_one_from_the_quarantine(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await rot_and_heal(node, store, B, LARGE)
        (found,) = store.quarantined()
        before = await node.inode(B, LARGE)
        await off_loop(hurt_file, Path(found.path), flip(9))  # and so it is right again
        with pytest.raises(KeptInQuarantine, match="a good copy"):
            await store.restore_quarantined(found.id)
        assert await node.inode(B, LARGE) == before


async def test_what_nobody_wants_is_not_restored(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE, ONE)
        await lose(node, store)
        await store.put_config(config(2, ONE))
        with pytest.raises(KeptInQuarantine, match="no config"):
            await store.restore_quarantined(store.quarantined()[0].id)


async def test_q1_a_copy_is_not_restored_beyond_the_quota(node: Node) -> None:
    async with node.open(quota_bytes=len(LARGE)) as store:
        await stock(store, LARGE)
        await lose(node, store)
        await store.put_config(config(2, LARGE, ONE))
        await put(store, ONE, generation=2)
        found = store.quarantined()[0]
        await off_loop(hurt_file, Path(found.path), flip(9))
        with pytest.raises(QuotaExceeded):
            await store.restore_quarantined(found.id)
        assert len(store.quarantined()) == 2


async def test_the_last_copy_is_deleted_only_by_force(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await lose(node, store)
        first, second = store.quarantined()
        with pytest.raises(KeptInQuarantine, match="last copy"):
            await store.purge_quarantined(first.id)
        await store.purge_quarantined(first.id, force=True)
        assert store.quarantined() == (second,)
        with pytest.raises(NotFound):
            await store.purge_quarantined(first.id, force=True)


async def test_what_a_verified_copy_exists_of_may_be_deleted(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await rot_and_heal(node, store, B, LARGE)
        (found,) = store.quarantined()
        await store.purge_quarantined(found.id)
        assert store.quarantined() == ()
        assert await quarantined(node, B) == []


async def test_a_dataset_that_fails_or_is_away_is_told(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await lose(node, store)
        (found,) = (each for each in store.quarantined() if each.index == B)
        node.disk(B).fail("unlink", errno.EIO, times=1)
        with pytest.raises(Io):
            await store.purge_quarantined(found.id, force=True)
        with pytest.raises(NoDataset):
            await store.purge_quarantined(found.id, force=True)
        await store.check_datasets()
        await store.purge_quarantined(found.id, force=True)
        assert len(store.quarantined()) == 1


async def test_q3_digests_of_what_was_deleted_do_not_stay_behind(node: Node) -> None:
    async with node.open(delete_grace_s=0) as store:
        await stock(store, LARGE)
        path = node.paths[A] / ".sled-depot/blocks" / str(hash_of(LARGE))
        content = await off_loop(path.read_bytes)
        await store.put_config(config(2))
        await store.reconcile()
        await off_loop(path.write_bytes, content)  # as a reader does that was under way
        await store.reconcile()
        assert not await off_loop(path.exists)
        assert await node.names(A) == set()


async def test_b4_what_stands_in_the_way_of_a_copy_says_nothing_about_the_dataset(
    node: Node,
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await hurt(node, B, LARGE, flip(0))
        await discover(store, LARGE)
        (found,) = store.quarantined()
        await off_loop(Path(found.path).chmod, 0o644)
        await off_loop(Path(found.path).write_bytes, LARGE)
        await off_loop(node.file(B, LARGE).mkdir)
        with pytest.raises(KeptInQuarantine):
            await store.restore_quarantined(found.id)
        assert states(store) == ["healthy", "healthy"]


async def test_b6_a_verified_copy_on_a_dataset_that_fails_lets_no_damaged_one_go(
    node: Node,
) -> None:
    async with node.open(quarantine_bytes=0) as store:
        await stock(store, LARGE)
        node.disk(B).turn_read_only()
        await hurt(node, A, LARGE, flip(0))
        await store.put_config(config(2, LARGE))
        assert states(store) == ["healthy", "suspect"]
        with await store.open_artifact(hash_of(LARGE), exclude=[B]) as opened:
            store.read_failed(opened, OSError(errno.EIO, "bad"))
        await store._parts.quarantine.settle(store._parts.mirrors.all[A], hash_of(LARGE))
        await store._parts.quarantine.trim()
        (found,) = store.quarantined()
        assert found.last_copy
