"""One dataset fails in every way; the other serves (B4). Then it comes back (B5, G3)."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from pathlib import Path

import pytest

from depot.config.ledger import LEDGER_NAME
from depot.dataset.dataset import Dataset
from depot.errors import DatasetBusy, NoDataset, QuotaExceeded
from depot.initialise import init_datasets
from depot.store import ArtifactStore
from tests.descriptors import open_descriptors
from tests.store.builders import (
    MIB,
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
    reserved_bytes,
    states,
    threads_end,
    used_bytes,
)
from tests.store.faulty import HANG_S, WAIT_S

LARGE = os.urandom(5 * MIB + 77)


async def check_serves_alone(store: ArtifactStore, content: bytes) -> None:
    """The other dataset does everything that can be asked of a node."""
    stored = await put(store, content)
    assert stored.copies == 1
    assert await read_back(store, content) == content
    await store.put_pin("consumer", [hash_of(content)])
    assert copies(store)[hash_of(content)] == 1


async def check_joins_again(node: Node, store: ArtifactStore, *contents: bytes) -> None:
    """Both datasets are used again, and what the returned one lacks is brought to it."""
    await store.check_datasets()
    assert states(store) == ["healthy", "healthy"]
    assert [d.last_error for d in store.status().datasets] == [None, None]
    assert (await node.ledger(A)) == (await node.ledger(B))
    await store.remirror()
    assert copies(store) == dict.fromkeys(map(hash_of, contents), 2)
    assert [await node.read(B, content) for content in contents] == list(contents)
    assert store.status().under_replicated == ()
    assert used_bytes(store) == [sum(map(len, contents))] * 2
    assert reserved_bytes(store) == [0, 0]


# Missing, before the start and after


async def test_a_dataset_missing_at_the_start_is_used_when_it_comes(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    await node.take_away(B)
    async with node.open() as store:
        status = store.status().datasets[B]
        assert (status.state, status.mounted, status.dataset_id) == ("missing", False, None)
        assert "No such file or directory" in (status.last_error or "")
        await check_serves_alone(store, ONE)
        await store.put_config(config(2, ONE, TWO))
        assert (await put(store, TWO, generation=2)).copies == 1
        await node.bring_back(B)
        await check_joins_again(node, store, ONE, TWO)
    assert [fields["dataset"] for kind, fields in node.events if kind == "dataset_returned"] == [
        str(node.paths[B])
    ]
    assert node.kinds().count("healed") == 2


async def test_a_dataset_without_its_marker_is_missing_and_nothing_is_written_there(
    node: Node,
) -> None:
    marker = node.paths[B] / ".sled-depot" / "marker.json"
    kept = await off_loop(marker.read_bytes)
    await off_loop(marker.unlink)
    async with node.open() as store:
        assert states(store) == ["healthy", "missing"]
        assert "has no marker" in (store.status().datasets[B].last_error or "")
        await off_loop(marker.write_bytes, kept)
        await store.check_datasets()
        await store.put_config(config(1, ONE))
        await off_loop(marker.unlink)
        assert (await put(store, ONE)).copies == 1
        assert states(store) == ["healthy", "missing"]
        assert "lost its marker" in (store.status().datasets[B].last_error or "")
        assert await node.names(B) == set()
        await off_loop(marker.write_bytes, kept)
        await check_joins_again(node, store, ONE)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"format": 1}'])
async def test_a_torn_marker_is_a_dataset_that_is_missing(node: Node, torn: bytes) -> None:
    await node.write_file(B, ".sled-depot/marker.json", torn)
    async with node.open() as store:
        assert states(store) == ["healthy", "missing"]
        assert "marker.json" in (store.status().datasets[B].last_error or "")


async def test_another_sleds_dataset_is_left_alone(node: Node, tmp_path: Path) -> None:
    other = tmp_path / "other"
    await off_loop(other.mkdir)
    await off_loop(init_datasets, [other], sled_id="another-sled")
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await off_loop(other.rename, node.paths[B])
        before = await off_loop(lambda: sorted(os.listdir(node.paths[B])))
        await store.check_datasets()
        await store.check_datasets()
        assert states(store) == ["healthy", "missing"]
        reason = store.status().datasets[B].last_error or ""
        assert "another-sled" in reason
        assert "sled-under-test" in reason
        await check_serves_alone(store, ONE)
        await store.put_config(config(2, ONE, TWO))
        assert await off_loop(lambda: sorted(os.listdir(node.paths[B]))) == before


async def test_another_sleds_dataset_in_the_first_slot_takes_nothing_over(
    node: Node, tmp_path: Path
) -> None:
    async with node.open() as store:
        await store.put_config(config(7, ONE))
    other = tmp_path / "other"
    await off_loop(other.mkdir)
    await off_loop(init_datasets, [other], sled_id="another-sled")
    async with node.open(paths=[other, node.paths[B]]) as store:
        assert states(store) == ["missing", "healthy"]
        assert store.status().sled_id == "sled-under-test"
        assert store.status().generation == 7


async def test_a_path_that_is_no_mount_is_missing_where_a_mount_is_required(node: Node) -> None:
    async with node.open(require_mountpoint=True) as store:
        assert states(store) == ["missing", "missing"]
        assert "not a mount point" in (store.status().datasets[A].last_error or "")


async def test_both_datasets_on_one_device_are_warned_about(node: Node) -> None:
    async with node.open() as store:
        assert any("one device" in warning for warning in store.status().warnings)


# Failing in the middle of a put


FAULTS = {
    "EIO at create": ("create", errno.EIO, "EIO"),
    "EIO in write": ("write", errno.EIO, "EIO"),
    "EIO in fsync": ("fsync", errno.EIO, "EIO"),
    "EIO in rename": ("rename", errno.EIO, "EIO"),
    "EIO in fsync of the directory": ("fsync_directory", errno.EIO, "EIO"),
    "read-only at create": ("create", errno.EROFS, "EROFS"),
    "read-only in rename": ("rename", errno.EROFS, "EROFS"),
}


@pytest.mark.in_threads
@pytest.mark.parametrize("content", [ONE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_dataset_that_fails_in_a_put_costs_one_copy(
    node: Node, fault: tuple[str, int, str], content: bytes
) -> None:
    call, error, name = fault
    async with node.open() as store:
        await store.put_config(config(1, content, TWO))
        node.disk(B).fail(call, error)
        stored = await put(store, content)
        assert (stored.datasets, stored.copies) == (2, 1)
        assert stored.failures == (f"dataset 2: {name}: {os.strerror(error)}",)
        assert states(store) == ["healthy", "suspect"]
        status = store.status().datasets[B]
        assert status.last_error == f"{name}: {os.strerror(error)}"
        assert not status.full
        assert copies(store) == {hash_of(content): 1}
        assert reserved_bytes(store) == [0, 0]
        stored = await put(store, TWO)  # it is not even tried there
        assert (stored.datasets, stored.copies) == (1, 1)
        node.disk(B).heal()
        await check_joins_again(node, store, content, TWO)
    assert node.kinds().count("dataset_lost") == node.kinds().count("dataset_returned") == 1
    assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_a_failed_fsync_is_never_tried_again(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        before = len([call for call, _ in node.disk(B).calls if call == "fsync"])
        node.disk(B).fail("fsync", errno.EIO, times=1)
        assert (await put(store, ONE)).copies == 1
        assert len([call for call, _ in node.disk(B).calls if call == "fsync"]) == before + 1
        assert await node.names(B) == set()


@pytest.mark.in_threads
async def test_a_dataset_that_turned_read_only_is_still_read(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
        node.disk(B).turn_read_only()
        assert (await put(store, TWO)).copies == 1
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 1}
        await store.check_datasets()
        assert states(store) == ["healthy", "suspect"]
        await node.take_away(A)
        await store.check_datasets()
        assert states(store) == ["missing", "suspect"]
        assert await read_back(store, ONE) == ONE
        assert store.config() == config(1, ONE, TWO)
        with pytest.raises(NoDataset):
            await put(store, TWO)


@pytest.mark.in_threads
@pytest.mark.parametrize("how", ["read-only", "EIO"])
async def test_a_dataset_that_cannot_be_written_at_the_start_is_read(node: Node, how: str) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
    if how == "read-only":
        node.disk(B).turn_read_only()
    else:
        node.disk(B).fail("write", errno.EIO)
    async with node.open() as store:
        assert states(store) == ["healthy", "suspect"]
        name = "EROFS" if how == "read-only" else "EIO"
        assert name in (store.status().datasets[B].last_error or "")
        assert copies(store) == {hash_of(ONE): 2}
        assert (await put(store, TWO)).copies == 1
        node.disk(B).heal()
        await check_joins_again(node, store, ONE, TWO)


@pytest.mark.in_threads
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("content", [ONE, LARGE], ids=["small", "large"])
async def test_a_full_dataset_costs_one_copy_and_is_not_missing(
    node: Node, error: int, content: bytes
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, content))
        node.disk(B).fill_up(error)
        assert (await put(store, content)).copies == 1
        status = store.status().datasets[B]
        assert (status.state, status.full) == ("healthy", True)
        assert errno.errorcode[error] in (status.last_error or "")
        node.disk(B).heal()
        await check_joins_again(node, store, content)
        assert not store.status().datasets[B].full
    assert await node.leftovers() == []


@pytest.mark.in_threads
async def test_both_datasets_full_is_a_quota_matter(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        for index in (A, B):
            node.disk(index).fill_up()
        with pytest.raises(QuotaExceeded):
            await put(store, ONE)
        assert copies(store) == {}


@pytest.mark.in_threads
async def test_a_full_dataset_at_the_start_is_full_and_not_missing(node: Node) -> None:
    # No inode left: not even an empty file can be made.
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
    node.disk(B).fill_up()
    node.disk(B).fail("create", errno.ENOSPC)
    async with node.open() as store:
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(ONE): 2}
        assert (await put(store, TWO)).copies == 1
        assert store.status().datasets[B].full


# Hanging


@pytest.mark.in_threads
@pytest.mark.parametrize("content", [b"tiny", ONE, LARGE], ids=["tiny", "small", "large"])
@pytest.mark.parametrize("call", ["create", "write", "fsync", "rename"])
async def test_a_dataset_that_hangs_in_a_put_costs_one_copy(
    node: Node, call: str, content: bytes
) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.put_config(config(1, content))
        hang = node.disk(B).hang(call)
        stored = await put(store, content)
        assert (stored.datasets, stored.copies) == (2, 1)
        assert stored.failures == ("dataset 2: ETIMEDOUT: Connection timed out",)
        assert states(store) == ["healthy", "suspect"]
        assert await node.read(A, content) == content
        hang.let_go()
        await off_loop(hang.wait_ended)
        await check_joins_again(node, store, content)
    await threads_end("ingest-")
    assert await node.leftovers() == []


@pytest.mark.in_threads
@pytest.mark.parametrize("calls", [("write",), ("rename", "unlink")])
async def test_a_dataset_that_hangs_delays_a_put_by_one_timeout_only(
    node: Node, calls: tuple[str, ...]
) -> None:
    async with node.open(device_timeout_s=2 * HANG_S) as store:
        await store.put_config(config(1, LARGE))
        hangs = [node.disk(B).hang(call) for call in calls]
        async with asyncio.timeout(3.9 * HANG_S):
            await put(store, LARGE)
        for hang in hangs:
            hang.let_go()


@pytest.mark.in_threads
async def test_an_open_that_hangs_gives_its_descriptor_back_when_it_ends(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        descriptors = await open_descriptors()
        hang = node.disk(A).hang("open", name=str(hash_of(ONE)))
        with await store.open_artifact(hash_of(ONE)) as opened:
            assert opened.dataset == B
        hang.let_go()
    await threads_end("dataset-")
    assert await open_descriptors() == descriptors - 8  # the database has three


@pytest.mark.in_threads
async def test_a_cancelled_open_gives_its_descriptor_back(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        descriptors = await open_descriptors()
        hang = node.disk(A).hang("open", name=str(hash_of(ONE)))
        opening = asyncio.ensure_future(store.open_artifact(hash_of(ONE)))
        await off_loop(hang.wait_begun)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        hang.let_go()
    await threads_end("dataset-")
    assert await open_descriptors() == descriptors - 8  # the database has three


@pytest.mark.in_threads
async def test_a_hung_dataset_does_not_delay_close_for_ever(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.put_config(config(1, ONE))
        hang = node.disk(B).hang("create")
        assert (await put(store, ONE)).copies == 1
    hang.let_go()


@pytest.mark.in_threads
async def test_a_crowd_of_verifications_leaves_threads_for_everything_else(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
        reading = Crowd()
        node.disk(A).before("pread", reading, times=None, name=str(hash_of(ONE)))
        crowd = [asyncio.ensure_future(put(store, ONE)) for _ in range(20)]
        await off_loop(reading.begun.wait, WAIT_S)
        assert (await put(store, TWO)).copies == 2
        reading.let_go.set()
        assert [stored.copies for stored in await asyncio.gather(*crowd)] == [2] * 20
        assert reading.most <= 2


class Crowd:
    """Calls that wait together; `most` of them at once."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self.begun.set()
        self.let_go.wait(WAIT_S)
        with self._lock:
            self._inside -= 1


# The path leads elsewhere


def test_a_closed_dataset_touches_nothing_though_its_descriptor_is_used_again(
    node: Node, tmp_path: Path
) -> None:
    dataset = Dataset.attach(node.paths[A], require_mountpoint=False, sled_id=None)
    dataset.close()
    (tmp_path / str(hash_of(ONE))).write_bytes(ONE)
    taken = [os.open(tmp_path, os.O_RDONLY) for _ in range(5)]
    try:
        for call in (dataset.scan, dataset.check_identity, dataset.space, dataset.stage):
            with pytest.raises(OSError, match="Bad file descriptor"):
                call()
        with pytest.raises(OSError, match="Bad file descriptor"):
            dataset.artifact_size(hash_of(ONE))
        dataset.close()
        assert [os.fstat(fd).st_ino for fd in taken] == [tmp_path.stat().st_ino] * 5
    finally:
        for fd in taken:
            os.close(fd)


async def test_a_dataset_moved_away_in_a_put_is_written_to_no_more(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        source = GatedSource(ONE, before_bytes=10)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await node.take_away(B)
        source.open_gate()
        stored = await running
        assert (stored.datasets, stored.copies) == (2, 1)
        assert states(store) == ["healthy", "missing"]
        assert not await off_loop((node.away_path(B) / str(hash_of(ONE))).exists)
        await node.bring_back(B)
        await check_joins_again(node, store, ONE)
    assert await node.leftovers() == []


async def test_nothing_is_written_to_a_directory_that_took_a_datasets_place(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        source = GatedSource(ONE, before_bytes=10)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await node.take_away(B)
        await off_loop(node.paths[B].mkdir)
        source.open_gate()
        assert (await running).copies == 1
        assert (await put(store, TWO)).copies == 1
        await store.put_config(config(2, ONE, TWO, THREE))
        await store.check_datasets()
        assert "has no marker" in (store.status().datasets[B].last_error or "")
        assert await off_loop(os.listdir, node.paths[B]) == []
        await off_loop(node.paths[B].rmdir)
        await node.bring_back(B)
        await check_joins_again(node, store, ONE, TWO)


async def test_a_dataset_that_went_and_came_back_during_a_put_gets_nothing_from_before(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        source = GatedSource(ONE, before_bytes=10)
        running = asyncio.ensure_future(put(store, ONE, source=source))
        await source.reached()
        await node.take_away(B)
        await store.check_datasets()
        await node.bring_back(B)
        await store.check_datasets()
        source.open_gate()
        assert (await running).copies == 1
        await check_joins_again(node, store, ONE)
    assert await node.leftovers() == []


# Both out


async def test_with_both_datasets_out_every_verb_says_so_and_all_recovers(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        for index in (A, B):
            await node.take_away(index)
        await store.check_datasets()
        assert states(store) == ["missing", "missing"]
        for refused in (
            lambda: store.put_config(config(2)),
            lambda: put(store, ONE),
            lambda: store.open_artifact(hash_of(ONE)),
            lambda: store.describe(hash_of(ONE)),
            lambda: store.put_pin("consumer", []),
            lambda: store.delete_pin("consumer"),
        ):
            with pytest.raises(NoDataset) as error:
                await refused()
            assert str(node.root) not in str(error.value)
        for verb in (store.config, store.list_artifacts, store.pins):
            with pytest.raises(NoDataset):
                verb()
        assert await store.reconcile() == await store.remirror() == 0
        for index in (A, B):
            await node.bring_back(index)
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert store.config() == config(1, ONE)
        assert copies(store) == {hash_of(ONE): 2}


async def test_a_start_with_no_dataset_at_all_waits_for_one(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    for index in (A, B):
        await node.take_away(index)
    async with node.open() as store:
        with pytest.raises(NoDataset):
            store.config()
        await node.bring_back(A)
        await store.check_datasets()
        assert store.config() == config(1, ONE)
        assert (await put(store, ONE)).copies == 1


async def test_datasets_may_be_looked_at_by_several_at_once(node: Node) -> None:
    await node.take_away(B)
    async with node.open() as store:
        await node.bring_back(B)
        await asyncio.gather(*(store.check_datasets() for _ in range(5)))
        assert states(store) == ["healthy", "healthy"]
    assert node.kinds() == ["dataset_returned"]


# Locks


async def test_a_second_store_on_the_same_datasets_is_refused(node: Node, tmp_path: Path) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(DatasetBusy, match="in use by another process"):
            await ArtifactStore.open(node.paths, state_dir=tmp_path / "other-state")
        with pytest.raises(DatasetBusy, match="state directory of a running process"):
            await ArtifactStore.open([tmp_path], state_dir=node.state_dir)
    async with node.open() as store:
        assert store.config() == config(1, ONE)


async def test_with_one_dataset_locked_the_other_starts(node: Node, tmp_path: Path) -> None:
    holding = await ArtifactStore.open([node.paths[A]], state_dir=tmp_path / "other-state")
    async with node.open() as store:
        assert states(store) == ["missing", "healthy"]
        assert f"pid {os.getpid()}" in (store.status().datasets[A].last_error or "")
        await holding.close()
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]


@pytest.mark.in_threads
async def test_a_start_that_failed_half_way_holds_no_lock(node: Node) -> None:
    # Clearing the staging directory fails once: the next look at the dataset attaches it.
    await off_loop((node.paths[B] / ".sled-depot/staging/dead").write_bytes, b"half")
    node.disk(B).fail("unlink", errno.EIO, times=1)
    descriptors = await open_descriptors()
    async with node.open() as store:
        assert states(store) == ["healthy", "missing"]
        assert await open_descriptors() == descriptors + 6
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
    assert await node.leftovers() == []


async def test_a_ledger_that_cannot_be_written_keeps_its_dataset_out_quietly(node: Node) -> None:
    # A directory in the ledger's place cannot be replaced: G3 allows no healthy dataset without it.
    async with node.open() as store:
        await store.put_config(config(1, ONE))
    path = node.paths[B] / LEDGER_NAME
    await off_loop(path.unlink)
    await off_loop(path.mkdir)
    async with node.open() as store:
        for _ in range(3):
            await store.check_datasets()
            assert states(store) == ["healthy", "suspect"]
        assert "EISDIR" in (store.status().datasets[B].last_error or "")
        assert (await put(store, ONE)).copies == 1
        await off_loop(path.rmdir)
        await check_joins_again(node, store, ONE)
    assert node.kinds().count("dataset_returned") == 1
    assert "dataset_lost" not in node.kinds()


@pytest.mark.in_threads
async def test_an_attach_that_hangs_is_waited_for_with_one_future(node: Node) -> None:
    async with node.open(device_timeout_s=0.05) as store:
        await node.take_away(B)
        await store.check_datasets()
        hang = node.disk(B).hang("statvfs")
        await node.bring_back(B)
        await store.check_datasets()
        await off_loop(hang.wait_begun)
        gc.collect()
        before = sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())
        for _ in range(20):
            await store.check_datasets()
        gc.collect()
        after = sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())
        assert after < before + 10
        hang.let_go()
        await off_loop(hang.wait_ended)


@pytest.mark.in_threads
async def test_b4_a_suspect_dataset_that_hangs_delays_no_return_of_the_other(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail("write", errno.EIO)
        await put(store, ONE)
        assert states(store) == ["healthy", "suspect"]
        await node.take_away(A)
        await store.check_datasets()
        hang = node.disk(B).hang("open", name=LEDGER_NAME)
        await node.bring_back(A)
        await store.check_datasets()
        assert states(store) == ["healthy", "suspect"]
        assert not hang.begun
        hang.let_go()


@pytest.mark.in_threads
@pytest.mark.parametrize("error", [errno.EIO, errno.EUCLEAN])
async def test_b4_one_file_that_cannot_be_looked_at_costs_one_copy_and_is_replaced(
    node: Node, error: int
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
    node.disk(B).fail("stat", error, name=str(hash_of(ONE)))
    async with node.open() as store:
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(ONE): 1, hash_of(TWO): 2}
        node.disk(B).heal()
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
        assert await read_back(store, ONE) == ONE


@pytest.mark.in_threads
@pytest.mark.parametrize("call", ["listdir", "stat", "mkdir"])
async def test_b4_looking_and_making_directories_can_fail_like_anything_else(
    node: Node, call: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
    node.disk(B).fail(call, errno.EIO, times=3)
    async with node.open() as store:
        assert copies(store)[hash_of(ONE)] >= 1
        assert await read_back(store, ONE) == ONE
        for _ in range(4):
            await store.check_datasets()
        await store.remirror()
        assert states(store) == ["healthy", "healthy"]
        assert copies(store) == {hash_of(ONE): 2}


@pytest.mark.in_threads
async def test_b4_a_dataset_whose_attach_failed_halfway_is_not_taken_for_another_process_s(
    node: Node,
) -> None:
    node.disk(A).fail("checksums_data", errno.EIO, times=1)
    async with node.open() as store:
        assert states(store) == ["missing", "healthy"]
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
