"""The witness: what a boot knows although the dataset that was told of it is away (G1)."""

from __future__ import annotations

import asyncio
import errno
import threading
import time

import pytest

from depot.config.ledger import LEDGER_NAME, WITNESS_NAME, Attestation, Ledger, encode_ledger
from depot.config.pins import PinBook, encode_pins
from depot.config.state_dir import StateDir
from depot.errors import DepotError, Io
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
    read_back,
    states,
)
from tests.store.faulty import WAIT_S


async def break_state_dir(node: Node) -> None:
    """Have nothing be written to it any more."""
    await off_loop((node.state_dir / ".sled-depot/staging").rmdir)


async def mend_state_dir(node: Node) -> None:
    await off_loop((node.state_dir / ".sled-depot/staging").mkdir)


async def take_from_the_config(node: Node, store: ArtifactStore, index: int, how: str) -> None:
    """Have a dataset not take what is written from now on."""
    if how == "failing":
        node.disk(index).fail("create", errno.EIO)
        return
    await node.take_away(index)
    await store.check_datasets()


async def look(store: ArtifactStore) -> None:
    """Have the datasets looked at as often as it takes for one to come back."""
    for _ in range(4):
        await store.check_datasets()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": 1}', encode_pins(PinBook()), encode_ledger(Ledger(0, None))],
    ids=["empty", "torn", "no checksum", "pins", "a ledger"],
)
async def test_an_unreadable_witness_is_reported_and_replaced(node: Node, content: bytes) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE, TWO))
    await off_loop((node.state_dir / WITNESS_NAME).write_bytes, content)
    async with node.open() as store:
        assert store.config() == config(5, ONE, TWO)
    async with node.open() as store:
        assert not any("witness" in warning for warning in store.status().warnings)


async def test_a_witness_that_cannot_be_written_shows_in_the_status(node: Node) -> None:
    async with node.open() as store:
        await break_state_dir(node)
        await store.put_config(config(1, ONE))
        assert store.config() == config(1, ONE)
        assert any("witness cannot be written" in warning for warning in store.status().warnings)
        await mend_state_dir(node)
        await store.put_config(config(2, ONE))
        assert not any("witness" in warning for warning in store.status().warnings)


@pytest.mark.parametrize("away", ["missing", "failing"])
async def test_g1_a_config_that_neither_the_witness_nor_every_dataset_took_is_not_acknowledged(
    node: Node, away: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await take_from_the_config(node, store, A, away)
        await break_state_dir(node)
        with pytest.raises(Io, match=r"1 of 2 datasets.*witness"):
            await store.put_config(config(6, ONE, TWO))
        assert store.status().generation == 5
        with pytest.raises(Io, match=r"1 of 2 datasets.*witness"):
            await store.put_config(config(6, ONE, TWO))  # still not, when asked again
        await mend_state_dir(node)
        await store.put_config(config(6, ONE, TWO))
        assert store.status().generation == 6
    if away == "missing":
        await node.bring_back(A)
    await node.take_away(B)
    async with node.open() as store:  # only the stale dataset is there
        assert store.status().generation == 6
        assert store.status().ledger == "behind"


async def test_g1_what_another_config_overtakes_was_never_acknowledged(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(A)
        await store.check_datasets()
        await break_state_dir(node)
        with pytest.raises(Io):
            await store.put_config(config(6, ONE, TWO))
        await mend_state_dir(node)
        await store.put_config(config(6, THREE))
        await node.bring_back(A)
        await store.check_datasets()
        assert store.config() == config(6, THREE)
    assert await node.ledger(A) == await node.ledger(B)


async def test_g1_a_witness_that_an_earlier_process_wrote_is_written_again(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE, TWO))
    # Whether it is durable, nobody knows: that process may have been killed.
    before = await off_loop((node.state_dir / WITNESS_NAME).stat)
    async with node.open() as store:
        await store.put_config(config(5, ONE, TWO))
        after = await off_loop((node.state_dir / WITNESS_NAME).stat)
        assert after.st_ino != before.st_ino
        await store.put_config(config(5, ONE, TWO))
        assert (await off_loop((node.state_dir / WITNESS_NAME).stat)).st_ino == after.st_ino


async def test_g1_the_config_in_force_is_not_acknowledged_again_while_it_could_be_forgotten(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        for index in (A, B):
            await node.take_away(index)
        await look(store)
        await node.write_ledger(B, Ledger(0, config(6, ONE)))
        await break_state_dir(node)
        node.disk(A).fail("create", errno.EIO)
        for index in (A, B):
            await node.bring_back(index)
        await store.check_datasets()  # B's is in force now; the stale one cannot take it
        assert (store.status().generation, await node.generation(A)) == (6, 5)
        with pytest.raises(Io, match=r"1 of 2 datasets.*witness"):
            await store.put_config(config(6, ONE))


async def test_b4_what_every_dataset_has_is_acknowledged_again_though_one_is_away(
    node: Node,
) -> None:
    async with node.open() as store:
        await break_state_dir(node)
        await store.put_config(config(5, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await store.put_config(config(5, ONE))
        with pytest.raises(Io):
            await store.put_config(config(6, ONE))
        await store.put_config(config(5, ONE))
    await node.bring_back(B)
    async with node.open() as store:  # all of them were read at the boot
        await break_state_dir(node)
        await node.take_away(A)
        await store.check_datasets()
        await store.put_config(config(5, ONE))


@pytest.mark.parametrize("how", ["an older image", "no ledger"])
async def test_g1_what_every_dataset_had_is_not_what_they_have(node: Node, how: str) -> None:
    async with node.open() as store:
        await break_state_dir(node)
        await store.put_config(config(4, ONE))
        await store.put_config(config(5, ONE))
        await node.take_away(B)
        await store.check_datasets()
        if how == "no ledger":
            await off_loop((node.away_path(B) / LEDGER_NAME).unlink)
        else:
            await node.write_ledger(B, Ledger(0, config(4, ONE)))
        node.disk(B).turn_read_only()
        await node.bring_back(B)
        await store.check_datasets()
        assert states(store) == ["healthy", "suspect"]
        with pytest.raises(Io, match="1 of 2"):
            await store.put_config(config(5, ONE))


async def test_g4_a_refused_config_does_not_contradict_the_next_one(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await break_state_dir(node)
        await node.take_away(B)
        await store.check_datasets()
        with pytest.raises(Io):
            await store.put_config(config(6, ONE, TWO))
        await mend_state_dir(node)
        await node.bring_back(B)
        await node.take_away(A)
        await look(store)
        await store.put_config(config(6, THREE))
        await node.bring_back(A)
        await look(store)
        assert store.status().ledger == "clear"
        assert store.config() == config(6, THREE)


async def test_g1_a_single_dataset_needs_a_witness(node: Node) -> None:
    alone = node.paths[:1]
    async with node.open(alone) as store:
        await store.put_config(config(5, ONE))
        await break_state_dir(node)
        with pytest.raises(Io, match="1 of 1 datasets"):
            await store.put_config(config(6, ONE))
        assert store.config() == config(5, ONE)
        assert await node.generation(A) == 5


async def test_g3_what_no_dataset_holds_is_not_acknowledged(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        for index in (A, B):
            await off_loop((node.paths[index] / LEDGER_NAME).unlink)
            node.disk(index).fail("create", errno.ENOSPC)
        with pytest.raises(DepotError, match="every dataset is full"):
            await store.put_config(config(5, ONE))


@pytest.mark.parametrize("again", ["the same", "a higher one", "the same, after a failure"])
async def test_g1_what_nobody_knows_does_not_become_certain_by_being_acknowledged(
    node: Node, again: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(A)
        await store.check_datasets()
        await store.put_config(config(7, ONE, TWO))
    await node.bring_back(A)
    await node.take_away(B)
    await off_loop((node.state_dir / WITNESS_NAME).unlink)
    generation = 6 if again == "a higher one" else 5
    async with node.open() as store:
        assert not store.status().generation_certain
        await store.put_config(config(generation, ONE))
        if again == "the same, after a failure":
            node.disk(A).fail("create", errno.EIO, times=1)
            with pytest.raises(DepotError):
                await store.put_pin("pin", [])
            await look(store)
        assert not store.status().generation_certain
    async with node.open() as store:
        assert (store.status().generation, store.status().generation_certain) == (generation, False)
        await node.bring_back(B)
        await look(store)
        assert (store.status().generation, store.status().generation_certain) == (7, True)
    await node.take_away(A)
    async with node.open() as store:
        assert store.status().generation_certain


async def test_g1_a_witness_that_is_written_late_does_not_replace_a_higher_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go = threading.Event(), threading.Event()
    write = StateDir.write_witness

    def slowly(self: StateDir, attestation: Attestation) -> None:
        if attestation.rank.generation == 6:
            begun.set()
            assert let_go.wait(WAIT_S)
        write(self, attestation)

    async with node.open() as store:
        await store.put_config(config(5, ONE))
        monkeypatch.setattr(StateDir, "write_witness", slowly)
        cancelled = asyncio.ensure_future(store.put_config(config(6, ONE, TWO)))
        await off_loop(begun.wait, WAIT_S)
        cancelled.cancel()
        accepting = asyncio.ensure_future(store.put_config(config(7, THREE)))
        asyncio.get_running_loop().call_later(0.1, let_go.set)
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await accepting
    await node.take_away(A)
    await node.write_ledger(B, Ledger(0, config(6, ONE, TWO)))
    async with node.open() as store:
        assert (store.status().generation, store.status().ledger) == (7, "behind")


@pytest.mark.parametrize("before", ["nothing", "a config", "a disagreement"])
async def test_g1_what_could_not_be_acknowledged_is_written_nowhere(
    node: Node, before: str
) -> None:
    def ledger() -> bytes | None:
        path = node.paths[A] / LEDGER_NAME
        return path.read_bytes() if path.exists() else None

    if before != "nothing":
        async with node.open() as store:
            await store.put_config(config(5, ONE))
    if before == "a disagreement":
        await node.write_ledger(B, Ledger(0, config(5, TWO)))
    async with node.open() as store:
        await break_state_dir(node)
        await node.take_away(B)
        await store.check_datasets()
        was = store.status().generation, store.status().ledger, await off_loop(ledger)
        node.events.clear()
        with pytest.raises(Io, match=r"1 of 2 datasets.*witness"):
            await store.put_config(config(6, THREE))
        refused = [fields for kind, fields in node.events if kind == "config_refused"]
        assert [(each["generation"], each["code"]) for each in refused] == [(6, "Io")]
        await node.bring_back(B)
        await look(store)
        is_now = store.status().generation, store.status().ledger, await off_loop(ledger)
        assert is_now == was


async def test_g1_a_ledger_that_is_written_late_does_not_replace_a_higher_one(node: Node) -> None:
    async with node.open(device_timeout_s=0.5) as store:
        await store.put_config(config(5, ONE))
        await break_state_dir(node)
        hang = node.disk(A).hang("rename", name=LEDGER_NAME)
        with pytest.raises(Io):
            await store.put_config(config(6, ONE, TWO))
        await look(store)
        with pytest.raises(Io):  # while it may still land, A is not one of those that have it
            await store.put_config(config(7, ONE, TWO, THREE))
        hang.let_go()
        async with asyncio.timeout(WAIT_S):
            while states(store) != ["healthy", "healthy"]:
                await store.check_datasets()
        await store.put_config(config(8, ONE))
        await off_loop(hang.wait_ended)
        assert (await node.generation(A), await node.generation(B)) == (8, 8)


async def test_g1_a_ledger_that_is_written_late_does_not_land_in_a_dataset_attached_anew(
    node: Node,
) -> None:
    async with node.open(device_timeout_s=0.5) as store:
        await store.put_config(config(5, ONE))
        hang = node.disk(A).hang("create", name="staging")
        await store.put_config(config(6, ONE, TWO))
        await node.take_away(A)
        await store.check_datasets()
        await node.bring_back(A)
        await look(store)
        assert states(store) == ["missing", "healthy"]
        await store.put_config(config(7, ONE))
        hang.let_go()
        async with asyncio.timeout(WAIT_S):
            while states(store) != ["healthy", "healthy"]:
                await store.check_datasets()
        assert (await node.generation(A), await node.generation(B)) == (7, 7)


async def test_b4_a_ledger_that_hangs_keeps_nobody_from_reading(node: Node) -> None:
    async with node.open(device_timeout_s=0.3) as store:
        await store.put_config(config(5, ONE))
        await put(store, ONE, generation=5)
        hang = node.disk(A).hang("rename", name=LEDGER_NAME)
        await store.put_config(config(6, ONE, TWO))
        for _ in range(9):
            await store.check_datasets()
        await node.take_away(B)
        await store.check_datasets()
        assert await read_back(store, ONE) == ONE
        hang.let_go()


async def test_d4_what_comes_into_force_from_a_dataset_has_its_grace_from_then_on(
    node: Node,
) -> None:
    async with node.open(delete_grace_s=60.0) as store:
        await store.put_config(config(5, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content, generation=5)
        await node.take_away(B)
        await look(store)
        await node.write_ledger(B, Ledger(0, config(6, THREE), delete_not_before_s=1.0))
        await node.bring_back(B)
        await look(store)
        assert store.config() == config(6, THREE)
        assert await store.reconcile() == 0
        assert await node.read(A, ONE) == ONE
    for index in (A, B):
        assert (await node.ledger(index)).delete_not_before_s > time.time()


async def test_g1_what_a_present_dataset_was_never_asked_does_not_become_certain(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(5, ONE))
        await node.take_away(A)
        await store.check_datasets()
        await store.put_config(config(9, ONE, TWO))
    await node.bring_back(A)
    await off_loop((node.state_dir / WITNESS_NAME).unlink)
    node.disk(B).turn_read_only()
    node.disk(B).fail("open", errno.EIO, name=LEDGER_NAME)
    async with node.open() as store:
        assert states(store) == ["healthy", "suspect"]
        assert (store.status().generation, store.status().generation_certain) == (5, False)
        await store.put_config(config(6, ONE))
        assert not store.status().generation_certain
