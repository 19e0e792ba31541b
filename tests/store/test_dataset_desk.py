"""Letting go of a dataset, taking it back, replacing its disk, and telling disks apart."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from depot.config.ledger import Ledger
from depot.errors import DatasetRefused, NoDataset, NotFound
from depot.initialise import init_datasets
from depot.options import StoreOptions
from depot.store import ArtifactStore
from tests.loop_mount import LoopDisk, loop_disk
from tests.store.builders import (
    MIB,
    ONE,
    SLED,
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
    states,
)
from tests.store.faulty import HANG_S

LARGE = os.urandom(5 * MIB + 77)


def marker(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((path / ".sled-depot/marker.json").read_bytes())
    return fields


def last_error(store: ArtifactStore, index: int) -> str:
    return store.status().datasets[index].last_error or ""


def dataset_ids(store: ArtifactStore) -> list[str | None]:
    return [dataset.dataset_id for dataset in store.status().datasets]


async def fill(store: ArtifactStore, *contents: bytes, generation: int = 1) -> None:
    await store.put_config(config(generation, *contents))
    for content in contents:
        await put(store, content, generation=generation)


# Release


async def test_a_released_dataset_is_left_alone_until_it_is_attached(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        await store.release_dataset(node.paths[B])
        assert [d.state for d in store.status().datasets] == ["healthy", "released"]
        before = await off_loop(lambda: sorted(os.listdir(node.paths[B])))
        for _ in range(3):
            await store.check_datasets()
        await store.put_config(config(2, ONE, TWO))
        assert (await put(store, TWO, generation=2)).copies == 1
        assert [d.state for d in store.status().datasets] == ["healthy", "released"]
        assert await off_loop(lambda: sorted(os.listdir(node.paths[B]))) == before
        assert await node.generation(B) == 1

        await store.attach_dataset(node.paths[B])
        assert states(store) == ["healthy", "healthy"]
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
    assert await node.generation(B) == 2


async def test_an_attach_that_hangs_is_ended_once_the_device_answers(node: Node) -> None:
    async with node.open(device_timeout_s=HANG_S) as store:
        await store.release_dataset(node.paths[B])
        hang = node.disk(B).hang("statvfs")
        with pytest.raises(DatasetRefused, match="ETIMEDOUT"):
            await store.attach_dataset(node.paths[B])
        assert states(store) == ["healthy", "missing"]  # not released: it may be open by then
        hang.let_go()
        await off_loop(hang.wait_ended)
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]


async def test_a_release_is_told_as_such(node: Node) -> None:
    async with node.open() as store:
        await store.release_dataset(node.paths[B])
    (lost,) = [fields for kind, fields in node.events if kind == "dataset_lost"]
    assert (lost["dataset"], lost["state"]) == (str(node.paths[B]), "released")


async def test_releasing_and_attaching_twice_changes_nothing(node: Node) -> None:
    async with node.open() as store:
        for _ in range(2):
            await store.release_dataset(node.paths[B])
        for _ in range(2):
            await store.attach_dataset(node.paths[B])
        assert states(store) == ["healthy", "healthy"]


async def test_a_restart_takes_a_released_dataset_back(node: Node) -> None:
    async with node.open() as store:
        await store.release_dataset(node.paths[B])
    async with node.open() as store:
        assert states(store) == ["healthy", "healthy"]


async def test_the_last_dataset_is_released_only_by_somebody_who_means_it(node: Node) -> None:
    async with node.open() as store:
        await store.release_dataset(node.paths[A])
        with pytest.raises(DatasetRefused, match="last dataset that can be read"):
            await store.release_dataset(node.paths[B])
        assert states(store) == ["released", "healthy"]
        await store.release_dataset(node.paths[B], last=True)
        with pytest.raises(NoDataset):
            store.config()


async def test_a_released_dataset_that_could_not_be_attached_stays_released(node: Node) -> None:
    async with node.open() as store:
        await store.release_dataset(node.paths[B])
        await node.take_away(B)
        await off_loop(node.paths[B].mkdir)
        with pytest.raises(
            DatasetRefused, match=r"2 cannot be used: it has no marker.*datasets replace"
        ):
            await store.attach_dataset(node.paths[B])
        assert store.status().datasets[B].state == "released"

        await off_loop(node.paths[B].rmdir)
        await node.bring_back(B)
        await store.check_datasets()
        assert [d.state for d in store.status().datasets] == ["healthy", "released"]
        await store.attach_dataset(node.paths[B])
        assert states(store) == ["healthy", "healthy"]


@pytest.mark.parametrize("verb", ["release_dataset", "attach_dataset", "replace_dataset"])
async def test_a_path_that_is_not_configured_is_not_found(node: Node, verb: str) -> None:
    async with node.open() as store:
        with pytest.raises(NotFound):
            await getattr(store, verb)(node.root)


async def test_attaching_what_is_not_there_says_why(node: Node) -> None:
    async with node.open() as store:
        await node.take_away(B)
        await store.check_datasets()
        with pytest.raises(DatasetRefused, match="No such file"):
            await store.attach_dataset(node.paths[B])


# Release on real filesystems: what is let go of can be unmounted


@asynccontextmanager
async def mounted(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[ArtifactStore, Mounts]]:
    stack = ExitStack()
    mounts = await off_loop(lambda: Mounts(stack, tmp_path))
    try:
        opening = ArtifactStore.open(
            mounts.paths, state_dir=tmp_path / "state", options=StoreOptions(**options)
        )
        async with await opening as store:
            yield store, mounts
    finally:
        await off_loop(stack.close)


class Mounts:
    """Two datasets on filesystems of their own, initialised."""

    def __init__(self, stack: ExitStack, root: Path) -> None:
        self.paths = [root / "a", root / "b"]
        self.disks: list[LoopDisk] = [
            stack.enter_context(loop_disk(path, size_mib=64)) for path in self.paths
        ]
        self._stack, self._root = stack, root
        init_datasets(self.paths, sled_id=SLED)

    def unmount(self, index: int) -> None:
        """Unmount it for real: refused by the kernel while anything is open on it."""
        subprocess.run(["umount", self.paths[index]], check=True, capture_output=True, timeout=60)

    def mount_new(self, index: int) -> None:
        """Mount another, empty filesystem at the path."""
        other = self._stack.enter_context(loop_disk(self._root / "new", size_mib=64))
        other.take_away()
        subprocess.run(["mount", other.device, self.paths[index]], check=True, timeout=60)
        self._stack.callback(self._leave, index)

    def _leave(self, index: int) -> None:
        subprocess.run(["umount", "--lazy", self.paths[index]], check=False, timeout=60)


async def test_a_released_dataset_can_be_unmounted_while_it_is_read_and_written(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path) as (store, mounts):
        await fill(store, LARGE)
        await store.put_config(config(2, LARGE, ONE))
        source = GatedSource(ONE, before_bytes=10)
        writing = asyncio.ensure_future(put(store, ONE, generation=2, source=source))
        await source.reached()
        with await store.open_artifact(hash_of(LARGE)) as reading:
            assert reading.dataset == A
            await store.release_dataset(mounts.paths[A])
            await off_loop(mounts.unmount, A)
            with pytest.raises(OSError, match="Bad file descriptor") as failed:
                await off_loop(os.pread, reading.fd, 10, 0)
            store.read_failed(reading, failed.value)
            with await store.open_artifact(hash_of(LARGE), exclude=[A]) as other:
                assert other.dataset == B
        source.open_gate()
        assert (await writing).copies == 1
        assert store.status().datasets[A].state == "released"
        await off_loop(mounts.disks[A].mount)
        await store.attach_dataset(mounts.paths[A])
        await store.remirror()
        assert copies(store) == {hash_of(LARGE): 2, hash_of(ONE): 2}


async def test_releasing_one_leaves_the_files_of_the_other_open(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (store, mounts):
        await fill(store, LARGE)
        with await store.open_artifact(hash_of(LARGE), exclude=[A]) as reading:
            await store.release_dataset(mounts.paths[A])
            assert await off_loop(os.pread, reading.fd, 10, 0) == LARGE[:10]
        assert (await put(store, LARGE)).copies == 1


async def test_an_m2_is_replaced_by_an_empty_one_and_everything_is_mirrored_again(
    tmp_path: Path,
) -> None:
    async with mounted(tmp_path) as (store, mounts):
        await fill(store, ONE, LARGE)
        old = dataset_ids(store)[B]
        await store.release_dataset(mounts.paths[B])
        await off_loop(mounts.unmount, B)

        # Three in the morning: the new disk is not mounted yet.
        with pytest.raises(DatasetRefused, match="nothing is mounted at"):
            await store.replace_dataset(mounts.paths[B])
        assert await off_loop(os.listdir, mounts.paths[B]) == []

        await off_loop(mounts.mount_new, B)
        new = await store.replace_dataset(mounts.paths[B])
        assert new != old
        assert states(store) == ["healthy", "healthy"]
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(LARGE): 2}
        assert (await off_loop(marker, mounts.paths[A]))["siblings"] == [new]
        assert (await off_loop(marker, mounts.paths[A]))["retired"] == [old]
        await store.release_dataset(mounts.paths[B])  # so that it can be unmounted at the end


# Replace


async def pull(node: Node, store: ArtifactStore) -> None:
    """B's disk dies, and an empty directory is in its place."""
    await node.take_away(B)
    await store.check_datasets()
    await off_loop(node.paths[B].mkdir)


async def test_replacing_writes_the_ledger_and_tells_the_sibling(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE, TWO)
        await store.put_pin("host", [hash_of(ONE)])
        old = (await off_loop(marker, node.paths[B]))["dataset_id"]
        await pull(node, store)
        new = await store.replace_dataset(node.paths[B])
        assert states(store) == ["healthy", "healthy"]
        assert await node.ledger(B) == await node.ledger(A)
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
    ours, theirs = [await off_loop(marker, path) for path in node.paths]
    assert (ours["siblings"], theirs["siblings"]) == ([new], [ours["dataset_id"]])
    assert ours["retired"] == theirs["retired"] == [old]
    assert ours["sled_id"] == theirs["sled_id"] == SLED
    assert "dataset_replaced" in node.kinds()
    await node_without(node, A)
    async with node.open() as store:
        assert store.config() == config(1, ONE, TWO)
        assert list(store.pins()) == ["host"]


async def node_without(node: Node, index: int) -> None:
    await off_loop(node.paths[index].rename, node.root / "gone")


async def test_a_dataset_in_use_is_not_replaced(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        with pytest.raises(DatasetRefused, match="in use: nothing is replaced"):
            await store.replace_dataset(node.paths[B])
        await store.release_dataset(node.paths[B])
        with pytest.raises(DatasetRefused, match="not an empty one"):
            await store.replace_dataset(node.paths[B])
        assert store.status().datasets[B].state == "released"
        await store.attach_dataset(node.paths[B])
        assert copies(store) == {hash_of(ONE): 2}


@pytest.mark.parametrize("name", ["photos", str(hash_of(ONE)), ".sled-depot/pins.json"])
async def test_a_disk_with_anything_on_it_is_left_alone(node: Node, name: str) -> None:
    async with node.open() as store:
        await pull(node, store)
        held = node.paths[B] / name
        await off_loop(held.parent.mkdir, exist_ok=True)
        await off_loop(held.write_bytes, b"precious")
        with pytest.raises(DatasetRefused, match="not empty"):
            await store.replace_dataset(node.paths[B])
        assert await off_loop(held.read_bytes) == b"precious"
        assert not await off_loop((node.paths[B] / ".sled-depot/marker.json").exists)
        assert states(store) == ["healthy", "missing"]


@pytest.mark.parametrize("name", ["lost+found", ".zfs", ".sled-depot", ".sled-depot/staging"])
async def test_what_systems_and_crashes_leave_is_no_data(node: Node, name: str) -> None:
    async with node.open() as store:
        await pull(node, store)
        await off_loop((node.paths[B] / name).mkdir, parents=True)
        await store.replace_dataset(node.paths[B])
        assert states(store) == ["healthy", "healthy"]


async def test_a_disk_from_another_sled_is_refused(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        await pull(node, store)
        await off_loop(init_datasets, [node.paths[B]], sled_id="another-sled")
        before = await off_loop((node.paths[B] / ".sled-depot/marker.json").read_bytes)
        for verb in (store.replace_dataset, store.attach_dataset):
            with pytest.raises(DatasetRefused, match="another-sled"):
                await verb(node.paths[B])
        assert await off_loop((node.paths[B] / ".sled-depot/marker.json").read_bytes) == before
        assert states(store) == ["healthy", "missing"]


async def test_a_path_that_was_no_mount_where_one_is_required_is_refused(node: Node) -> None:
    async with node.open(require_mountpoint=True) as store:
        with pytest.raises(NoDataset):
            await store.replace_dataset(node.paths[B])
    async with node.open() as store:
        await pull(node, store)
        store._parts.mirrors.all[A].was_mount = True  # as if the other one were a disk of its own
        with pytest.raises(DatasetRefused, match="nothing is mounted at"):
            await store.replace_dataset(node.paths[B])
        assert await off_loop(os.listdir, node.paths[B]) == []
        await store.replace_dataset(node.paths[B], plain_directory=True)
        assert states(store) == ["healthy", "healthy"]


async def test_nothing_is_replaced_while_no_other_dataset_can_be_read(node: Node) -> None:
    async with node.open() as store:
        await pull(node, store)
        await node.take_away(A)
        await store.check_datasets()
        with pytest.raises(NoDataset, match="nothing to mirror from"):
            await store.replace_dataset(node.paths[B])
        assert await off_loop(os.listdir, node.paths[B]) == []


# The disk that was replaced comes back


@pytest.fixture
def replaced(node: Node) -> Iterator[Node]:
    """B was replaced at generation 2; its old disk, of generation 1, is beside it."""

    async def replace() -> None:
        async with node.open() as store:
            await fill(store, ONE, TWO)
            await pull(node, store)
            await store.put_config(config(2, ONE, THREE))
            await store.replace_dataset(node.paths[B])
            await put(store, THREE, generation=2)
            await store.remirror()
        await off_loop(node.paths[B].rename, node.root / "new")
        await node.bring_back(B)

    asyncio.run(replace())
    yield node
    shutil.rmtree(node.root / "new")


async def test_a_retired_disk_is_not_taken_back_by_itself(replaced: Node) -> None:
    node = replaced
    async with node.open() as store:
        assert states(store) == ["healthy", "missing"]
        assert "which another disk has replaced" in last_error(store, B)
        await store.check_datasets()
        assert states(store) == ["healthy", "missing"]
        assert copies(store) == {hash_of(ONE): 1, hash_of(THREE): 1}
    assert await node.generation(B) == 1


async def test_g1_a_retired_disk_that_is_taken_back_brings_no_old_state(replaced: Node) -> None:
    node = replaced
    async with node.open(delete_grace_s=0.0) as store:
        retired = (await off_loop(marker, node.paths[B]))["dataset_id"]
        await node.write_file(B, str(hash_of(ONE)), bytes(len(ONE)))
        await store.attach_dataset(node.paths[B])
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert store.config() == config(2, ONE, THREE)
        await store.remirror()
        await store.reconcile()
        assert copies(store) == {hash_of(ONE): 2, hash_of(THREE): 2}
        assert await node.read(B, ONE) == ONE
        assert await node.names(B) == {str(hash_of(ONE)), str(hash_of(THREE))}
        assert retired not in (await off_loop(marker, node.paths[A]))["retired"]
    async with node.open() as store:
        assert states(store) == ["healthy", "healthy"]
    assert await node.generation(B) == 2


# Disks that changed slots, and copies of disks


async def test_datasets_swapped_between_slots_are_recognised(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        before = dataset_ids(store)
        await node.swap(store)
        assert dataset_ids(store) == before[::-1]
        assert copies(store) == {hash_of(ONE): 2}
    async with node.open() as store:
        assert dataset_ids(store) == before[::-1]
        assert await read_back(store, ONE) == ONE


@pytest.mark.parametrize("running", [True, False])
async def test_a_copy_of_a_disk_is_refused_beside_the_disk(node: Node, running: bool) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        await node.take_away(B)
        if running:
            await store.check_datasets()
            await off_loop(shutil.copytree, node.paths[A], node.paths[B])
            await store.check_datasets()
            check_copy_refused(node, store)
    if not running:
        await off_loop(shutil.copytree, node.paths[A], node.paths[B])
    async with node.open() as store:
        check_copy_refused(node, store)
        assert (await put(store, ONE)).copies == 1
        await store.put_config(config(2, ONE))
    assert await node.generation(B) == 1


def check_copy_refused(node: Node, store: ArtifactStore) -> None:
    assert states(store) == ["healthy", "missing"]
    assert "copy of the other's disk" in last_error(store, B)
    assert str(node.paths[A]) in last_error(store, B)


async def test_a_stale_ledger_on_a_disk_from_another_slot_is_compared_by_rank(node: Node) -> None:
    async with node.open() as store:
        await fill(store, ONE)
        await node.take_away(B)
        await store.put_config(config(2, ONE, TWO))
        await node.write_ledger(B, Ledger(0, config(1, ONE)))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.config() == config(2, ONE, TWO)
    assert await node.generation(B) == 2
