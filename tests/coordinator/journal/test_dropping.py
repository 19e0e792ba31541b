"""A shard that an export has is dropped: its place and its end stay, and what follows verifies."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_entries, journal_nodes
from coordinator.database.transaction import Transaction
from coordinator.errors import ShardDropped, ShardInUse
from coordinator.journal import dropping
from coordinator.journal.checking import Checker
from coordinator.journal.findings import Checked
from coordinator.journal.journal import Journal
from coordinator.journal.values import Shard, Wanted
from depot.errors import InvalidRequest
from tests.coordinator.journal.telling import check, named, names, tell

OPENED = "journal.shard_opened"


async def records(journal: Journal) -> list[dict[str, Any]]:
    return [record async for record in journal.export()]


def checked(found: list[dict[str, Any]], *witnessed: tuple[str, str]) -> Checked:
    checker = Checker(witnessed=witnessed)
    for record in found:
        checker.feed(record)
    return checker.end()


async def sealed_one(journal: Journal, database: Database) -> Shard:
    await tell(database, *"abcde")
    sealed = (await journal.rotate()).sealed
    assert sealed is not None
    await tell(database, "f")
    return sealed


async def left(database: Database, shard: Shard) -> tuple[int, int]:
    async def count(tx: Transaction) -> tuple[int, int]:
        rows = [
            await tx.first(
                select(func.count()).select_from(table).where(table.c.shard_id == shard.id)
            )
            for table in (journal_entries, journal_nodes)
        ]
        return rows[0][0], rows[1][0]  # type: ignore[index]

    return await database.run(count)


async def test_what_comes_after_a_dropped_shard_keeps_its_index_and_verifies(
    journal: Journal, database: Database
) -> None:
    sealed = await sealed_one(journal, database)
    kept = (await journal.proof(0)).checkpoint
    before = await records(journal)
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    found = await journal.entries(0, 100)
    assert [(each.index, named(each)) for each in found] == [
        (6, OPENED),
        (7, "f"),
        (8, "journal.shard_dropped"),
    ]
    check(await journal.proof(7))
    now = checked(await records(journal), ("a file", kept.note))
    assert (now.findings, now.dropped, now.witnessed) == ([], 1, 1)
    assert checked(before).findings == []


async def test_the_entries_of_a_dropped_shard_are_refused_and_not_found(
    journal: Journal, database: Database
) -> None:
    sealed = await sealed_one(journal, database)
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    for ask in (journal.entry, journal.proof):
        with pytest.raises(ShardDropped, match="0 to 5"):
            await ask(3)
    found = await journal.entries(0, 100, Wanted(kind="test."))
    assert list(map(named, found)) == ["f"]


async def test_what_a_dropped_shard_has_left_is_deleted_some_at_a_time(
    journal: Journal, database: Database
) -> None:
    sealed = await sealed_one(journal, database)
    await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    assert await database.run(dropping.delete_some, 4)
    assert (await left(database, sealed))[0] == 2
    while await journal.delete_dropped():
        pass
    assert await left(database, sealed) == (0, 0)
    assert await names(journal) == [OPENED, "f", "journal.shard_dropped"]


async def test_a_shard_is_dropped_once_however_often_it_is_said(
    journal: Journal, database: Database
) -> None:
    sealed = await sealed_one(journal, database)
    for _ in range(2):
        await journal.drop(sealed.id, sealed.size, sealed.edge.root)
    assert (await names(journal)).count("journal.shard_dropped") == 1


async def test_a_shard_that_is_not_the_exports_is_not_dropped(
    journal: Journal, database: Database
) -> None:
    sealed = await sealed_one(journal, database)
    for size, root in ((sealed.size, bytes(32)), (sealed.size - 1, sealed.edge.root)):
        with pytest.raises(InvalidRequest, match="the export has"):
            await journal.drop(sealed.id, size, root)
    assert (await names(journal))[0] == "a"


async def test_an_active_shard_is_not_dropped(journal: Journal, database: Database) -> None:
    await tell(database, "a")
    (shard,) = await journal.shards()
    with pytest.raises(ShardInUse, match="active"):
        await journal.drop(shard.id, shard.size, shard.edge.root)
