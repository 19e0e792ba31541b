"""Whatever is changed in the database is named by its index, and what was not changed is not."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, delete, select, update

from coordinator.database.database import Database
from coordinator.database.journal_tables import (
    journal_checkpoints,
    journal_entries,
    journal_nodes,
    journal_shards,
)
from coordinator.database.transaction import Transaction
from coordinator.journal.appending import append, told_now
from coordinator.journal.checking import Checker
from coordinator.journal.checkpoints import Checkpoint, signed
from coordinator.journal.findings import Checked
from coordinator.journal.journal import Journal
from coordinator.journal.notes import SignerKey
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.journal.values import Shard
from coordinator.values import Told
from tests.coordinator.database.making import opened
from tests.coordinator.journal.telling import tell

Tamper = Callable[[Transaction, Shard], Awaitable[None]]
# Two shards: 0 to 3 (three names and the seal), 4 to 8 (the opening and four names).
ITS = journal_entries.c


async def check(journal: Journal, checker: Checker | None = None) -> Checked:
    checker = checker or Checker()
    async for record in journal.export():
        checker.feed(json.loads(json.dumps(record)))
    return checker.end()


@pytest.fixture
async def shard(journal: Journal, database: Database) -> Shard:
    """The second shard of a journal that is as it should be."""
    await tell(database, "a", "b", "c")
    await journal.rotate()
    await tell(database, "d", "e", "f", "g")
    await journal.checkpoint()
    return (await journal.shards())[1]


def at(shard: Shard, position: int) -> tuple[ColumnElement[bool], ...]:
    return (ITS.shard_id == shard.id, ITS.position == position)


async def change(tx: Transaction, shard: Shard) -> None:
    await tx.write(update(journal_entries).where(*at(shard, 2)).values(content='{"id":"x"}'))


async def drop(tx: Transaction, shard: Shard) -> None:
    await tx.write(delete(journal_entries).where(*at(shard, 2)))


async def drop_and_close_up(tx: Transaction, shard: Shard) -> None:
    await drop(tx, shard)
    for position in (3, 4):
        await move(tx, shard, position, position - 1)


async def drop_the_last(tx: Transaction, shard: Shard) -> None:
    await tx.write(delete(journal_entries).where(*at(shard, 4)))


async def swap(tx: Transaction, shard: Shard) -> None:
    await move(tx, shard, 2, 99)
    await move(tx, shard, 3, 2)
    await move(tx, shard, 99, 3)


async def insert(tx: Transaction, shard: Shard) -> None:
    for position in (4, 3, 2):
        await move(tx, shard, position, position + 1)
    row = told_now(Told("test.late"), 1.0)
    await tx.write(journal_entries.insert().values(shard_id=shard.id, position=2, **row))


async def insert_at_the_end(tx: Transaction, shard: Shard) -> None:
    row = told_now(Told("test.late"), 1.0)
    await tx.write(journal_entries.insert().values(shard_id=shard.id, position=5, **row))


async def move(tx: Transaction, shard: Shard, position: int, to: int) -> None:
    await tx.write(update(journal_entries).where(*at(shard, position)).values(position=to))


async def change_in_the_sealed_shard(tx: Transaction, _: Shard) -> None:
    await tx.write(update(journal_entries).where(ITS.id == await first_id(tx)).values(content="{}"))


async def hide_the_sealed_shard(tx: Transaction, _: Shard) -> None:
    sealed = journal_shards.c.time_sealed.is_not(None)
    await tx.write(update(journal_shards).where(sealed).values(time_dropped=1.0))


async def first_id(tx: Transaction) -> str:
    row = await tx.first(select(ITS.id).order_by(ITS.id))
    assert row is not None
    return str(row.id)


async def test_a_journal_that_nobody_changed_is_as_it_should_be(
    journal: Journal, shard: Shard
) -> None:
    checked = await check(journal)
    assert checked.findings == []
    assert (checked.shards, checked.entries, checked.checkpoints) == (2, 9, 2)


@pytest.mark.parametrize(
    ("tamper", "first_bad"),
    [
        (change, 6),
        (drop, 6),
        (drop_and_close_up, 6),
        (drop_the_last, 8),
        (swap, 6),
        (insert, 6),
        (insert_at_the_end, 9),
        (change_in_the_sealed_shard, 0),
        (hide_the_sealed_shard, 0),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_first_bad_index_is_named(
    journal: Journal, database: Database, shard: Shard, tamper: Tamper, first_bad: int
) -> None:
    await database.run(tamper, shard)
    checker = Checker()
    # As an operator sees it who looks without anything being numbered first.
    async for record in Journal.export(journal):
        checker.feed(record)
    assert checker.end().first_bad == first_bad


async def rewritten(tx: Transaction, shard: Shard, key: SignerKey | None) -> None:
    """A shard anew, with one entry changed: its hashes too, and with a key its checkpoints."""
    its_id = shard.id
    rows = [
        {
            name: value
            for name, value in row._mapping.items()
            if name not in ("shard_id", "position")
        }
        for row in await tx.rows(
            select(journal_entries).where(ITS.shard_id == its_id).order_by(ITS.position)
        )
    ]
    rows[2]["content"] = rows[2]["content"].replace('"e"', '"E"')
    for table in (journal_entries, journal_nodes, journal_checkpoints):
        await tx.write(delete(table).where(table.c.shard_id == its_id))
    known = journal_shards.c.id == its_id
    await tx.write(update(journal_shards).where(known).values(size=0, edge=b""))
    edge = Edge().appended([leaf_hash(row["content"].encode()) for row in rows])[0]
    nothing = Shard(its_id, 0, shard.first_index, shard.state, Edge(), shard.key, 0.0)
    await append(tx, nothing, rows, 0.0)
    if key is not None:
        note = signed(Checkpoint(shard.key.name, edge.size, edge.root), key)
        await tx.write(
            journal_checkpoints.insert().values(
                shard_id=its_id, size=edge.size, note=note, time=0.0
            )
        )
        await tx.write(update(journal_shards).where(known).values(verifier_key=str(key.verifier)))


async def test_a_shard_that_was_rewritten_under_another_key_is_found_by_the_old_ones_last_entry(
    journal: Journal, database: Database, shard: Shard
) -> None:
    await database.run(rewritten, shard, SignerKey.new(shard.key.name))
    assert (await check(journal)).first_bad == 3


async def test_a_shard_that_was_rewritten_is_found_by_the_key_that_is_known_of_it(
    journal: Journal, database: Database, shard: Shard
) -> None:
    await database.run(rewritten, shard, SignerKey.new(shard.key.name))
    found = (await check(journal, Checker({shard.id: shard.key}))).findings
    assert any("another key" in each.what for each in found)


async def test_a_shard_that_was_rewritten_is_found_by_a_checkpoint_that_others_kept(
    journal: Journal, database: Database, database_url: str, shard: Shard, keys: Path
) -> None:
    _, kept = await journal.checkpoint()
    await database.run(rewritten, shard, None)
    async with await opened(database_url) as other:
        again = await Journal.open(other, keys)
        assert (await check(again)).findings == []
        checked = await check(again, Checker(witnessed=[("sled s1", kept.note)]))
    assert checked.first_bad == 4
    assert any("sled s1" in each.what for each in checked.findings)


async def test_a_journal_that_was_cut_off_is_found_by_a_checkpoint_that_others_kept(
    journal: Journal, database: Database, shard: Shard
) -> None:
    _, kept = await journal.checkpoint()

    async def cut(tx: Transaction) -> None:
        for table in (journal_entries, journal_nodes, journal_checkpoints):
            await tx.write(delete(table).where(table.c.shard_id == shard.id))
        await tx.write(
            update(journal_shards).where(journal_shards.c.id == shard.id).values(size=0, edge=b"")
        )

    await database.run(cut)
    checked = await check(journal, Checker(witnessed=[("sled s1", kept.note)]))
    assert checked.first_bad == 4


async def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(
    journal: Journal, shard: Shard
) -> None:
    checker = Checker()
    async for record in journal.export():
        if "end" not in record:
            checker.feed(record)
    assert [each.what for each in checker.end().findings] == ["the export breaks off"]


@pytest.mark.parametrize("record", [{}, {"format": "other"}, {"entry": {}}, {"checkpoint": {}}])
def test_what_is_no_export_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|unexpected"):
        Checker().feed(record)


# ---- and whichever entry it is

Rows = list[tuple[Any, ...]]
"""Those of one shard's entries, in order; the second column is the position."""
Damage = Callable[[Rows, int], Rows]


def renumbered(rows: Iterable[tuple[Any, ...]]) -> Rows:
    return [(row[0], position, *row[2:]) for position, row in enumerate(rows)]


def changed(rows: Rows, at: int) -> Rows:
    return [*rows[:at], (*rows[at][:-1], f"{rows[at][-1]} "), *rows[at + 1 :]]


def dropped(rows: Rows, at: int) -> Rows:
    return rows[:at] + rows[at + 1 :]


def dropped_and_closed_up(rows: Rows, at: int) -> Rows:
    return renumbered(dropped(rows, at))


def swapped(rows: Rows, at: int) -> Rows:
    """With the one before it."""
    first = max(at - 1, 0)
    return renumbered([*rows[:first], rows[first + 1], rows[first], *rows[first + 2 :]])


def inserted(rows: Rows, at: int) -> Rows:
    forged = (*rows[at][:2], "forged", *rows[at][3:-1], "{}")
    return renumbered([*rows[:at], forged, *rows[at:]])


def replace_entries(file: Path, rows: Rows) -> None:
    """Who can write to the database can also drop the triggers that keep sealed shards."""
    with closing(sqlite3.connect(file)) as database, database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in found.fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute("DELETE FROM journal_entries")
        marks = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO journal_entries VALUES ({marks})", rows)


def entries_of(file: Path, shard_id: str) -> Rows:
    with closing(sqlite3.connect(file)) as database:
        its = "SELECT * FROM journal_entries WHERE shard_id = ? ORDER BY position"
        return database.execute(its, (shard_id,)).fetchall()


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
@pytest.mark.parametrize("damage", [changed, dropped, dropped_and_closed_up, swapped, inserted])
async def test_whichever_entry_it_is_the_first_bad_index_is_named(
    sqlite_file: Path, journal: Journal, shard: Shard, damage: Damage
) -> None:
    shards = await journal.shards()
    whole = [await asyncio.to_thread(entries_of, sqlite_file, each.id) for each in shards]
    for number, (its, rows) in enumerate(zip(shards, whole, strict=True)):
        for at in range(its.size):
            bad = [*whole[:number], damage(rows, at), *whole[number + 1 :]]
            await asyncio.to_thread(replace_entries, sqlite_file, list(chain(*bad)))
            first_bad = its.first_index + (max(at - 1, 0) if damage is swapped else at)
            assert (await check(journal)).first_bad == first_bad
    await asyncio.to_thread(replace_entries, sqlite_file, list(chain(*whole)))
    assert (await check(journal)).findings == []
