"""The ledger as it really lies on disks (G1 to G4)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from depot.artifact import MAX_GENERATION, Generation
from depot.config.ledger import LEDGER_NAME, WITNESS_NAME, Ledger, encode_ledger
from depot.errors import ConfigGeneration, FormatTooNew, Io, LedgerUnknown, NoDataset
from depot.store import ArtifactStore
from tests.descriptors import open_descriptors
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


async def generation_five(node: Node) -> None:
    """Have generation 5 accepted with both datasets there."""
    async with node.open() as store:
        await store.put_config(config(4, ONE))
        await put(store, ONE, generation=4)
        await store.put_config(config(5, ONE, TWO))


async def forget_witness(node: Node) -> None:
    await off_loop((node.state_dir / WITNESS_NAME).unlink)


async def change_hex_digit(node: Node, index: int) -> None:
    path = node.paths[index] / LEDGER_NAME
    content = bytearray(await off_loop(path.read_bytes))
    at = content.index(str(hash_of(ONE)).encode())
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    await off_loop(path.write_bytes, bytes(content))


def with_file(content: bytes) -> Callable[[Node, int], Awaitable[None]]:
    return lambda node, index: node.write_file(index, LEDGER_NAME, content)


async def with_directory(node: Node, index: int) -> None:
    await off_loop((node.paths[index] / LEDGER_NAME).unlink)
    await off_loop((node.paths[index] / LEDGER_NAME).mkdir)


async def with_fifo(node: Node, index: int) -> None:
    await off_loop((node.paths[index] / LEDGER_NAME).unlink)
    await off_loop(os.mkfifo, node.paths[index] / LEDGER_NAME)


async def with_nothing(node: Node, index: int) -> None:
    await off_loop((node.paths[index] / LEDGER_NAME).unlink)


WHOLE = encode_ledger(Ledger(0, config(5, ONE, TWO)))
DAMAGES: dict[str, Callable[[Node, int], Awaitable[None]]] = {
    "empty": with_file(b""),
    "torn": with_file(WHOLE[: len(WHOLE) // 2]),
    "nearly whole": with_file(WHOLE[:-3]),
    "zeros": with_file(bytes(4096)),
    "another document": with_file(b'{"generation": "five"}'),
    "a list": with_file(b"[1, 2]"),
    "2^63": with_file(json.dumps({"generation": 2**63, "artifacts": []}).encode()),
    "negative": with_file(json.dumps({"generation": -1, "artifacts": []}).encode()),
    "a float": with_file(json.dumps({"generation": 6.0, "artifacts": []}).encode()),
    "a bool": with_file(json.dumps({"generation": True, "artifacts": []}).encode()),
    "an endless grace": with_file(
        b'{"generation": 9, "artifacts": [], "delete_not_before_s": 1' + b"0" * 400 + b"}"
    ),
    "deeply nested": with_file(b"[" * 100_000),
    "one hex digit changed": change_hex_digit,
    "fifo": with_fifo,
    "nothing": with_nothing,
}


@pytest.mark.parametrize("witness", [True, False], ids=["witness", "no witness"])
@pytest.mark.parametrize("index", [A, B])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_ledger_gives_way_to_the_intact_one_and_is_repaired(
    node: Node, damage: Callable[[Node, int], Awaitable[None]], index: int, witness: bool
) -> None:
    await generation_five(node)
    await damage(node, index)
    if not witness:
        await forget_witness(node)
    async with node.open() as store:
        assert store.config() == config(5, ONE, TWO)
        assert states(store) == ["healthy", "healthy"]
        assert store.status().generation == 5
    assert await node.ledger(A) == await node.ledger(B) == Ledger(0, config(5, ONE, TWO))


async def test_a_directory_in_the_ledgers_place_leaks_no_descriptor(node: Node) -> None:
    await generation_five(node)
    await with_directory(node, B)
    async with node.open() as store:
        assert store.config() == config(5, ONE, TWO)
        await store.check_datasets()
        descriptors = await open_descriptors()
        for _ in range(5):
            await store.check_datasets()
        assert await open_descriptors() == descriptors
        assert any("not a regular file" in warning for warning in store.status().warnings)


@pytest.mark.parametrize("damage", ["torn", "nothing"])
async def test_g1_with_every_ledger_gone_the_witness_still_refuses_what_is_older(
    node: Node, damage: str
) -> None:
    await generation_five(node)
    for index in (A, B):
        await DAMAGES[damage](node, index)
    async with node.open() as store:
        assert store.status().ledger == "behind"
        assert store.status().generation == 5
        with pytest.raises(LedgerUnknown):
            store.config()
        with pytest.raises(ConfigGeneration):
            await store.put_config(config(4, ONE))
        with pytest.raises(ConfigGeneration):
            await store.put_config(config(5, THREE))
        assert await store.reconcile() == 0
        assert await read_back(store, ONE) == ONE
        await store.put_config(config(5, ONE, TWO))  # what was accepted then may come again
        assert store.config() == config(5, ONE, TWO)
        assert copies(store) == {hash_of(ONE): 2}


async def test_g4_an_older_dataset_is_brought_up_to_date_whichever_it_is(node: Node) -> None:
    for stale in (A, B):
        await node.write_ledger(stale, Ledger(0, config(3, ONE)))
        await node.write_ledger(1 - stale, Ledger(0, config(6, ONE, TWO)))
        async with node.open() as store:
            assert store.config() == config(6, ONE, TWO)
        assert await node.generation(stale) == 6


async def test_g1_only_a_stale_dataset_does_not_move_the_generation_back(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(4, ONE))
        await put(store, ONE, generation=4)
        await node.take_away(B)
        await store.put_config(config(5, TWO))
    await node.bring_back(B)
    await node.take_away(A)
    async with node.open() as store:
        assert store.status().ledger == "behind"
        assert (store.status().generation, store.status().generation_certain) == (5, True)
        with pytest.raises(LedgerUnknown):
            store.list_artifacts()
        with pytest.raises(ConfigGeneration):
            await store.put_config(config(4, ONE))
        with pytest.raises(LedgerUnknown):
            await put(store, TWO, generation=5)
        assert await store.reconcile() == 0
        assert await read_back(store, ONE) == ONE
        await node.bring_back(A)
        await store.check_datasets()
        assert store.config() == config(5, TWO)
    assert await node.generation(B) == 5


async def test_g1_without_a_witness_a_missing_dataset_makes_the_generation_uncertain(
    node: Node,
) -> None:
    await generation_five(node)
    await forget_witness(node)
    await node.take_away(B)
    async with node.open() as store:
        assert store.config() == config(5, ONE, TWO)
        assert not store.status().generation_certain
        assert any("may know a higher" in warning for warning in store.status().warnings)
        await store.put_config(config(6, ONE))
        assert not store.status().generation_certain
        await node.bring_back(B)
        await store.check_datasets()
        assert store.status().generation_certain


async def test_a_returned_dataset_with_a_newer_config_wins_before_anything_is_deleted(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(7, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content, generation=7)
    await forget_witness(node)
    await node.take_away(B)
    await node.write_ledger(A, Ledger(0, config(6, ONE)))
    async with node.open(delete_grace_s=0.0) as store:
        assert store.config() == config(6, ONE)
        await node.bring_back(B)
        reading = node.disk(B).hang("open", name=LEDGER_NAME)
        looking = asyncio.ensure_future(store.check_datasets())
        await off_loop(reading.wait_begun)
        assert await store.reconcile() == 1  # on the dataset that is in use, and only there
        assert await node.names(B) == {str(hash_of(ONE)), str(hash_of(TWO))}
        reading.let_go()
        await looking
        assert store.config() == config(7, ONE, TWO)
        await store.remirror()
        assert copies(store) == {hash_of(ONE): 2, hash_of(TWO): 2}
    assert await node.generation(A) == 7


async def test_two_datasets_that_return_at_once_do_not_overwrite_each_other(node: Node) -> None:
    await generation_five(node)
    await forget_witness(node)
    for index in (A, B):
        await node.take_away(index)
    async with node.open() as store:
        await node.write_ledger(B, Ledger(0, config(9, TWO)))
        for index in (A, B):
            await node.bring_back(index)
        await store.check_datasets()
        assert store.config() == config(9, TWO)
    assert await node.generation(A) == await node.generation(B) == 9


async def test_a_ledger_unreadable_on_the_good_disk_is_not_forgotten_while_running(
    node: Node,
) -> None:
    await generation_five(node)
    async with node.open() as store:
        await node.take_away(B)
        await store.put_config(config(6, ONE))
        await DAMAGES["torn"](node, A)
        await node.bring_back(B)
        await store.check_datasets()
        assert store.config() == config(6, ONE)
    assert await node.generation(A) == await node.generation(B) == 6


# Epochs


async def test_g1_a_disk_that_was_away_at_a_reset_does_not_bring_the_old_generation_back(
    node: Node, tmp_path: Path
) -> None:
    await generation_five(node)
    old = await off_loop((node.paths[B] / LEDGER_NAME).read_bytes)
    async with node.open() as store:
        await store.reset(Generation(5))
        assert (store.status().ledger, store.status().epoch) == ("empty", 1)
        assert await read_back(store, ONE) == ONE  # without a config nothing is deleted
        assert await store.reconcile() == 0
        await store.put_config(config(1, TWO))
    await node.write_file(B, LEDGER_NAME, old)
    async with node.open() as store:
        assert store.config() == config(1, TWO)
        assert store.status().epoch == 1
    assert await node.ledger(B) == await node.ledger(A)
    await node.write_file(B, LEDGER_NAME, old)
    await node.take_away(A)
    async with node.open() as store:
        assert store.status().ledger == "behind"
        assert (store.status().epoch, store.status().generation) == (1, 1)


async def test_a_reset_alone_outlives_a_stale_disk_too(node: Node) -> None:
    await generation_five(node)
    old = await off_loop((node.paths[B] / LEDGER_NAME).read_bytes)
    async with node.open() as store:
        await store.reset(Generation(5))
    await node.write_file(B, LEDGER_NAME, old)
    await node.take_away(A)
    async with node.open() as store:
        assert (store.status().ledger, store.status().epoch) == ("empty", 1)
        await store.put_config(config(1, TWO))
        await node.bring_back(A)
        await store.check_datasets()
        assert store.config() == config(1, TWO)
    assert await node.ledger(A) == await node.ledger(B)


async def test_reset_needs_every_dataset_and_the_current_generation(node: Node) -> None:
    await generation_five(node)
    async with node.open() as store:
        for wrong in (4, 6):
            with pytest.raises(ConfigGeneration):
                await store.reset(Generation(wrong))
        await node.take_away(B)
        await store.check_datasets()
        with pytest.raises(NoDataset):
            await store.reset(Generation(5))
        assert store.config() == config(5, ONE, TWO)
        await node.bring_back(B)
        await store.check_datasets()
        await store.reset(Generation(5))
    assert node.kinds()[-1] == "reset"


async def test_a_generation_at_the_end_of_the_scale_is_kept_and_can_be_reset(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(MAX_GENERATION, ONE))
    async with node.open() as store:
        assert store.config() == config(MAX_GENERATION, ONE)
        await store.reset(Generation(MAX_GENERATION))
        await store.put_config(config(0, ONE))
        assert store.config() == config(0, ONE)


# Contradictions (G4)


async def test_g4_contradicting_ledgers_stop_writes_and_deletes_and_not_reads(node: Node) -> None:
    await generation_five(node)
    await forget_witness(node)
    await node.write_ledger(B, Ledger(0, config(5, THREE)))
    async with node.open(delete_grace_s=0.0) as store:
        assert store.status().ledger == "conflicted"
        assert any("different configs" in warning for warning in store.status().warnings)
        with pytest.raises(LedgerUnknown):
            store.config()
        with pytest.raises(LedgerUnknown):
            await put(store, TWO, generation=5)
        with pytest.raises(LedgerUnknown):
            await store.put_pin("consumer", [hash_of(ONE)])
        for side in (config(5, ONE, TWO), config(5, THREE)):
            with pytest.raises(ConfigGeneration):
                await store.put_config(side)
        assert await store.reconcile() == await store.remirror() == 0
        assert await read_back(store, ONE) == ONE
        assert [await node.generation(index) for index in (A, B)] == [5, 5]
        assert (await node.ledger(A)).config != (await node.ledger(B)).config
        await store.put_config(config(6, ONE))
        assert store.status().ledger == "clear"
        assert (await put(store, ONE, generation=6)).copies == 2
    assert await node.ledger(A) == await node.ledger(B)


async def test_g4_a_ledger_that_contradicts_the_witness_is_a_contradiction(node: Node) -> None:
    await generation_five(node)
    for index in (A, B):
        await node.write_ledger(index, Ledger(0, config(5, THREE)))
    async with node.open() as store:
        assert store.status().ledger == "conflicted"


async def test_g4_a_contradicting_dataset_that_returns_is_noticed_while_running(node: Node) -> None:
    await generation_five(node)
    async with node.open() as store:
        await node.take_away(B)
        await store.check_datasets()
        await node.write_ledger(B, Ledger(0, config(5, THREE)))
        await node.bring_back(B)
        await store.check_datasets()
        assert store.status().ledger == "conflicted"
        with pytest.raises(LedgerUnknown):
            await put(store, TWO, generation=5)


# Formats


async def test_the_reference_formats_ledger_is_read_and_upgraded(node: Node) -> None:
    reference = {"generation": 12, "artifacts": [str(hash_of(TWO)).upper(), str(hash_of(ONE))]}
    for index in (A, B):
        await node.write_file(index, LEDGER_NAME, json.dumps(reference).encode())
    async with node.open() as store:
        assert store.config() == config(12, ONE, TWO)
    upgraded = json.loads(await off_loop((node.paths[A] / LEDGER_NAME).read_bytes))
    assert next(iter(upgraded)) == "generation"
    assert upgraded["format"] == 1
    assert upgraded["artifacts"] == sorted(map(str, (hash_of(ONE), hash_of(TWO))))


async def test_a_ledger_of_a_newer_format_keeps_its_dataset_out_and_untouched(node: Node) -> None:
    await generation_five(node)
    newer = json.dumps({"generation": 9, "format": 2, "shape": "unheard of"}).encode()
    await node.write_file(B, LEDGER_NAME, newer)
    async with node.open() as store:
        for _ in range(3):
            assert states(store) == ["healthy", "missing"]
            reason = store.status().datasets[B].last_error or ""
            assert "has format 2; this program knows formats up to 1" in reason
            await store.check_datasets()
        assert (await put(store, TWO, generation=5)).copies == 1
        await store.put_config(config(6, ONE))
    assert await off_loop((node.paths[B] / LEDGER_NAME).read_bytes) == newer
    assert not {"dataset_lost", "dataset_returned"} & set(node.kinds())


async def test_a_witness_of_a_newer_format_is_refused(node: Node) -> None:
    await generation_five(node)
    await off_loop((node.state_dir / WITNESS_NAME).write_bytes, b'{"format": 2}')
    with pytest.raises(FormatTooNew, match="format 2"):
        await ArtifactStore.open(node.paths, state_dir=node.state_dir)
    await off_loop((node.state_dir / WITNESS_NAME).unlink)
    async with node.open() as store:  # nothing is left locked
        assert store.config() == config(5, ONE, TWO)


@pytest.mark.parametrize("name", [".sled-depot/pins.json", ".sled-depot/marker.json"])
async def test_pins_and_markers_of_a_newer_format_are_refused_too(node: Node, name: str) -> None:
    newer = b'{"format": 2, "pins": {}}'
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await store.put_pin("consumer", [hash_of(ONE)])
    await node.write_file(B, name, newer)
    async with node.open() as store:
        assert states(store) == ["healthy", "missing"]
        assert "has format 2" in (store.status().datasets[B].last_error or "")
        await store.put_pin("another", [hash_of(ONE)])
    assert await off_loop((node.paths[B] / name).read_bytes) == newer


async def test_a_returned_dataset_is_no_reason_to_doubt_what_was_just_accepted(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await node.take_away(B)
        await store.check_datasets()
        await store.put_config(config(2, ONE, TWO))
        await node.bring_back(B)
        await store.check_datasets()
        assert await node.generation(B) == 2
        assert store.status().warnings == (
            "two datasets are on one device: its failure takes both copies",
        )


# Durability (G3)


async def test_g3_a_config_is_on_both_disks_and_in_the_witness_before_it_is_acknowledged(
    node: Node,
) -> None:
    async with node.open() as store:
        hang = node.disk(B).hang("fsync_directory")
        accepting = asyncio.ensure_future(store.put_config(config(1, ONE)))
        await off_loop(hang.wait_begun)
        assert not accepting.done()
        assert store.status().generation is None  # nothing acts on it yet
        hang.let_go()
        await accepting
        assert store.status().generation == 1
        witness = json.loads(await off_loop((node.state_dir / WITNESS_NAME).read_bytes))
        assert (witness["generation"], witness["epoch"]) == (1, 0)


@pytest.mark.parametrize("call", ["create", "write", "fsync", "rename", "fsync_directory"])
async def test_a_dataset_that_cannot_take_a_config_is_suspect_and_gets_it_later(
    node: Node, call: str
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fail(call, errno.EIO)
        await store.put_config(config(2, TWO))
        assert states(store) == ["healthy", "suspect"]
        node.disk(B).heal()
        await store.check_datasets()
        assert states(store) == ["healthy", "healthy"]
    assert await node.generation(A) == await node.generation(B) == 2
    assert await node.leftovers() == []


async def test_a_dataset_too_full_for_a_config_gets_it_as_soon_as_there_is_room(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        node.disk(B).fill_up()
        await store.put_config(config(2, TWO))
        assert store.status().datasets[B].full
        node.disk(B).heal()
        await store.check_datasets()
        assert await node.generation(B) == 2


async def test_g3_a_config_that_no_dataset_can_take_is_refused_and_changes_nothing(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        for index in (A, B):
            node.disk(index).fail("write", errno.EIO)
        with pytest.raises(Io):
            await store.put_config(config(2, TWO))
        assert store.config() == config(1, ONE)
        with pytest.raises(NoDataset):
            await store.put_config(config(2, TWO))


# The first config (B4): an unreadable ledger is not an absent one


async def fail_reading(node: Node, index: int) -> None:
    await node.write_ledger(index, Ledger(0, config(5, ONE)))
    node.disk(index).fail("pread", errno.EIO, name=LEDGER_NAME)


async def fail_opening(node: Node, index: int) -> None:
    await node.write_ledger(index, Ledger(0, config(5, ONE)))
    node.disk(index).fail("open", errno.EIO, name=LEDGER_NAME)


async def of_another_sled(node: Node, index: int) -> None:
    content = encode_ledger(Ledger(0, config(5, ONE)), "another-sled")
    await node.write_file(index, LEDGER_NAME, content)


async def make_fifo(node: Node, index: int) -> None:
    await off_loop(os.mkfifo, node.paths[index] / LEDGER_NAME)


async def make_directory(node: Node, index: int) -> None:
    await off_loop((node.paths[index] / LEDGER_NAME).mkdir)


async def make_link(node: Node, index: int) -> None:
    await off_loop((node.paths[index] / LEDGER_NAME).symlink_to, "/nonexistent")


UNREADABLE: dict[str, Callable[[Node, int], Awaitable[None]]] = {
    "a directory": make_directory,
    "a fifo": make_fifo,
    "a symbolic link": make_link,
    "EIO in read": fail_reading,
    "EIO in open": fail_opening,
    "torn": with_file(WHOLE[: len(WHOLE) // 2]),
    "empty": with_file(b""),
    "zeros": with_file(bytes(4096)),
    "of another sled": of_another_sled,
}


@pytest.mark.parametrize("index", [A, B])
@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_b4_an_unreadable_ledger_is_not_an_absent_one(
    node: Node, damage: Callable[[Node, int], Awaitable[None]], index: int
) -> None:
    await damage(node, index)
    async with node.open() as store:
        assert store.status().ledger == "unknown"
        with pytest.raises(LedgerUnknown):
            await store.put_config(config(1, TWO))
        with pytest.raises(LedgerUnknown):
            store.config()
        assert await store.reconcile() == 0
    assert not (await off_loop((node.paths[1 - index] / LEDGER_NAME).exists))


async def test_b4_a_first_config_is_accepted_with_every_dataset_there_and_truly_empty(
    node: Node,
) -> None:
    async with node.open() as store:
        assert store.status().ledger == "empty"
        await store.put_config(config(1, TWO))
    assert await node.generation(A) == await node.generation(B) == 1


@pytest.mark.parametrize("generation", [5, 6])
async def test_what_was_wrong_with_a_ledger_is_over_once_a_config_was_written(
    node: Node, generation: int
) -> None:
    await generation_five(node)
    for index in (A, B):
        await node.write_file(index, LEDGER_NAME, b"torn")
    async with node.open() as store:
        assert sum("is not JSON" in warning for warning in store.status().warnings) == 2
        await store.put_config(config(generation, ONE, TWO))
        assert not any("is not JSON" in warning for warning in store.status().warnings)


async def test_the_same_config_once_more_ends_what_was_wrong_with_a_ledger(node: Node) -> None:
    await generation_five(node)
    await node.write_file(B, LEDGER_NAME, b"torn")
    async with node.open() as store:
        assert any("is not JSON" in warning for warning in store.status().warnings)
        await store.put_config(config(5, ONE, TWO))
        assert not any("is not JSON" in warning for warning in store.status().warnings)


async def test_a_ledger_that_could_not_be_written_is_still_told_of(node: Node) -> None:
    await generation_five(node)
    await with_directory(node, B)
    async with node.open() as store:
        await store.put_config(config(6, ONE, TWO))
        assert any("not a regular file" in warning for warning in store.status().warnings)


async def test_g1_a_ledger_that_another_sled_wrote_is_not_believed_and_is_replaced(
    node: Node,
) -> None:
    await generation_five(node)
    content = encode_ledger(Ledger(0, config(9, THREE)), "another-sled")
    await node.write_file(B, LEDGER_NAME, content)
    async with node.open() as store:
        assert store.config() == config(5, ONE, TWO)
        assert any("another-sled" in warning for warning in store.status().warnings)
    assert await node.generation(B) == 5


async def test_a_ledger_that_could_not_be_read_at_boot_is_read_at_the_next_look(node: Node) -> None:
    node.disk(A).fail("open", errno.EIO, times=1, name=LEDGER_NAME)
    async with node.open() as store:
        with pytest.raises(LedgerUnknown):
            await store.put_config(config(1, ONE))
        await store.check_datasets()
        await store.put_config(config(1, ONE))
        assert states(store) == ["healthy", "healthy"]
    assert await node.generation(A) == await node.generation(B) == 1
