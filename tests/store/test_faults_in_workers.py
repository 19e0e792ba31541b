"""What a device answers reaches the store as it is when a worker process has the dataset.

The other tests of faults plant them in the process of the store; an agent has none there. Here the
second dataset is behind the pass-through of `tests.torture`, which fails the calls of the worker.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.device.host import DeviceWorkers
from depot.initialise import init_datasets
from depot.store import ArtifactStore
from tests.needs import Need, lack
from tests.store.builders import (
    ONE,
    THREE,
    TWO,
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
from tests.torture import fault_mount
from tests.torture.fault_fs import Fault
from tests.torture.fault_mount import FaultMount

pytestmark = pytest.mark.xdist_group("torture-alone")

SLED = "sled-under-test"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[FaultMount]:
    if (reason := fault_mount.unusable()) is not None:
        lack(Need.MOUNTS, reason)
    (tmp_path / "disk").mkdir()
    with fault_mount.fault_mount(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
def node(tmp_path: Path, mount: FaultMount) -> Node:
    """A node with a process for each dataset, of which the second one can be made to fail."""
    paths = [tmp_path / "m2-a", mount.path / "m2-b"]
    for path in paths:
        path.mkdir()
    init_datasets(paths, sled_id=SLED)
    return Node(tmp_path, paths, {}, workers=DeviceWorkers.PROCESS)


async def stock(store: ArtifactStore) -> None:
    """Have ONE and TWO on both datasets, and THREE wanted."""
    await store.put_config(config(1, ONE, TWO, THREE))
    for content in (ONE, TWO):
        await put(store, content)


async def arm(mount: FaultMount, call: str, error: int, *, times: int | None = 1) -> None:
    await off_loop(mount.arm, Fault(call=call, effect="error", error=error, times=times))


async def heals(node: Node, store: ArtifactStore) -> None:
    """Nothing fails any more: everything comes back onto both."""
    await store.check_datasets()
    assert states(store) == ["healthy", "healthy"]
    await store.reconcile()
    await store.remirror()
    assert copies(store) == dict.fromkeys(map(hash_of, (ONE, TWO, THREE)), 2)
    assert await node.read(B, THREE) == THREE


@pytest.mark.parametrize("call", ["fsync", "fsyncdir", "write"])
async def test_b3_after_an_error_of_the_device_no_copy_counts_before_it_was_verified(
    node: Node, mount: FaultMount, call: str
) -> None:
    async with node.open() as store:
        await stock(store)
        await arm(mount, call, errno.EIO)
        assert (await put(store, THREE)).copies == 1
        met = await off_loop(mount.lift)

        assert met.calls[call] == 1, "it was tried again"
        assert states(store) == ["healthy", "suspect"]
        assert copies(store) == dict.fromkeys(map(hash_of, (ONE, TWO, THREE)), 1)
        assert [dataset.in_doubt for dataset in store.status().datasets] == [0, 2]
        await heals(node, store)
        assert [dataset.in_doubt for dataset in store.status().datasets] == [0, 0]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_b4_a_dataset_without_room_is_full_and_not_suspect(
    node: Node, mount: FaultMount, error: int
) -> None:
    async with node.open() as store:
        await stock(store)
        await arm(mount, "grow", error, times=None)
        assert (await put(store, THREE)).copies == 1
        assert states(store) == ["healthy", "healthy"]
        assert store.status().datasets[B].full
        await off_loop(mount.lift)
        await heals(node, store)


async def test_b4_a_dataset_that_turns_read_only_is_still_read(
    node: Node, mount: FaultMount
) -> None:
    async with node.open() as store:
        await stock(store)
        await arm(mount, "change", errno.EROFS, times=None)
        assert (await put(store, THREE)).copies == 1
        assert states(store) == ["healthy", "suspect"]
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2, hash_of(THREE): 1}
        await off_loop(mount.lift)
        await heals(node, store)


async def test_b5_a_sector_that_cannot_be_read_is_one_copy_and_not_the_dataset(
    node: Node, mount: FaultMount
) -> None:
    async with node.open() as store:
        await stock(store)
        await put(store, THREE)
        name = f"/m2-b/{hash_of(ONE)}"
        fault = Fault(call="read", effect="error", error=errno.EIO, times=None, under=name)
        await off_loop(mount.arm, fault)
        assert sorted(scrub.bad for scrub in await store.scrub()) == [0, 1]
        assert states(store) == ["healthy", "healthy"]
        assert copies(store)[hash_of(ONE)] == 1
        assert copies(store)[hash_of(TWO)] == 2
        assert await read_back(store, ONE) == ONE
        await off_loop(mount.lift)
        await heals(node, store)
