"""What a journal says of restores excuses what they lost and nothing else, dropped or not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_checkpoints, journal_shards
from coordinator.database.transaction import Transaction
from coordinator.journal.checking import Checker
from coordinator.journal.checkpoints import Checkpoint, signed
from coordinator.journal.findings import Checked
from coordinator.journal.journal import Journal
from coordinator.journal.keys import KeyDirectory
from coordinator.journal.restores import DATABASE_RESTORED
from coordinator.journal.values import Shard
from coordinator.values import Told
from tests.coordinator.journal.telling import tell

pytestmark = pytest.mark.parametrize("server", ["sqlite"], indirect=True)
ELSEWHERE = "0123456789abcdef"


async def checked(journal: Journal, *kept: str) -> Checked:
    checker = Checker(witnessed=[("sled s1", note) for note in kept])
    async for record in journal.export():
        checker.feed(record)
    return checker.end()


async def another_end(keys: Path, shard: Shard, size: int) -> str:
    """A checkpoint of other entries than the journal has, by the shard's own key."""
    key = await asyncio.to_thread(KeyDirectory(keys).load, shard.id)
    return signed(Checkpoint(key.verifier.name, size, bytes(32)), key)


async def put_back(journal: Journal, lost: dict[str, int]) -> Shard:
    made = await journal.note_restore(lost)
    assert made.sealed is not None
    return made.sealed


async def ended(journal: Journal, database: Database, *names: str) -> Shard:
    await tell(database, *names)
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    return sealed


async def forge(database: Database, shard: str, kept: int, **lost: int) -> None:
    told = Told(DATABASE_RESTORED, data={"shard": shard, "kept": kept, "lost": lost})
    await database.run(lambda tx: tx.tell(told))


async def test_a_restore_said_of_a_shard_that_ended_before_explains_nothing_of_it(
    journal: Journal, database: Database, keys: Path
) -> None:
    sealed = await ended(journal, database, "a", "b")
    lie = await another_end(keys, sealed, 2)
    await forge(database, sealed.id, 0)
    await journal.rotate()
    await tell(database, "c")
    found = await checked(journal, lie)
    assert [each.index for each in found.findings] == [0]
    assert (found.restores, [each.index for each in found.remarks]) == (0, [4])


async def test_a_restore_explains_nothing_where_its_shard_goes_on(
    journal: Journal, database: Database, keys: Path
) -> None:
    (shard,) = await journal.shards()
    await forge(database, shard.id, 0)
    await tell(database, "a")
    sealed = await ended(journal, database, "b")
    await tell(database, "c")
    lie = await another_end(keys, sealed, 2)
    found = await checked(journal, lie)
    assert (len(found.findings), found.restores) == (1, 0)
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    assert (await checked(journal, await another_end(keys, sealed, 99))).findings


async def test_what_a_restore_says_is_lost_of_a_shard_that_is_here_explains_nothing(
    journal: Journal, database: Database, keys: Path
) -> None:
    earlier = await ended(journal, database, "a", "b")
    await tell(database, "c")
    await put_back(journal, {earlier.id: 99})
    found = await checked(journal, await another_end(keys, earlier, 2))
    assert ([each.index for each in found.findings], found.restores) == ([0], 1)


async def test_what_was_told_in_the_copy_comes_before_what_says_that_it_was_put_back(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    await journal.number()
    await tell(database, "b")
    sealed = await put_back(journal, {})
    found = await checked(journal, await another_end(keys, sealed, 2))
    assert (found.findings, found.restores) == ([], 1)


async def test_a_checkpoint_of_what_is_lost_does_not_stand_for_the_last_one(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    sealed = await put_back(journal, {})
    its = journal_checkpoints.c.shard_id == sealed.id
    await database.run(lambda tx: tx.write(delete(journal_checkpoints).where(its)))
    found = await checked(journal, await another_end(keys, sealed, 99))
    assert "without a last checkpoint" in found.findings[0].what


async def test_what_a_restore_explains_it_still_does_when_its_shard_is_dropped_and_the_next(
    journal: Journal, database: Database, keys: Path
) -> None:
    await tell(database, "a")
    lost = {ELSEWHERE: 7}
    first = await put_back(journal, lost)
    gone = (await another_end(keys, first, 2)).replace(first.id, ELSEWHERE)
    kept = [await another_end(keys, first, first.size), await another_end(keys, first, 99), gone]
    await journal.drop(first.id, first.size, first.edge.root)
    found = await checked(journal, *kept)
    assert (found.findings, found.restores) == ([], 1)
    second = await ended(journal, database, "b")
    await tell(database, "c")
    await journal.drop(second.id, second.size, second.edge.root)
    found = await checked(journal, *kept)
    assert (found.findings, found.restores) == ([], 1)
    assert "3 checkpoints kept elsewhere" in found.remarks[0].what


async def test_a_hidden_shard_is_found_behind_one_that_was_really_dropped(
    journal: Journal, database: Database
) -> None:
    hidden = await ended(journal, database, "a")
    dropped = await ended(journal, database, "b")
    await tell(database, "c")

    async def hide(tx: Transaction) -> object:
        its = journal_shards.c.id == hidden.id
        return await tx.write(update(journal_shards).where(its).values(time_dropped=1.0))

    await database.run(hide)
    await journal.drop(dropped.id, dropped.size, dropped.edge.root)
    (finding,) = (await checked(journal)).findings
    assert f"no entry says that shard {hidden.id} is dropped" in finding.what


async def test_shards_are_dropped_in_any_order_and_none_seems_hidden(
    journal: Journal, database: Database
) -> None:
    some = [await ended(journal, database, name) for name in "abc"]
    await tell(database, "d")
    await journal.drop(some[1].id, some[1].size, some[1].edge.root)
    await journal.drop(some[0].id, some[0].size, some[0].edge.root)
    said_in = await ended(journal, database, "e")
    for shard in (said_in, some[2]):
        await journal.drop(shard.id, shard.size, shard.edge.root)
        assert (await checked(journal)).findings == []
    assert (await checked(journal)).dropped == 4
