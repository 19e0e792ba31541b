"""What is told becomes an entry with what told it, and keeps its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import delete

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_entries
from coordinator.database.transaction import Transaction
from coordinator.errors import EntryNotFound
from coordinator.journal.checkpoints import opened as opened_checkpoint
from coordinator.journal.journal import Journal
from coordinator.journal.proofs import verify_inclusion
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.values import Told
from tests.coordinator.database.making import add_sled, opened
from tests.coordinator.journal.telling import check, key_files, names, tell


async def test_what_is_told_is_there_in_the_order_it_was_told(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a", "b")
    await tell(database, "c")
    assert await names(journal) == ["a", "b", "c"]
    assert [entry.index for entry in await journal.entries(0, 10)] == [0, 1, 2]


async def test_what_is_undone_was_never_told(journal: Journal, database: Database) -> None:
    async def work(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        await tx.tell(Told("test.thing"))
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        await database.run(work)
    assert await names(journal) == []


async def test_the_tree_is_the_one_over_the_entries(journal: Journal, database: Database) -> None:
    for count in (1, 2, 4, 6):
        await tell(database, *map(str, range(count)))
        await journal.number()
    entries = await journal.entries(0, 100)
    (shard,) = await journal.shards()
    edge = Edge().appended([leaf_hash(entry.content.encode()) for entry in entries])[0]
    assert shard.edge == edge
    assert [entry.leaf for entry in entries] == [
        leaf_hash(entry.content.encode()) for entry in entries
    ]


async def test_each_entry_is_proved_by_a_checkpoint_that_covers_it(
    journal: Journal, database: Database
) -> None:
    for name in "abcdefg":
        await tell(database, name)
        check(await journal.proof((await journal.entries(0, 100))[-1].index))
    for index in range(7):
        check(await journal.proof(index))


async def test_a_proof_for_an_older_checkpoint_is_still_given(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a", "b", "c")
    _, then = await journal.checkpoint()
    await tell(database, *map(str, range(20)))
    await journal.checkpoint()
    now = await journal.proof(1)
    older = await journal.proof(1, then.size)
    assert (older.size, now.size) == (then.size, 23) == (3, now.checkpoint.size)
    verify_inclusion(
        older.entry.leaf, 1, 3, older.hashes, opened_checkpoint(then.note, older.shard.key).root
    )


async def test_an_index_that_was_never_used_has_no_entry(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a")
    with pytest.raises(EntryNotFound):
        await journal.entry(1)
    with pytest.raises(EntryNotFound):
        await journal.proof(-1)


async def test_an_entry_that_somebody_deleted_is_not_proved(
    journal: Journal, database: Database
) -> None:
    await tell(database, "a", "b", "c")
    await journal.checkpoint()

    async def lose(tx: Transaction) -> None:
        await tx.write(delete(journal_entries).where(journal_entries.c.position == 1))

    await database.run(lose)
    for ask in (journal.entry, journal.proof):
        with pytest.raises(EntryNotFound, match="entry 1 is missing from the database"):
            await ask(1)
    check(await journal.proof(2))


async def test_several_coordinators_that_number_at_once_use_each_index_once(
    journal: Journal, database: Database, database_url: str, keys: Path
) -> None:
    async with await opened(database_url) as other:
        journals = [journal, await Journal.open(other, keys)]

        async def work(its: Journal, where: Database, name: str) -> None:
            for number in range(10):
                await tell(where, f"{name}{number}")
                await its.number()

        both = zip(journals, (database, other), "ab", strict=True)
        await asyncio.gather(*(work(*each) for each in both))
    entries = await journal.entries(0, 100)
    assert [entry.index for entry in entries] == list(range(20))
    assert sorted(await names(journal)) == sorted(f"{x}{n}" for x in "ab" for n in range(10))
    assert [entry.id for entry in entries] == list(dict.fromkeys(entry.id for entry in entries))


async def test_two_coordinators_that_open_a_new_journal_make_one_shard(
    database: Database, database_url: str, keys: Path
) -> None:
    async with await opened(database_url) as other:
        await asyncio.gather(Journal.open(database, keys), Journal.open(other, keys))
        (shard,) = await (await Journal.open(other, keys)).shards()
    assert await key_files(keys) == [shard.id]


async def test_an_entry_is_proved_while_others_append(
    journal: Journal, database: Database, database_url: str, keys: Path
) -> None:
    await tell(database, "a")
    async with await opened(database_url) as other:
        also = await Journal.open(other, keys)

        async def append() -> None:
            for number in range(10):
                await tell(other, str(number))
                await also.number()

        async def prove() -> None:
            for index in range(10):
                await tell(database, f"mine {index}")
                newest = (await journal.shards())[-1].size - 1
                check(await journal.proof(newest))

        await asyncio.gather(append(), prove())
