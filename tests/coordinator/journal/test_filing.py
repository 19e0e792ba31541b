"""An entry that is hidden from searches, though nothing that is hashed was changed, is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_artifacts, journal_entries
from coordinator.database.transaction import Transaction
from coordinator.journal import exporting, filing
from coordinator.journal.checking import Checker
from coordinator.journal.findings import Checked
from coordinator.journal.journal import Journal
from coordinator.journal.values import Wanted
from coordinator.values import Told
from tests.coordinator.database.making import sha

HIDDEN = 1
Hide = Callable[[Transaction], Awaitable[object]]


@pytest.fixture
async def told(journal: Journal, database: Database) -> Journal:
    """Three entries about the same sled, release and artifacts."""

    async def work(tx: Transaction) -> None:
        for number in range(3):
            await tx.tell(
                Told(
                    "sled.put",
                    sled_id="s1",
                    release="1.0.0",
                    artifacts=(sha("a"), sha("b")),
                    data={"n": number},
                    time_s=1234.567891 + number,
                    source=("e1", number + 1),
                )
            )

    await database.run(work)
    await journal.number()
    return journal


async def checked(journal: Journal) -> Checked:
    checker = Checker()
    async for record in journal.export():
        checker.feed(json.loads(json.dumps(record)))
    return checker.end()


def column(**values: object) -> Hide:
    async def hide(tx: Transaction) -> object:
        at = journal_entries.c.position == HIDDEN
        return await tx.write(update(journal_entries).where(at).values(**values))

    return hide


async def artifact(tx: Transaction) -> object:
    row = await tx.first(select(journal_entries.c.id).where(journal_entries.c.position == HIDDEN))
    assert row is not None
    its = journal_artifacts.c
    where = (its.entry_id == row.id, its.sha256 == sha("b"))
    return await tx.write(delete(journal_artifacts).where(*where))


async def test_what_nobody_changed_is_found_by_all_that_it_says(told: Journal) -> None:
    assert (await checked(told)).findings == []
    assert len(await told.entries(0, 10, Wanted(artifact=str(sha("b")), sled_id="s1"))) == 3


@pytest.mark.parametrize(
    ("hide", "name"),
    [
        (artifact, "artifacts"),
        (column(sled_id="s2"), "sled"),
        (column(sled_id=None), "sled"),
        (column(release=None), "release"),
        (column(kind="sled.copied"), "kind"),
        (column(time=1.0), "time"),
    ],
)
async def test_an_entry_that_is_hidden_from_searches_is_named(
    told: Journal, database: Database, hide: Hide, name: str
) -> None:
    await database.run(hide)
    found = await checked(told)
    assert found.first_bad == HIDDEN
    assert [each.what for each in found.findings] == [
        f"is not found by its {name}: the database lists it otherwise"
    ]


async def test_a_long_list_of_artifacts_is_looked_up_some_at_a_time(
    told: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "LOOKED_UP_AT_ONCE", 4)
    assert (await checked(told)).findings == []
    await database.run(artifact)
    assert (await checked(told)).first_bad == HIDDEN


async def test_entries_that_name_many_artifacts_are_gone_through_one_at_a_time(
    told: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "CONTENT_AT_ONCE", 1)
    found = await checked(told)
    assert (found.findings, found.entries) == ([], 3)
    sealed = (await told.rotate()).sealed
    assert sealed is not None
    await told.drop(sealed.id, sealed.size, sealed.edge.root)
    deleted = 0
    while await told.delete_dropped():
        deleted += 1
    assert deleted == sealed.size


async def test_an_export_goes_on_behind_entries_that_are_missing(
    told: Journal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 1)
    at = journal_entries.c.position == HIDDEN
    await database.run(lambda tx: tx.write(delete(journal_entries).where(at)))
    found = await checked(told)
    assert (found.first_bad, found.entries) == (HIDDEN, 2)


def test_no_row_is_looked_for_by_going_through_all_of_them() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(str(CreateTable(journal_artifacts)))
        query = str(filing.by_pair(3).compile(dialect=sqlite.dialect()))
        plan = database.execute(f"EXPLAIN QUERY PLAN {query}", ("x",) * 6).fetchall()
    assert not [step for *_, step in plan if step.startswith("SCAN")]
    assert plan


async def test_what_a_dropped_shard_was_found_by_goes_with_it(
    told: Journal, database: Database
) -> None:
    sealed = (await told.rotate()).sealed
    assert sealed is not None
    await told.drop(sealed.id, sealed.size, sealed.edge.root)
    while await told.delete_dropped():
        pass

    async def left(tx: Transaction) -> int:
        row = await tx.first(select(func.count()).select_from(journal_artifacts))
        assert row is not None
        return int(row[0])

    assert await database.run(left) == 0
