"""After a failed sync nothing on a dataset counts before it was verified past memory (B3, B5)."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from contextlib import suppress

import pytest

from depot.config.ledger import LEDGER_NAME
from depot.dataset.dataset import Dataset
from depot.dataset.durability import Durability
from depot.dataset.small_files import STAGING
from depot.os_errors import SyncFailed
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
    read_back,
    states,
)
from tests.store.faulty import HANG_S, WAIT_S

FAILURES: dict[str, tuple[str, int]] = {
    "EIO in fsync": ("fsync", errno.EIO),
    "ENOSPC in fsync": ("fsync", errno.ENOSPC),
    "EDQUOT in fsync": ("fsync", errno.EDQUOT),
    "EIO in fsync of the directory": ("fsync_directory", errno.EIO),
    "EIO in write": ("write", errno.EIO),
}


def in_doubt(store: ArtifactStore) -> list[int]:
    return [dataset.in_doubt for dataset in store.status().datasets]


async def fail_once(node: Node, store: ArtifactStore, call: str, error: int = errno.EIO) -> None:
    """Have ONE and TWO on both datasets, and B fail while it takes THREE."""
    await store.put_config(config(1, ONE, TWO, THREE))
    for content in (ONE, TWO):
        await put(store, content)
    node.disk(B).fail(call, error, times=1)
    assert (await put(store, THREE)).copies == 1


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_b3_after_a_failed_sync_no_copy_counts_before_it_was_verified(
    node: Node, failure: tuple[str, int]
) -> None:
    async with node.open() as store:
        await fail_once(node, store, *failure)
        assert states(store) == ["healthy", "suspect"]
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 1, hash_of(THREE): 1}
        assert in_doubt(store) == [0, 2]
        assert [c.present for c in (await store.describe(hash_of(ONE))).copies] == [True, False]
        assert set(store.status().under_replicated) == {hash_of(x) for x in (ONE, TWO, THREE)}

        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert in_doubt(store) == [0, 0]
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2, hash_of(THREE): 1}
        await store.remirror()
        assert copies(store)[hash_of(THREE)] == 2
    assert await node.leftovers() == []


async def test_b5_what_was_lost_with_the_failed_sync_is_found_and_healed(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        await node.write_file(B, str(hash_of(ONE)), bytes(len(ONE)))  # as the device has it
        await store.check_datasets()
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2, hash_of(THREE): 1}
        await store.remirror()
        assert copies(store) == dict.fromkeys(map(hash_of, (ONE, TWO, THREE)), 2)
    assert await node.read(B, ONE) == ONE


async def test_each_copy_counts_as_soon_as_it_is_verified_and_writes_wait_for_the_last(
    node: Node,
) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        last = max(ONE, TWO, key=hash_of)
        first = min(ONE, TWO, key=hash_of)
        hang = node.disk(B).hang("open", name=str(hash_of(last)))
        looking = asyncio.ensure_future(store.check_datasets())
        await off_loop(hang.wait_begun)
        assert copies(store)[hash_of(first)] == 2
        assert copies(store)[hash_of(last)] == 1
        assert states(store) == ["healthy", "suspect"]
        hang.let_go()
        await looking
        assert states(store) == ["healthy", "healthy"]
        assert copies(store)[hash_of(last)] == 2


async def test_b3_a_file_that_is_in_no_record_is_verified_with_the_others(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        await node.write_file(B, str(hash_of(THREE)), bytes(len(THREE)))  # as the device has it
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        await store.reconcile()
        assert copies(store)[hash_of(THREE)] == 1
        await store.remirror()
        assert copies(store)[hash_of(THREE)] == 2
    assert await node.read(B, THREE) == THREE


async def test_a_copy_in_doubt_is_still_read_when_there_is_no_other(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        await node.take_away(A)
        node.disk(B).fail("create", errno.EIO)
        await store.check_datasets()
        assert states(store) == ["missing", "suspect"]
        assert await read_back(store, ONE) == ONE
        assert copies(store) == {}


async def test_a_dataset_that_fails_while_it_is_verified_begins_again(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        node.disk(B).fail("fsync", errno.EIO, times=1)  # the probe's
        await store.check_datasets()
        assert states(store) == ["healthy", "suspect"]
        assert in_doubt(store) == [0, 2]
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]


async def test_a_restart_makes_nothing_good(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        node.disk(B).fail("create", errno.EIO)
        await store.check_datasets()
        assert in_doubt(store) == [0, 2]
    node.disk(B).heal()
    async with node.open() as store:
        assert states(store) == ["healthy", "suspect"]
        assert copies(store)[hash_of(ONE)] == 1
        assert in_doubt(store) == [0, 2]
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert copies(store)[hash_of(ONE)] == 2
    async with node.open() as store:
        assert states(store) == ["healthy", "healthy"]


async def test_s5_a_doubt_that_could_not_be_kept_is_kept_at_the_next_look(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        node.disk(B).fail("create", errno.EIO)
        staging = node.state_dir / STAGING
        await off_loop(staging.rename, node.state_dir / "away")
        await store.check_datasets()
        await off_loop((node.state_dir / "away").rename, staging)
        await store.check_datasets()
    node.disk(B).heal()
    async with node.open() as store:
        assert states(store) == ["healthy", "suspect"]
        assert in_doubt(store) == [0, 2]


async def test_a_dataset_that_went_away_in_doubt_comes_back_in_doubt(node: Node) -> None:
    async with node.open() as store:
        await fail_once(node, store, "fsync")
        await node.take_away(B)
        await store.check_datasets()
        assert states(store) == ["healthy", "missing"]
        await node.bring_back(B)
        reading = node.disk(B).hang("open", name=str(max(hash_of(ONE), hash_of(TWO))))
        looking = asyncio.ensure_future(store.check_datasets())
        await looking
        assert states(store) == ["healthy", "suspect"]
        assert copies(store)[hash_of(ONE)] == 1
        reading.let_go()
        await store.check_datasets()
        assert copies(store)[hash_of(ONE)] == 2


async def test_a_sync_that_fails_after_it_was_given_up_is_noticed(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)

        let_go = threading.Event()
        node.disk(B).before("fsync", lambda: fail_late(let_go))
        assert (await put(store, TWO)).copies == 1  # given up after the deadline
        opened = ("open", str(hash_of(ONE)))
        assert opened not in node.disk(B).calls
        let_go.set()
        async with asyncio.timeout(WAIT_S):
            while opened not in node.disk(B).calls:  # until it is not believed, but read again
                await store.check_datasets()
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]


def fail_late(let_go: threading.Event) -> None:
    let_go.wait(WAIT_S)
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# Names that a failed sync of the directory left behind


async def test_b3_a_name_that_is_not_durable_is_taken_back(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail("fsync_directory", errno.EIO, times=1)
        assert (await put(store, ONE)).copies == 1
        assert await node.names(B) == set()


async def test_b3_a_name_that_cannot_be_taken_back_is_not_counted_by_any_scan(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        name = str(hash_of(ONE))
        node.disk(B).fail("fsync_directory", errno.EIO, times=1)
        node.disk(B).fail("unlink", errno.EIO, name=name)
        assert (await put(store, ONE)).copies == 1
        assert await node.names(B) == {name}
        await store.check_datasets()
        assert states(store) == ["healthy", "suspect"]  # not while the name stands
        assert copies(store) == {hash_of(ONE): 1}
        node.disk(B).heal()
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        await store.reconcile()
        assert copies(store) == {hash_of(ONE): 1}
        assert await node.names(B) == set()
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2}


def test_b3_a_sync_beside_one_that_failed_proves_nothing() -> None:
    # The kernel reports a failure once: whoever else syncs the directory may be told all is well.
    durability = Durability()
    with pytest.raises(SyncFailed, match="another sync"), durability.syncing(names=True):
        fail_a_sync(durability)
    with durability.syncing(names=True):
        pass
    assert durability.failures == 1


def fail_a_sync(durability: Durability) -> None:
    with suppress(SyncFailed), durability.syncing(names=True):
        raise SyncFailed(errno.EIO, os.strerror(errno.EIO))


# Documents


@pytest.mark.parametrize("call", ["fsync", "fsync_directory"])
async def test_g3_a_ledger_whose_sync_failed_is_written_anew_though_it_reads_well(
    node: Node, call: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail(call, errno.EIO, times=1)
        await store.put_config(config(2, ONE, TWO))
        await node.write_ledger(B, await node.ledger(A))  # what memory would give back
        before = ledger_writes(node)
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert ledger_writes(node) == before + 1
    assert await node.generation(B) == 2


async def test_g3_a_ledger_that_a_killed_process_left_is_written_before_it_is_relied_on(
    node: Node,
) -> None:
    # Killed between the rename and the sync: it reads well, and a power cut takes it away.
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    before = ledger_writes(node)
    async with node.open() as store:
        assert ledger_writes(node) == before + 1
        await store.put_config(config(1, ONE))  # the same again: it is durable by now
        assert ledger_writes(node) == before + 1


def ledger_writes(node: Node) -> int:
    renames = [name for call, name in node.disk(B).calls if call == "rename"]
    return sum(name.endswith(f"-> {LEDGER_NAME}") for name in renames)


async def test_a_document_is_read_from_the_device_and_not_from_memory(node: Node) -> None:
    disk = node.disk(A)
    dataset = await off_loop(
        Dataset.attach, node.paths[A], require_mountpoint=False, sled_id=None, disk=disk
    )
    try:
        await off_loop(dataset.write_document, LEDGER_NAME, b"{}")
        assert await off_loop(dataset.read_document, LEDGER_NAME) == b"{}"
    finally:
        await off_loop(dataset.close)
    assert ("forget", str(node.paths[A] / LEDGER_NAME)) in disk.calls


# One sector


async def test_b4_one_file_that_cannot_be_opened_is_one_copy_and_not_the_dataset(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        node.disk(A).fail("open", errno.EIO, name=str(hash_of(ONE)))
        assert await read_back(store, ONE) == ONE
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}
        node.disk(A).heal()
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
