"""Deleting what no config wants, and nothing else (D1 to D4)."""

from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest

from depot.artifact import Generation
from depot.config.ledger import LEDGER_NAME, Ledger
from depot.errors import NotFound
from depot.store import ArtifactStore
from tests.store.builders import (
    ONE,
    THREE,
    TWO,
    A,
    B,
    GatedSource,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    read_back,
    read_opened,
    states,
    used_bytes,
)
from tests.store.faulty import HANG_S

FOUR = b"the fourth artifact" * 100


async def put_all(store: ArtifactStore, generation: int, *contents: bytes) -> None:
    await store.put_config(config(generation, *contents))
    for content in contents:
        await put(store, content, generation=generation)


async def test_d1_what_left_the_config_is_deleted_everywhere_and_nothing_else(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE, TWO))
        assert await store.reconcile() == 1
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
        assert used_bytes(store) == [len(ONE) + len(TWO)] * 2
        assert await store.reconcile() == 0
    for index in (A, B):
        assert await node.names(index) == {str(hash_of(ONE)), str(hash_of(TWO))}
    deleted = [fields["sha256"] for kind, fields in node.events if kind == "deleted"]
    assert deleted == [str(hash_of(THREE))]
    assert await node.leftovers() == []


OTHERS = {
    "too short": "a" * 63,
    "too long": "a" * 65,
    "upper case": "A" * 64,
    "not hex": "g" * 64,
    "hidden": "." + "a" * 63,
    "with a suffix": "a" * 64 + ".part",
    "a plain name": "README",
}


@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS.keys())
async def test_q3_a_file_that_is_not_named_by_a_hash_is_never_touched_or_counted(
    node: Node, name: str
) -> None:
    await node.write_file(A, name, b"somebody else's")
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await store.put_config(config(2, ONE, TWO, THREE))
        assert await store.reconcile() == 0
        assert used_bytes(store) == [0, 0]
        assert copies(store) == {}
    assert await off_loop((node.paths[A] / name).read_bytes) == b"somebody else's"


@pytest.mark.parametrize("what", ["directory", "symlink", "fifo"])
async def test_what_is_no_file_is_left_alone_whatever_its_name(node: Node, what: str) -> None:
    path = node.paths[A] / ("a" * 64)
    make = {"directory": path.mkdir, "symlink": lambda: path.symlink_to("README")}
    await off_loop(make.get(what, lambda: os.mkfifo(path)))
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        assert await store.reconcile() == 0
    assert await off_loop(os.path.lexists, path)


async def test_system_directories_are_left_alone(node: Node) -> None:
    for name in ("lost+found", ".zfs"):
        await off_loop((node.paths[A] / name).mkdir)
    async with node.open() as store:
        await put_all(store, 1, ONE)
        assert await store.reconcile() == 0
        assert states(store) == ["healthy", "healthy"]
    assert {"lost+found", ".zfs"} <= set(await off_loop(os.listdir, node.paths[A]))


async def test_d2_a_removed_artifact_leaves_the_list_before_its_file_is_gone(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE, TWO))
        assert set(copies(store)) == {hash_of(ONE), hash_of(TWO)}
        assert str(hash_of(THREE)) in await node.names(A)


async def test_d2_reads_that_have_begun_finish(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE)
        with await store.open_artifact(hash_of(THREE)) as opened:
            await store.put_config(config(2, ONE, TWO))
            assert await store.reconcile() == 1
            assert await read_opened(opened) == THREE
        with pytest.raises(NotFound):
            await store.open_artifact(hash_of(THREE))


async def test_d1_a_pinned_artifact_is_never_deleted(node: Node) -> None:
    # The pin survives a reset, after which a config need not know the artifact.
    async with node.open(delete_grace_s=0.0) as store:
        await put_all(store, 1, ONE, TWO)
        await store.put_pin("consumer", [hash_of(ONE)])
        await store.reset(config(1).generation)
        assert await store.reconcile() == 0
        await store.put_config(config(1, ONE))
        assert await store.reconcile() == 1
        assert await node.names(A) == {str(hash_of(ONE))}


async def test_d1_an_artifact_with_a_writer_is_never_deleted(node: Node) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await off_loop(node.file(B, THREE).unlink)
        source = GatedSource(THREE)
        running = asyncio.ensure_future(put(store, THREE, source=source))
        await source.reached()
        await store.put_config(config(2, ONE, TWO))
        assert await store.reconcile() == 0
        await store.put_config(config(3, ONE, TWO, THREE))
        source.open_gate()
        assert (await running).copies == 2
        assert await store.reconcile() == 0


@pytest.mark.in_threads
@pytest.mark.parametrize("call", ["rename", "unlink"])
async def test_d1_a_file_that_comes_back_into_the_config_before_its_unlink_stays(
    node: Node, call: str
) -> None:
    # D1: however long the disk takes, what a config wants when it is answered is not deleted.
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE, TWO))
        hang = node.disk(A).hang(call, name=str(hash_of(THREE)))
        reconciling = asyncio.ensure_future(store.reconcile())
        await off_loop(hang.wait_begun)
        listed = dict(store.list_artifacts().copies)
        await store.put_config(config(3, ONE, TWO, THREE))
        counted = copies(store)[hash_of(THREE)]
        hang.let_go()
        await reconciling
        assert hash_of(THREE) not in listed
        assert copies(store)[hash_of(THREE)] == counted
        present = [await node.read(index, THREE) for index in (A, B)]
        assert present.count(THREE) == counted
        assert await read_back(store, THREE) == THREE
        await store.remirror()
        assert copies(store)[hash_of(THREE)] == 2
    assert await node.leftovers() == []


async def test_d3_what_was_set_aside_by_a_process_that_died_is_there_again(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE)
    # As a crash between setting a file aside and deciding on it leaves it.
    aside = node.paths[A] / ".sled-depot/staging" / f"leaving-{hash_of(ONE)}"
    await off_loop(node.file(A, ONE).rename, aside)
    async with node.open() as store:
        assert copies(store) == {hash_of(ONE): 2}
        assert await node.read(A, ONE) == ONE
    assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_a_rename_that_hung_and_ended_late_loses_nothing(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE, TWO))
        hang = node.disk(A).hang("rename", name=str(hash_of(THREE)))
        await store.reconcile()
        assert states(store) == ["suspect", "healthy"]
        await store.put_config(config(3, ONE, TWO, THREE))
        hang.let_go()
        await off_loop(hang.wait_ended)
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        await store.reconcile()
        assert await node.read(A, THREE) == THREE
    assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_an_artifact_deleted_on_one_dataset_has_its_event_though_the_next_fails(
    node: Node,
) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE))
        second = max(map(str, (hash_of(TWO), hash_of(THREE))))
        for index in (A, B):
            node.disk(index).fail("rename", errno.EIO, name=second)
        assert await store.reconcile() == 1
    assert node.kinds().count("deleted") == 1


@pytest.mark.in_threads
async def test_a_failing_dataset_does_not_keep_the_other_from_deleting(node: Node) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await put_all(store, 1, ONE, TWO)
        await store.put_config(config(2, ONE))
        node.disk(A).turn_read_only()
        assert await store.reconcile() == 1
        assert states(store) == ["suspect", "healthy"]
        assert await node.names(B) == {str(hash_of(ONE))}
        node.disk(A).heal()
        await store.check_datasets()
        assert await store.reconcile() == 1
        assert await node.names(A) == {str(hash_of(ONE))}


# Rescans (D3)


async def test_d3_an_orphan_on_disk_is_found_and_deleted(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE)
        await node.write_file(A, str(hash_of(TWO)), TWO)
        assert await store.reconcile() == 1
        assert await node.names(A) == {str(hash_of(ONE))}
    await node.write_file(B, str(hash_of(TWO)), TWO)
    async with node.open() as store:
        assert used_bytes(store) == [len(ONE), len(ONE) + len(TWO)]
        assert await store.reconcile() == 1
        assert await node.names(B) == {str(hash_of(ONE))}


async def test_d3_files_that_came_and_went_behind_our_back_are_noticed(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE)
        await store.put_config(config(2, ONE, TWO))
        await node.write_file(A, str(hash_of(TWO)), TWO)
        await off_loop(node.file(A, ONE).unlink)
        await store.reconcile()
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 1}
        assert used_bytes(store) == [len(TWO), len(ONE)]


async def test_a_copy_that_changed_its_size_behind_our_back_is_no_good_copy(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE)
        await node.write_file(A, str(hash_of(ONE)), ONE[:100])
        await store.reconcile()
        assert copies(store) == {hash_of(ONE): 1}
        assert used_bytes(store) == [100, len(ONE)]
        assert await store.remirror() == 1
        assert await node.read(A, ONE) == ONE


async def test_without_a_config_nothing_is_deleted(node: Node) -> None:
    await node.write_file(A, str(hash_of(ONE)), ONE)
    async with node.open() as store:
        assert await store.reconcile() == 0
    assert await node.read(A, ONE) == ONE


async def test_d3_the_duties_reconcile_after_a_config_without_being_asked(node: Node) -> None:
    gone = asyncio.Event()

    def on_event(kind: str, _fields: object) -> None:
        if kind == "deleted":
            gone.set()

    opening = ArtifactStore.open(node.paths, state_dir=node.state_dir, on_event=on_event)
    async with await opening as store:
        duties = asyncio.ensure_future(store.run_duties())
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2, ONE, TWO))
        await asyncio.wait_for(gone.wait(), 20)
        duties.cancel()
        with pytest.raises(asyncio.CancelledError):
            await duties


# Grace (D4)


async def test_d4_a_mass_drop_is_obeyed_after_a_grace_period_and_can_be_taken_back(
    node: Node,
) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE)
        await store.put_config(config(2))
        assert copies(store) == {}
        assert await store.reconcile() == 0
    async with node.open() as store:  # a restart within the grace period
        assert await store.reconcile() == 0
        await store.put_config(config(3, ONE, TWO, THREE))
        assert await store.reconcile() == 0
        assert copies(store) == dict.fromkeys(map(hash_of, (ONE, TWO, THREE)), 2)


@pytest.mark.parametrize("grace_s", [0.0, 600.0])
@pytest.mark.parametrize(
    ("kept", "mass"),
    [((ONE, TWO, THREE), False), ((ONE, TWO), False), ((ONE,), True), ((), True)],
    ids=["a quarter", "half", "three quarters", "all"],
)
async def test_only_a_drop_of_more_than_half_has_a_grace_period(
    node: Node, kept: tuple[bytes, ...], mass: bool, grace_s: float
) -> None:
    async with node.open(delete_grace_s=grace_s) as store:
        await put_all(store, 1, ONE, TWO, THREE, FOUR)
        await store.put_config(config(2, *kept))
        deleted = await store.reconcile()
        assert deleted == (0 if mass and grace_s else 4 - len(kept))


async def test_a_small_drop_does_not_end_a_grace_period(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE, TWO, THREE, FOUR)
        await store.put_config(config(2, ONE))
        await store.put_config(config(3, ONE, TWO))
        assert await store.reconcile() == 0
        assert len(await node.names(A)) == 4


async def test_the_grace_period_is_in_the_ledger_of_every_dataset(node: Node) -> None:
    async with node.open() as store:
        await put_all(store, 1, ONE)
        await store.put_config(config(2))
    ends = {(await node.ledger(index)).delete_not_before_s for index in (A, B)}
    assert len(ends) == 1
    assert ends.pop() > 0
    assert LEDGER_NAME in await off_loop(os.listdir, node.paths[A])


async def test_d4_after_a_reset_a_config_that_drops_most_of_what_is_stored_waits(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(7, ONE, TWO, THREE))
        for content in (ONE, TWO, THREE):
            await put(store, content, generation=7)
        await store.reset(Generation(7))
        await store.put_config(config(1, ONE))
        assert await store.reconcile() == 0
        assert len(await node.names(A)) == 3
        await store.put_config(config(2, ONE, TWO, THREE))  # taken back
        assert await store.reconcile() == 0


async def test_d4_a_clock_that_was_far_ahead_does_not_hold_deletions_for_ever(node: Node) -> None:
    far_s = time.time() + 365 * 86400
    for index in (A, B):
        await node.write_ledger(index, Ledger(0, config(5, ONE), delete_not_before_s=far_s))
        await node.write_file(index, str(hash_of(TWO)), TWO)
    async with node.open(delete_grace_s=600.0) as store:
        assert await store.reconcile() == 0
        assert store.status().deletions_held_until_s < time.time() + 601
    async with node.open(delete_grace_s=0.0) as store:
        assert await store.reconcile() == 1
        assert store.status().deletions_held_until_s == 0


async def test_d3_the_first_pass_goes_by_what_attaching_found_and_the_next_by_the_disk(
    node: Node,
) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        await store.put_config(config(2, ONE))
        await node.write_file(A, str(hash_of(THREE)), THREE)
        reconciler = store._parts.reconciler
        assert await reconciler.run_once(rescan=False) == 1
        assert [await node.read(A, content) for content in (TWO, THREE)] == [None, THREE]
        assert await reconciler.run_once() == 1
        assert await node.read(A, THREE) is None
