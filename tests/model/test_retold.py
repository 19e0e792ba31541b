"""Bugs that the state machine, or a hostile reading, found in the store; each told as a story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

from depot import Generation, Put, Stored
from depot.config.ledger import LEDGER_NAME, WITNESS_NAME, Ledger
from depot.dataset.dataset import Dataset
from depot.dataset.disk import system_disk
from depot.dataset.small_files import STAGING
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.state.checked import make_state
from tests.model.gated import WAIT_S, GatedSource
from tests.store.builders import (
    MIB,
    ONE,
    SLED,
    TWO,
    A,
    B,
    Node,
    config,
    hash_of,
    off_loop,
    put,
    reserved_bytes,
    states,
)


@asynccontextmanager
async def streaming(put: Put) -> AsyncIterator[tuple[GatedSource, asyncio.Task[object]]]:
    """A put whose stream has begun and waits for its first byte."""
    source = GatedSource(asyncio.get_running_loop())
    async with asyncio.TaskGroup() as group, asyncio.timeout(WAIT_S):
        receiving = group.create_task(put.receive(source))
        await source.reading.wait()
        yield source, receiving


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does that nobody awaits."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  # threads set no event
            await asyncio.sleep(0)


async def test_a_config_that_is_remembered_is_brought_to_the_first_dataset_that_returns(
    node: Node,
) -> None:
    newer = config(2, ONE)
    async with node.open() as store:
        await store.put_config(config(1))
        await node.take_away(B)
        await store.put_config(newer)
        await node.take_away(A)
        await store.check_datasets()

        await node.bring_back(B)  # it missed generation 2, and the one that has it is still away
        await store.check_datasets()

        assert store.config() == newer
        assert await node.generation(B) == 2


async def test_a_cancelled_put_of_unknown_length_keeps_no_space_reserved(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        async with (
            store.begin_put(hash_of(ONE), Generation(1), None) as put,
            streaming(put) as (source, receiving),
        ):
            receiving.cancel()
        source.send(ONE)  # the read that was under way still gets its bytes

        async with asyncio.timeout(WAIT_S):
            while await node.leftovers():
                pass
        await until(lambda: reserved_bytes(store) == [0, 0])


async def test_a_cancelled_put_keeps_its_space_reserved_while_its_bytes_are_on_the_disk(
    node: Node,
) -> None:
    async with node.open(group_commit=False) as store:
        await store.put_config(config(1, ONE))
        async with (
            store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as put,
            streaming(put) as (source, receiving),
        ):
            receiving.cancel()

        assert reserved_bytes(store) == [len(ONE)] * 2

        source.send(ONE)
        await until(lambda: reserved_bytes(store) == [0, 0])


async def test_a_cancelled_put_of_unknown_length_writes_nothing_more_beside_a_good_copy(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await off_loop(node.file(B, ONE).unlink)
        await store.reconcile()
        async with (
            store.begin_put(hash_of(ONE), Generation(1), None) as admitted,
            streaming(admitted) as (source, receiving),
        ):
            receiving.cancel()
        before = len(node.disk(B).calls)
        source.send(ONE)

        async with asyncio.timeout(WAIT_S):
            while await node.leftovers():
                pass

    assert "write" not in [call for call, _ in node.disk(B).calls[before:]]


async def test_nothing_is_written_to_a_returned_dataset_before_its_ledger_was_read(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(9, ONE))
        await node.take_away(A)
    await node.bring_back(A)
    await node.take_away(B)  # B alone knows generation 9, ...
    await node.write_ledger(A, Ledger(0, config(3, ONE)))
    await off_loop((node.state_dir / WITNESS_NAME).unlink)  # ... the witness is lost
    async with node.open() as store, asyncio.TaskGroup() as group:
        assert store.config().generation == 3
        slow = node.disk(A).hang("rename", name=LEDGER_NAME)
        group.create_task(store.put_config(config(4, TWO)))
        await off_loop(slow.wait_begun)
        group.create_task(store.put_config(config(5, TWO)))  # waits for its turn

        await node.bring_back(B)
        group.create_task(store.check_datasets())
        await until(lambda: store.status().datasets[B].mounted)
        slow.let_go()

    assert (await node.generation(A), await node.generation(B)) == (9, 9)


async def test_a_failure_on_a_dataset_that_was_replaced_is_not_held_against_the_new_one(
    node: Node,
) -> None:
    async with node.open(group_commit=False) as store:
        await store.put_config(config(1, ONE))
        slow = node.disk(A).hang("create", name="staging")  # the path is looked at before
        async with (
            store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as put,
            streaming(put) as (source, _receiving),
        ):
            await off_loop(slow.wait_begun)
            await node.take_away(A)
            await store.check_datasets()
            await node.bring_back(A)
            await store.check_datasets()
            slow.let_go()  # the old descriptor is closed by now
            source.send(ONE)

        assert states(store) == ["healthy", "healthy"]


async def test_a_stream_that_outlived_its_dataset_is_not_held_against_the_new_one(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        async with (
            store.begin_put(hash_of(ONE), Generation(1), len(ONE)) as admitted,
            streaming(admitted) as (source, receiving),
        ):
            await node.take_away(A)
            await store.check_datasets()
            await node.bring_back(A)
            await store.check_datasets()
            source.send(ONE)

        assert receiving.result() == Stored(2, 1, ("dataset 1: not there any more",))
        assert states(store) == ["healthy", "healthy"]


async def test_a_dataset_that_returns_while_it_is_still_being_released_is_attached(
    node: Node,
) -> None:
    path = node.paths[A]
    mirror = Mirror(
        A,
        path,
        state=make_state(),
        quota_bytes=MIB,
        device_timeout_s=WAIT_S,
        on_transition=lambda *_: None,
    )
    mirrors = MirrorSet([mirror], require_mountpoint=False, sled_id=SLED, disk_of=system_disk)
    before = await off_loop(Dataset.attach, path, require_mountpoint=False, sled_id=SLED)
    closing: Future[None] = Future()
    mirror.closing = closing
    async with asyncio.TaskGroup() as group:
        attaching = group.create_task(mirrors.attach(mirror))
        done, _ = await asyncio.wait({attaching}, timeout=0.1)
        assert not done, "the lock is still ours, and that is no reason to give up"
        await off_loop(before.close)
        closing.set_result(None)

    assert mirror.joining
    await mirrors.close()


async def test_a_dataset_that_lost_its_staging_directory_is_not_called_healthy(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await off_loop((node.paths[A] / STAGING).rmdir)

        await store.put_config(config(2, ONE))

        assert states(store) == ["missing", "healthy"], "G3"
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
        assert (await node.generation(A), await node.generation(B)) == (2, 2)
        assert (await put(store, ONE, generation=2)).copies == 2
