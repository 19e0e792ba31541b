"""Space: promised before the first byte, never passed, and what goes on when there is none."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash
from depot.config.ledger import Ledger, encode_ledger
from depot.dataset.space import RESERVE, RESERVE_BYTES
from depot.device.host import DeviceWorkers
from depot.errors import QuotaExceeded, TooLarge
from depot.initialise import init_datasets
from depot.streams.sources import FileSource
from tests import ondisk
from tests.loop_mount import loop_disk
from tests.store.builders import (
    MIB,
    ONE,
    THREE,
    TWO,
    A,
    B,
    BytesSource,
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
    used_bytes,
)
from tests.store.faulty import FaultyDisk
from tests.store.loop_mount import fill_bytes, fill_inodes, loop_mount

TEN = [bytes([number]) * 10_000 for number in range(10)]


async def test_q1_concurrent_puts_are_admitted_until_the_quota_is_promised(node: Node) -> None:
    async with node.open(quota_bytes=35_000) as store:
        await store.put_config(config(1, *TEN))
        sources = [GatedSource(content) for content in TEN]
        running = [
            asyncio.ensure_future(put(store, content, source=source))
            for content, source in zip(TEN, sources, strict=True)
        ]
        done, admitted = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        while len(done) < 7:
            done, admitted = await asyncio.wait(admitted, return_when=asyncio.FIRST_COMPLETED)
            done = {task for task in running if task.done()}
        assert len(admitted) == 3
        assert reserved_bytes(store) == [30_000, 30_000]
        assert all(isinstance(task.exception(), QuotaExceeded) for task in done)
        for source in sources:
            source.open_gate()
        await asyncio.wait(admitted)
        assert used_bytes(store) == [30_000, 30_000]
        assert reserved_bytes(store) == [0, 0]
        with pytest.raises(QuotaExceeded):
            await put(store, TEN[9] if hash_of(TEN[9]) not in copies(store) else TEN[0])
    assert await off_loop(ondisk.stored_bytes, node.paths[A]) == 30_000


async def test_q1_space_is_promised_as_a_body_of_unknown_length_grows(node: Node) -> None:
    content = os.urandom(3 * MIB)
    async with node.open(quota_bytes=4 * MIB) as store:
        await store.put_config(config(1, content, ONE))
        source = GatedSource(content, before_bytes=2 * MIB)
        running = asyncio.ensure_future(put(store, content, source=source, announced=False))
        await source.reached()
        assert reserved_bytes(store) == [2 * MIB, 2 * MIB]
        source.open_gate()
        assert (await running).copies == 2
        assert (used_bytes(store), reserved_bytes(store)) == ([3 * MIB] * 2, [0, 0])


async def test_a_body_of_unknown_length_ends_where_the_room_ends(node: Node) -> None:
    content = os.urandom(6 * MIB)
    async with node.open(quota_bytes=6 * MIB) as store:
        await store.put_config(config(1, content, ONE))
        await put(store, ONE)
        source = BytesSource(content)
        with pytest.raises(QuotaExceeded):
            await put(store, content, source=source, announced=False)
        assert source.read_bytes <= 6 * MIB
        assert (used_bytes(store), reserved_bytes(store)) == ([len(ONE)] * 2, [0, 0])
    assert await node.leftovers() == []


async def test_an_endless_body_ends_at_the_largest_size(node: Node) -> None:
    source = BytesSource(bytes(20 * MIB))
    async with node.open(max_artifact_size_bytes=2 * MIB) as store:
        await store.put_config(config(1, ONE))
        with pytest.raises(TooLarge):
            await put(store, ONE, source=source, announced=False)
        assert source.read_bytes <= 3 * MIB
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


@pytest.mark.parametrize("announced", [True, False])
async def test_q2_a_full_dataset_does_not_fail_what_the_other_already_holds(
    node: Node, announced: bool
) -> None:
    # B4: A holds it, B lacks it and has no room for it.
    content = os.urandom(2 * MIB)
    filler = os.urandom(3 * MIB)
    async with node.open(quota_bytes=4 * MIB) as store:
        await store.put_config(config(1, content, filler))
        await node.take_away(B)
        await store.check_datasets()
        await put(store, content)
        await node.bring_back(B)
        await node.write_file(B, str(hash_of(filler)), filler)
        await store.check_datasets()
        assert used_bytes(store) == [2 * MIB, 3 * MIB]
        stored = await put(store, content, announced=announced)
        assert stored.copies == 1
        assert reserved_bytes(store) == [0, 0]
    assert await node.leftovers() == []


async def test_what_can_never_fit_is_too_large_and_what_does_not_fit_now_is_not(
    node: Node,
) -> None:
    async with node.open(quota_bytes=20_000, max_artifact_size_bytes=15_000) as store:
        await store.put_config(config(1, *TEN, bytes(15_001)))
        with pytest.raises(TooLarge):
            await put(store, bytes(15_001))
        for content in TEN[:2]:
            await put(store, content)
        with pytest.raises(QuotaExceeded):
            await put(store, TEN[2])


async def test_a_quota_below_the_largest_size_binds(node: Node) -> None:
    async with node.open(quota_bytes=len(ONE)) as store:
        await store.put_config(config(1, ONE, ONE + b"!"))
        with pytest.raises(TooLarge):
            await put(store, ONE + b"!")
        assert (await put(store, ONE)).copies == 2


async def test_q1_use_is_right_after_a_restart_also_under_a_lower_quota(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        for content in (ONE, TWO):
            await put(store, content)
    await node.write_file(A, "somebody-elses", bytes(100_000))
    await node.write_file(A, ".sled-depot/staging/dead", bytes(100_000))
    async with node.open(quota_bytes=len(ONE)) as store:
        assert used_bytes(store) == [len(ONE) + len(TWO)] * 2
        assert [dataset.available_bytes for dataset in store.status().datasets] == [0, 0]
        with pytest.raises((QuotaExceeded, TooLarge)):
            await put(store, THREE)
        assert await read_back(store, TWO) == TWO
        await store.put_config(config(2, ONE, TWO, THREE))
        assert (await put(store, ONE, generation=2)).copies == 2  # held


async def test_deleting_makes_room(node: Node) -> None:
    async with node.open(quota_bytes=20_000) as store:
        await store.put_config(config(1, *TEN[:3]))
        for content in TEN[:2]:
            await put(store, content)
        await store.put_config(config(2, *TEN[1:3]))
        await store.reconcile()
        assert (await put(store, TEN[2], generation=2)).copies == 2


async def test_q1_replacing_an_artifact_counts_it_once(node: Node) -> None:
    async with node.open(quota_bytes=2 * len(ONE)) as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await node.write_file(B, str(hash_of(ONE)), b"X" * len(ONE))
        assert (await put(store, ONE)).copies == 2
        assert used_bytes(store) == [len(ONE), len(ONE)]


def test_the_reserve_is_enough_for_the_largest_config() -> None:
    # 16 MiB of JSON is the largest body a config may have; a hash takes 67 bytes of it.
    few, many = (
        len(encode_ledger(Ledger(0, ArtifactConfig.make(1, hashes(count)))))
        for count in (1000, 2000)
    )
    assert (many - few) / 1000 * (16 * MIB / 67) < RESERVE_BYTES


def hashes(count: int) -> list[ArtifactHash]:
    return [ArtifactHash(number.to_bytes(32)) for number in range(count)]


@pytest.mark.in_threads
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_the_reserve_is_refilled_after_it_was_used(node: Node, error: int) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        disk = node.disk(A)
        disk.fail("write", error, times=1)
        await store.put_config(config(2, ONE))
        assert await node.generation(A) == 2
        assert ("unlink", RESERVE) in disk.calls
        reserve = node.paths[A] / RESERVE
        assert (await off_loop(reserve.stat)).st_blocks > 0
        await off_loop(reserve.unlink)
        await store.check_datasets()
        assert (await off_loop(reserve.stat)).st_blocks > 0


@pytest.mark.in_threads
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_q2_a_delete_that_takes_room_has_that_of_the_reserve(node: Node, error: int) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        await store.put_config(config(2, ONE))
        disk = node.disk(A)
        disk.fail("rename", error, times=1, name="leaving-")
        assert await store.reconcile() == 1
        assert await node.names(A) == {str(hash_of(ONE))}
        assert ("unlink", RESERVE) in disk.calls
        await store.check_datasets()
        assert (await off_loop((node.paths[A] / RESERVE).stat)).st_blocks > 0


@pytest.mark.in_threads
async def test_q2_a_delete_that_finds_no_room_at_all_is_left_for_later(node: Node) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        await store.put_config(config(2, ONE))
        disk = node.disk(A)
        disk.fail("rename", errno.ENOSPC, name="leaving-")
        await store.reconcile()
        assert await node.names(A) == {str(hash_of(ONE)), str(hash_of(TWO))}
        assert await node.names(B) == {str(hash_of(ONE))}
        assert states(store) == ["healthy", "healthy"]
        assert (await off_loop((node.paths[A] / RESERVE).stat)).st_blocks > 0
        disk.heal()
        assert await store.reconcile() == 1
        assert await node.names(A) == {str(hash_of(ONE))}


# A disk that is really full


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Node]:
    """One dataset on a filesystem of 64 MiB, one on whatever there is."""
    with loop_mount(tmp_path) as disk:
        other = tmp_path / "m2-b"
        other.mkdir()
        paths = [disk, other]
        init_datasets(paths)
        yield Node(tmp_path, paths, {path: FaultyDisk() for path in paths})


@pytest.fixture
def alone(small: Node) -> Node:
    """The same with only the small one, so that nothing helps out."""
    shutil.rmtree(small.paths[1])
    small.paths[1].mkdir()
    return small


async def test_a_dataset_of_its_own_filesystem_may_require_the_mount(small: Node) -> None:
    async with small.open(require_mountpoint=True) as store:
        assert states(store) == ["healthy", "missing"]
        assert not any("one device" in warning for warning in store.status().warnings)


async def test_q2_configs_and_deletes_go_on_when_the_disk_is_full_to_the_last_byte(
    alone: Node,
) -> None:
    async with alone.open(paths=alone.paths[:1]) as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        for content in (ONE, TWO):
            await put(store, content)
        await off_loop(fill_bytes, alone.paths[A])
        with pytest.raises(QuotaExceeded):
            await put(store, THREE)
        for generation in range(2, 12):
            await store.put_config(config(generation, ONE, TWO, THREE))
            await off_loop(fill_bytes, alone.paths[A])  # somebody takes what became free
            await store.check_datasets()
        await store.put_pin("host", [hash_of(ONE)])
        assert await read_back(store, TWO) == TWO
        assert states(store) == ["healthy"]
    async with alone.open(paths=alone.paths[:1]) as store:
        assert states(store) == ["healthy"]
        assert store.config() == config(11, ONE, TWO, THREE)
        await store.put_config(config(12, ONE, THREE))
        assert await store.reconcile() == 1
        assert await alone.names(A) == {str(hash_of(ONE))}
        await off_loop((alone.paths[A] / "somebody-elses-data").unlink)
        await store.check_datasets()
        assert (await put(store, THREE, generation=12)).copies == 1
        assert not store.status().datasets[A].full


async def test_q2_configs_and_deletes_go_on_without_a_free_inode(alone: Node) -> None:
    async with alone.open(paths=alone.paths[:1]) as store:
        await store.put_config(config(1, ONE, TWO))
        await put(store, ONE)
        hogs = await off_loop(fill_inodes, alone.paths[A])
        with pytest.raises(QuotaExceeded):
            await put(store, TWO)
        await store.put_config(config(2, ONE, TWO, THREE))
        await store.put_config(config(3, TWO, THREE))
    async with alone.open(paths=alone.paths[:1], delete_grace_s=0.0) as store:
        assert states(store) == ["healthy"]
        await store.put_config(config(4, TWO))
        assert await store.reconcile() == 1
        await off_loop(shutil.rmtree, hogs)
        await store.check_datasets()
        assert (await put(store, TWO, generation=4)).copies == 1


@pytest.fixture(params=[("xfs", 320), ("btrfs", 1024)], ids=["xfs", "btrfs"])
def other_kind(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A single dataset on a filesystem that is no ext4."""
    kind, size_mib = request.param
    with loop_disk(tmp_path / "disk", size_mib=size_mib, kind=kind) as disk:
        init_datasets([disk.mount_point])
        yield Node(tmp_path, [disk.mount_point], {}, workers=DeviceWorkers.PROCESS)


async def test_q2_configs_and_deletes_go_on_when_another_filesystem_is_full(
    other_kind: Node,
) -> None:
    path = other_kind.paths[A]
    async with other_kind.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        for content in (ONE, TWO):
            await put(store, content)
        await off_loop(take_all_room, path)
        with pytest.raises(QuotaExceeded):
            await put(store, THREE)
        for generation in range(2, 6):
            await store.put_config(config(generation, ONE, TWO, THREE))
            await off_loop(take_all_room, path)
            await store.check_datasets()
        await store.put_config(config(6, ONE, THREE))
        assert await store.reconcile() == 1
        assert await other_kind.names(A) == {str(hash_of(ONE))}
        assert await other_kind.generation(A) == 6
        assert states(store) == ["healthy"]


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Node]:
    """A single dataset on a btrfs whose data and metadata share their room: a small one does."""
    with loop_disk(tmp_path / "disk", size_mib=160, kind="btrfs") as disk:
        init_datasets([disk.mount_point])
        yield Node(tmp_path, [disk.mount_point], {}, workers=DeviceWorkers.PROCESS)


async def test_q2_deletes_go_on_when_a_btrfs_has_no_room_for_metadata_either(mixed: Node) -> None:
    path = mixed.paths[A]
    async with mixed.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO, THREE))
        for content in (ONE, TWO):
            await put(store, content)
        await store.put_config(config(2, ONE, THREE))
        await off_loop(take_all_room, path)
        assert await store.reconcile() == 1
        assert await mixed.names(A) == {str(hash_of(ONE))}
        assert states(store) == ["healthy"]
        await off_loop((path / "somebody-elses-data").unlink)
        await store.check_datasets()
        assert (await off_loop((path / RESERVE).stat)).st_blocks > 0
        assert (await put(store, THREE, generation=2)).copies == 1


def take_all_room(path: Path) -> None:
    """Take every byte that files can have, without writing them."""
    fd = os.open(path / "somebody-elses-data", os.O_WRONLY | os.O_CREAT)
    try:
        for block_bytes in (64 * MIB, MIB, 4096):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(fd, os.fstat(fd).st_size, block_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)


async def test_a_full_disk_costs_one_copy_and_is_healed_when_there_is_room(small: Node) -> None:
    content = os.urandom(8 * MIB)
    async with small.open() as store:
        await store.put_config(config(1, content))
        hog = await off_loop(fill_bytes, small.paths[A])
        stored = await put(store, content)
        assert (stored.datasets, stored.copies) == (2, 1)
        assert states(store) == ["healthy", "healthy"]
        await store.check_datasets()
        assert (await put(store, content)).copies == 1
        await off_loop(hog.unlink)
        await store.check_datasets()
        assert await store.remirror() == 1
        assert copies(store) == {hash_of(content): 2}


async def test_a_quota_above_the_disk_is_bound_by_the_disk(alone: Node) -> None:
    async with alone.open(paths=alone.paths[:1]) as store:
        await store.put_config(config(1, ONE, TWO))
        with pytest.raises(TooLarge):
            await put(store, ONE, source=FileSource(-1), length_bytes=65 * MIB)
        available_bytes = store.status().datasets[A].available_bytes
        assert available_bytes < 60 * MIB
        with pytest.raises(QuotaExceeded):
            await put(store, ONE, source=FileSource(-1), length_bytes=available_bytes + 1)
        assert (await put(store, ONE)).copies == 1


class BtrfsDisk(FaultyDisk):
    """Says how many inodes there are in all, and free, as a filesystem without a table of them."""

    def statvfs(self, fd: int) -> os.statvfs_result:
        found = list(super().statvfs(fd))
        f_files, f_favail = 5, 7
        found[f_files : f_favail + 1] = [0, 0, 0]
        return os.statvfs_result(found)


async def test_a_filesystem_that_does_not_count_inodes_has_room(node: Node) -> None:
    node.disks = {path: BtrfsDisk() for path in node.paths}
    async with node.open() as store:
        await store.put_config(config(1, ONE))

        assert (await put(store, ONE)).copies == 2
