"""What was begun and could not be acknowledged, on a dataset that goes and comes back.

The datasets and the state directory fail together here: then nobody can say what a start with one
of them alone would know, and the answer is an error. A dataset may have it nevertheless.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress

import pytest

from depot.artifact import Generation
from depot.config.ledger import LEDGER_NAME, Attestation, Ledger, decode_ledger
from depot.config.state_dir import StateDir
from depot.dataset import small_files
from depot.errors import ConfigGeneration, DepotError, Io, LedgerUnknown, NoDataset
from depot.store import ArtifactStore
from tests.store.builders import (
    ONE,
    THREE,
    TWO,
    A,
    B,
    Node,
    config,
    off_loop,
    put,
    states,
)
from tests.store.faulty import WAIT_S, Hang
from tests.store.test_witness import break_state_dir, look, mend_state_dir


async def healthy(store: ArtifactStore) -> None:
    """Have the datasets looked at until both are used again."""
    async with asyncio.timeout(WAIT_S):
        while states(store) != ["healthy", "healthy"]:
            await store.check_datasets()


async def refuse(node: Node, store: ArtifactStore, generation: int, *contents: bytes) -> None:
    """Have only A take a config, without a witness, and be away then."""
    node.disk(B).fail("create", errno.EIO, times=1)
    await break_state_dir(node)
    with pytest.raises(Io, match="1 of 2 datasets"):
        await store.put_config(config(generation, *contents))
    await node.take_away(A)
    await look(store)
    await mend_state_dir(node)


def slowly(node: Node, name: str) -> None:
    """Have each dataset take a while, well within its deadline, to write a document."""
    for index in (A, B):
        node.disk(index).before("rename", lambda: time.sleep(0.4), name=name)


async def begun(work: Coroutine[object, object, object]) -> asyncio.Task[object]:
    """Begin something that `slowly` makes slow, and cancel it in the middle."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait((task,))
    return task


async def test_g1_a_full_state_directory_refuses_before_any_dataset_has_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file takes no room: what is tried is what would be written."""
    write = small_files.write_document

    def where_nothing_fits(root: int, name: str, content: bytes) -> None:
        if content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(root, name, content)

    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(B)
        await store.check_datasets()
        monkeypatch.setattr("depot.config.state_dir.write_document", where_nothing_fits)
        with pytest.raises(Io, match="ENOSPC"):
            await store.put_config(config(6, TWO))
    assert await node.generation(A) == 5


@pytest.mark.parametrize("how", ["fails", "last sync fails", "hangs"])
async def test_g4_what_a_dataset_may_have_is_not_contradicted(node: Node, how: str) -> None:
    async with node.open(device_timeout_s=0.5) as store:
        await store.put_config(config(5, ONE))
        holder = A if how == "fails" else B
        late: Hang | None = None
        if how == "fails":
            await refuse(node, store, 6, TWO)
        else:
            if how == "hangs":
                late = node.disk(A).hang("rename", name=LEDGER_NAME)
                node.disk(B).fail("create", errno.EIO, times=1)
            else:
                node.disk(A).fail("create", errno.EIO, times=1)
                node.disk(B).fail("fsync_directory", errno.EIO, times=1)
            with pytest.raises(DepotError):
                await store.put_config(config(6, TWO))
            await node.take_away(holder)
            await look(store)
        with pytest.raises((ConfigGeneration, NoDataset)):
            await store.put_config(config(6, THREE))
        if late is not None:
            late.let_go()
            await off_loop(late.wait_ended)
        await node.bring_back(holder)
        await healthy(store)
        assert store.status().ledger == "clear"
        await store.put_config(config(7, THREE))
        assert (await node.generation(A), await node.generation(B)) == (7, 7)


async def test_g1_what_a_dataset_may_have_is_not_undercut(node: Node) -> None:
    """Or it would take the place of what was acknowledged meanwhile."""
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await refuse(node, store, 8, TWO)
        with pytest.raises(ConfigGeneration, match="generation 8 was refused") as refused:
            await store.put_config(config(6, THREE))
        assert (refused.value.attempted, refused.value.current) == (6, 8)
        await store.put_config(config(5, ONE))  # it is in force still
        await store.put_config(config(8, TWO))  # asked for again
        await store.put_config(config(9, THREE))
        await node.bring_back(A)
        await healthy(store)
        assert store.config() == config(9, THREE)


async def test_g1_while_a_dataset_may_have_a_reset_no_config_is_taken(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        node.disk(A).fail("create", errno.EIO, times=1)
        node.disk(B).fail("fsync_directory", errno.EIO, times=1)
        with pytest.raises(Io):
            await store.reset(Generation(5))
        await node.take_away(B)
        await look(store)
        with pytest.raises(LedgerUnknown, match="reset again"):
            await store.put_config(config(6, ONE))
        await node.bring_back(B)
        await healthy(store)
        await store.put_config(config(1, ONE))  # it came into force
        assert (await node.ledger(A)).epoch == (await node.ledger(B)).epoch == 1


async def test_g1_what_the_witness_names_is_taken_though_it_cannot_be_written(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(A)
        await store.check_datasets()
        await store.put_config(config(6, ONE, TWO))
    await node.bring_back(A)
    await node.take_away(B)
    async with node.open() as store:
        await break_state_dir(node)
        assert (store.status().generation, store.status().ledger) == (6, "behind")
        await store.put_config(config(6, ONE, TWO))
        assert store.status().ledger == "clear"


async def test_g1_a_look_that_is_cancelled_leaves_no_witness_behind(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, let_go = threading.Event(), threading.Event()
    write = StateDir.write_witness

    def late(self: StateDir, attestation: Attestation) -> None:
        if attestation.rank.generation == 6:
            writing.set()
            assert let_go.wait(WAIT_S)
        write(self, attestation)

    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await node.write_ledger(B, Ledger(0, config(6, ONE, TWO)))
        await node.bring_back(B)
        monkeypatch.setattr(StateDir, "write_witness", late)
        looking = asyncio.ensure_future(store.check_datasets())
        await off_loop(writing.wait, WAIT_S)
        looking.cancel()
        putting = asyncio.ensure_future(store.put_config(config(7, THREE)))
        await asyncio.wait((putting,), timeout=0.1)
        assert not putting.done()  # it waits for what may land
        let_go.set()
        await putting
    await node.take_away(A)
    async with node.open() as store:
        assert store.status().generation == 7


async def test_a_pin_that_is_cancelled_makes_nobody_suspect(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        slowly(node, "pins.json")
        await begun(store.put_pin("one", []))
        await store.put_pin("two", [])
        assert states(store) == ["healthy", "healthy"]
        await begun(store.put_pin("three", []))
    async with node.open() as store:  # nor does it keep the datasets
        assert states(store) == ["healthy", "healthy"]


async def test_a_look_that_is_cancelled_makes_nobody_suspect(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await node.write_ledger(B, Ledger(0, config(6, ONE, TWO)))
        await node.bring_back(B)
        slowly(node, LEDGER_NAME)
        await begun(store.check_datasets())
        await store.put_config(config(7, ONE))
        assert states(store)[A] == "healthy"


async def test_a_config_that_is_cancelled_while_it_waits_is_not_begun(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        slowly(node, LEDGER_NAME)
        first = asyncio.ensure_future(store.put_config(config(6, ONE)))
        await asyncio.sleep(0.1)
        second = await begun(store.put_config(config(7, ONE, TWO)))
        await first
        assert second.cancelled()
    async with node.open() as store:
        assert store.status().generation == 6


async def test_a_config_that_is_cancelled_once_begun_is_acted_on(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE, TWO, THREE))
        slowly(node, LEDGER_NAME)
        await put(store, ONE, generation=5)
        reconciling = asyncio.ensure_future(store.run_duties())
        await begun(store.put_config(config(6, TWO, THREE)))
        async with asyncio.timeout(WAIT_S):
            while await node.read(A, ONE) or await node.read(B, ONE):  # what it drops leaves
                await store.check_datasets()
        reconciling.cancel()
        await asyncio.wait((reconciling,))
        assert store.config() == config(6, TWO, THREE)


async def test_a_config_that_is_cancelled_once_begun_ends_before_the_store_does(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        slowly(node, LEDGER_NAME)
        await begun(store.put_config(config(6, ONE, TWO)))
    assert (await node.generation(A), await node.generation(B)) == (6, 6)
    async with node.open() as store:
        assert store.config() == config(6, ONE, TWO)
        assert store.status().ledger == "clear"


async def test_s3_who_is_cancelled_does_not_wait_for_a_state_directory_that_hangs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, let_go = threading.Event(), threading.Event()

    def hanging(self: StateDir, attestation: Attestation) -> None:
        writing.set()
        assert let_go.wait(WAIT_S)

    async with node.open() as store:
        await store.put_config(config(5, ONE))
        monkeypatch.setattr(StateDir, "write_witness", hanging)
        putting = asyncio.ensure_future(store.put_config(config(6, ONE)))
        await off_loop(writing.wait, WAIT_S)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(putting, WAIT_S / 2)
        assert not let_go.is_set()
        let_go.set()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_b4_what_was_written_over_everywhere_refuses_nothing(node: Node, error: int) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        for index in (A, B):
            node.disk(index).fail("create", error, times=4)
        with pytest.raises(DepotError):
            await store.put_config(config(600, TWO))  # somebody's mistake
        for index in (A, B):
            node.disk(index).heal()
        await healthy(store)
        await store.put_config(config(5, ONE))
        await store.put_config(config(6, THREE))


async def test_b4_what_no_dataset_was_there_to_take_refuses_nothing(node: Node) -> None:
    async with node.open() as store:
        for index in (A, B):
            await node.take_away(index)
        with pytest.raises(NoDataset):
            await store.put_config(config(0, ONE))
        for index in (A, B):
            await node.bring_back(index)
        await healthy(store)
        await store.put_config(config(0, TWO))


async def test_g2_what_was_acknowledged_is_taken_again_beside_what_was_refused(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(A)
        await store.check_datasets()
        await store.put_config(config(6, ONE, TWO))
    await node.bring_back(A)
    await node.take_away(B)
    async with node.open() as store:
        assert store.status().ledger == "behind"
        node.disk(A).fail("create", errno.EIO, times=1)
        with pytest.raises(Io):
            await store.put_config(config(8, ONE))
        async with asyncio.timeout(WAIT_S):
            while states(store)[A] != "healthy":
                await store.check_datasets()
        await store.put_config(config(6, ONE, TWO))
        assert store.status().ledger == "clear"


async def test_writing_documents_leaves_no_descriptor_open(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        before = len(await off_loop(os.listdir, "/proc/self/fd"))
        for generation in range(6, 16):
            await store.put_config(config(generation, ONE))
        assert len(await off_loop(os.listdir, "/proc/self/fd")) == before


async def test_g3_a_ledger_that_hangs_does_not_land_in_a_dataset_that_was_released(
    node: Node,
) -> None:
    async with node.open(device_timeout_s=0.5) as store:
        await store.put_config(config(5, ONE))
        hang = node.disk(A).hang("create", name="staging")
        await store.put_config(config(6, ONE, TWO))  # on B, and the witness
        await store.release_dataset(node.paths[A])
        with suppress(DepotError):  # it may be kept out until the write has ended
            await store.attach_dataset(node.paths[A])
        await look(store)
        await store.put_config(config(7, THREE))
        hang.let_go()
        await off_loop(hang.wait_ended)
        if states(store) != ["healthy", "healthy"]:
            await store.attach_dataset(node.paths[A])
        await healthy(store)
        assert (await node.generation(A), await node.generation(B)) == (7, 7)


@pytest.mark.parametrize("before", ["a disagreement", "a reset"])
async def test_d4_what_comes_into_force_has_a_grace_where_no_config_was(
    node: Node, before: str
) -> None:
    async with node.open(delete_grace_s=60.0) as store:
        await store.put_config(config(5, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content, generation=5)
        if before == "a reset":
            await store.reset(Generation(5))
    if before == "a disagreement":
        await node.write_ledger(B, Ledger(0, config(5, ONE)))
    async with node.open(delete_grace_s=60.0) as store:
        await refuse(node, store, 6, THREE)
        there = await off_loop((node.away_path(A) / LEDGER_NAME).read_bytes)
        held = decode_ledger(there)
        assert held.delete_not_before_s > time.time()
        # It is away for longer than that.
        await node.write_ledger(A, Ledger(held.epoch, held.config, delete_not_before_s=1.0))
        await node.bring_back(A)
        await look(store)
        assert store.config() == config(6, THREE)
        assert await store.reconcile() == 0
        assert await node.read(A, ONE) == ONE


async def test_d4_a_grace_that_a_dataset_brings_is_not_made_shorter(node: Node) -> None:
    async with node.open(delete_grace_s=60.0) as store:
        await store.put_config(config(5, ONE, TWO))
        await node.take_away(B)
        await look(store)
        late_s = time.time() + 3600
        await node.write_ledger(
            B, Ledger(0, config(6, ONE, TWO, THREE), delete_not_before_s=late_s)
        )
        await node.bring_back(B)
        await look(store)
        for index in (A, B):
            assert (await node.ledger(index)).delete_not_before_s == late_s
