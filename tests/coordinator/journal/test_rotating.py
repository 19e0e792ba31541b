"""From shard to shard: nothing is lost, doubled or numbered anew, and what was proved stays so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_entries, journal_nodes
from coordinator.database.transaction import Transaction
from coordinator.errors import JournalKeyMissing, ShardInUse
from coordinator.journal.appending import told_now
from coordinator.journal.checking import Checker
from coordinator.journal.checkpoints import opened as opened_checkpoint
from coordinator.journal.journal import Journal
from coordinator.journal.proofs import verify_consistency
from coordinator.journal.values import ShardState
from coordinator.values import Told
from depot.errors import InvalidRequest
from tests.coordinator.database.making import opened
from tests.coordinator.journal.telling import check, key_files, named, names, tell

SEALED, OPENED, AGAIN = "journal.shard_sealed", "journal.shard_opened", "journal.shard_reactivated"


async def test_entries_keep_their_index_and_their_proof_when_the_shard_is_sealed(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a", "b")
    before = await journal.entries(0, 10)
    made = await journal.rotate()
    await tell(database, "c")
    entries = await journal.entries(0, 10)
    assert entries[:2] == before
    assert list(map(named, entries)) == ["a", "b", SEALED, OPENED, "c"]
    assert [entry.index for entry in entries] == [0, 1, 2, 3, 4]
    assert (made.done, made.active.first_index) == (True, 3)
    for index in range(5):
        check(await journal.proof(index))


async def test_a_proof_has_the_checkpoint_of_its_own_shard(
    journal: Journal, database: Database
) -> None:
    # Of one size, so that nothing but the shard tells them apart.
    await tell(database, "a", "b")
    await journal.rotate()
    await tell(database, "c", "d")
    await journal.checkpoint()
    assert [shard.size for shard in await journal.shards()] == [3, 3]
    for index in range(6):
        proof = await journal.proof(index)
        assert proof.checkpoint.shard_id == proof.shard.id
        check(proof)


async def test_the_old_shards_last_entry_names_the_key_of_the_new_one(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    made = await journal.rotate()
    said = json.loads((await journal.entry(1)).content)["data"]
    assert (said["next"], said["next_key"]) == (made.active.id, str(made.active.key))


async def test_the_new_shards_first_entry_says_how_the_old_one_ended(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    await tell(database, "b")
    said = json.loads((await journal.entry(2)).content)["data"]
    assert (said["before"], said["size"]) == (sealed.id, 2)
    assert said["root"] == sealed.edge.root.hex()


async def test_the_last_checkpoint_of_a_sealed_shard_covers_all_of_it(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    checkpoint = opened_checkpoint((await journal.proof(0)).checkpoint.note, sealed.key)
    assert (checkpoint.size, checkpoint.root) == (sealed.size, sealed.edge.root)


async def test_each_shard_has_a_key_of_its_own(journal: Journal, database: Database) -> None:
    for name in "abc":
        await tell(database, name)
        await journal.rotate()
    shards = await journal.shards()
    assert len({shard.key.public for shard in shards}) == len(shards) == 4


async def test_a_rotation_said_again_ends_no_other_shard(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    first = await journal.rotate()
    assert first.sealed is not None
    await tell(database, "b")
    again = await journal.rotate(first.sealed.id)
    assert (again.done, again.active.id) == (False, first.active.id)
    assert len(await journal.shards()) == 2


async def test_an_empty_shard_is_not_sealed(
    journal: Journal, database: Database, keys: Path
) -> None:
    assert not (await journal.rotate()).done
    await tell(database, "a")
    await journal.entries(0, 1)
    first = await journal.rotate()
    assert not (await journal.rotate()).done
    assert [shard.id for shard in await journal.shards()][1:] == [first.active.id]
    assert len(await key_files(keys)) == 2


async def test_a_rotation_can_be_undone_while_the_new_shard_is_empty(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    then = (await journal.proof(0)).checkpoint
    undone = await journal.undo_rotation()
    await tell(database, "b")
    assert undone.active.id == sealed.id
    assert await names(journal) == ["a", SEALED, AGAIN, "b"]
    now = opened_checkpoint((await journal.checkpoint())[1].note, sealed.key)
    grown = await journal.growth(sealed.id, then.size)
    old = opened_checkpoint(then.note, sealed.key)
    verify_consistency(old.size, now.size, grown.hashes, old.root, now.root)


async def test_a_checkpoint_of_an_empty_shard_whose_rotation_was_undone_accuses_nobody(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    await journal.rotate()
    _, kept = await journal.checkpoint()
    await journal.undo_rotation()
    checker = Checker(witnessed=[("the file", kept.note)])
    async for record in journal.export():
        checker.feed(record)
    assert (kept.size, checker.end().findings) == (0, [])


async def test_a_rotation_is_not_undone_when_something_happened_since(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    await journal.rotate()
    await tell(database, "b")
    await journal.number()
    with pytest.raises(ShardInUse, match="2 entries"):
        await journal.undo_rotation()


async def test_there_is_nothing_to_undo_in_the_first_shard(journal: Journal) -> None:
    with pytest.raises(ShardInUse):
        await journal.undo_rotation()


@pytest.mark.parametrize("table", [journal_entries, journal_nodes], ids=str)
async def test_the_database_itself_refuses_what_is_inserted_for_a_sealed_shard(
    journal: Journal, database: Database, table: object
) -> None:
    await tell(database, "a")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None

    async def insist(tx: Transaction) -> None:
        if table is journal_nodes:
            row = {"shard_id": sealed.id, "level": 0, "position": 2, "hash": bytes(32)}
            await tx.write(insert(journal_nodes).values(**row))
        else:
            row = told_now(Told("test.late"), 1.0)
            late = {"shard_id": sealed.id, "position": 2, **row}
            await tx.write(insert(journal_entries).values(**late))

    with pytest.raises(IntegrityError, match="the shard is sealed"):
        await database.run(insist)
    assert await names(journal) == ["a", SEALED]


async def test_without_the_old_key_nothing_is_sealed(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    (shard,) = await journal.shards()
    await asyncio.to_thread((keys / f"{shard.id}.key").unlink)
    other = await Journal.open(database, keys)
    await other.number()
    with pytest.raises(JournalKeyMissing, match=shard.id):
        await other.rotate()
    assert [each.state for each in await other.shards()] == [ShardState.ACTIVE]


async def test_a_key_that_others_can_read_is_not_used(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    (shard,) = await journal.shards()
    path = keys / f"{shard.id}.key"
    assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o600
    await asyncio.to_thread(path.chmod, 0o640)
    with pytest.raises(JournalKeyMissing, match="0600"):
        await (await Journal.open(database, keys)).checkpoint()


async def test_coordinators_that_rotate_at_once_seal_one_shard(
    journal: Journal, database: Database, database_url: str, keys: Path
) -> None:
    await tell(database, "a")
    await journal.number()
    (shard,) = await journal.shards()
    async with await opened(database_url) as other:
        also = await Journal.open(other, keys)
        both = await asyncio.gather(journal.rotate(shard.id), also.rotate(shard.id))
    assert sorted(made.done for made in both) == [False, True]
    assert len(await journal.shards()) == len(await key_files(keys)) == 2


async def test_a_rotation_that_is_given_up_leaves_the_old_shard_active(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    await journal.number()
    running = asyncio.create_task(journal.rotate())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await tell(database, "b")
    assert await names(journal) == ["a", "b"]
    assert (await journal.rotate()).done


async def test_a_shard_whose_key_is_lost_is_sealed_without_a_signature_and_says_so(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    kept = (await journal.checkpoint())[1]
    await tell(database, "b")
    (shard,) = await journal.shards()
    await asyncio.to_thread((keys / f"{shard.id}.key").unlink)
    other = await Journal.open(database, keys)
    made = await other.rotate(shard.id, lost_key=True)
    assert (made.done, (await other.rotate(shard.id, lost_key=True)).done) == (True, False)
    assert json.loads((await other.entry(2)).content)["data"]["key_lost"] is True
    await tell(database, "c")
    await other.checkpoint()
    checker = Checker(witnessed=[("a file", kept.note)])
    async for record in other.export():
        checker.feed(record)
    checked = checker.end()
    assert checked.findings == []
    assert [remark.index for remark in checked.remarks] == [1]


async def test_an_empty_shard_whose_key_is_lost_is_sealed_as_well(
    journal: Journal, database: Database, keys: Path
) -> None:
    (shard,) = await journal.shards()
    await asyncio.to_thread((keys / f"{shard.id}.key").unlink)
    other = await Journal.open(database, keys)
    assert (await other.rotate(lost_key=True)).done
    await tell(database, "a")
    assert await names(other) == [SEALED, OPENED, "a"]
    check(await other.proof(2))


async def test_a_key_that_is_here_is_not_lost(journal: Journal, database: Database) -> None:
    await tell(database, "a")
    with pytest.raises(InvalidRequest, match="is here"):
        await journal.rotate(lost_key=True)
    assert len(await journal.shards()) == 1
