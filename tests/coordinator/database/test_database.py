"""Transactions: all or nothing, one after the other, whoever else is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from coordinator.database import counters, generation, history, releases, sleds, staged
from coordinator.database.database import Database
from coordinator.database.tables import counters as counter_table
from coordinator.database.transaction import Transaction
from coordinator.errors import ReleaseConflict
from coordinator.values import RequestRecord
from depot.artifact import Generation
from depot.errors import InvalidRequest
from tests.coordinator.database.making import add_sled, artifact, opened, release, sha
from tests.coordinator.postgres import PostgresServer


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """The same database, as another coordinator has it open."""
    async with await opened(database_url) as database:
        yield database


async def test_what_a_transaction_raises_undoes_it_and_comes_out(database: Database) -> None:
    async def work(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        await database.run(work)
    assert await database.run(sleds.every) == ()


async def test_what_is_cancelled_in_the_middle_leaves_nothing_and_holds_nobody_up(
    database: Database, other: Database
) -> None:
    written = asyncio.Event()

    async def work(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        written.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(database.run(work))
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for one in (other, database):
        assert await one.run(sleds.every) == ()


async def test_two_coordinators_that_change_the_same_row_lose_no_change(
    database: Database, other: Database
) -> None:
    async def rise(tx: Transaction) -> None:
        await generation.advance(tx, Generation(await generation.read(tx) + 1))

    await asyncio.gather(*(one.run(rise) for one in (database, other) for _ in range(8)))
    assert await database.run(generation.read) == 17


async def test_a_transaction_that_another_got_in_the_way_of_sees_what_that_did(
    database: Database, other: Database, server: PostgresServer | None
) -> None:
    """Both have read before either writes; with SQLite the second waits for the first instead."""
    have_read = asyncio.Barrier(2)
    begun: set[str] = set()

    async def work(tx: Transaction, name: str) -> None:
        count = len(await sleds.every(tx))
        if server is not None and name not in begun:
            begun.add(name)
            await have_read.wait()
        await add_sled(tx, f"{name}, after {count}")

    await asyncio.gather(database.run(work, "a"), other.run(work, "b"))
    found = {sled.id for sled in await database.run(sleds.every)}
    assert found in ({"a, after 0", "b, after 1"}, {"b, after 0", "a, after 1"})


async def test_two_uploads_of_one_release_at_once_are_one_release(
    database: Database, other: Database
) -> None:
    one = release("1.0", artifact("a"), artifact("b"))
    recorded = await asyncio.gather(
        *(each.run(releases.record, one) for each in (database, other, database, other))
    )
    assert sorted(each.inserted for each in recorded) == [False, False, False, True]
    assert await database.run(releases.every) == (one,)
    assert await database.run(generation.read) == 2


async def test_of_two_conflicting_uploads_at_once_one_is_refused(
    database: Database, other: Database
) -> None:
    results = await asyncio.gather(
        database.run(releases.record, release("1.0", artifact("a", "bytes"))),
        other.run(releases.record, release("2.0", artifact("a", "other bytes"))),
        return_exceptions=True,
    )
    assert [type(each) for each in results].count(ReleaseConflict) == 1
    assert len(await database.run(releases.every)) == 1
    assert await database.run(generation.read) == 2


async def test_two_coordinators_record_what_they_did_side_by_side(
    database: Database, other: Database
) -> None:
    async def work(tx: Transaction, name: str, number: int) -> None:
        await history.append(tx, [RequestRecord(float(number), name, "list")])
        await counters.add(tx, {"list_ok": 1})
        await staged.add(tx, name, [sha(str(number))])

    await asyncio.gather(
        *(
            one.run(work, name, number)
            for one, name in ((database, "c1"), (other, "c2"))
            for number in range(6)
        )
    )
    assert await database.run(counters.read) == {"list_ok": 12}
    assert len(await database.run(history.read)) == 12
    found = await database.run(staged.by_coordinator)
    assert {name: len(its) for name, its in found.items()} == {"c1": 6, "c2": 6}


async def test_a_constraint_that_is_violated_every_time_is_a_defect_and_comes_out(
    database: Database,
) -> None:
    await database.run(counters.add, {"list_ok": 1})
    again = insert(counter_table).values(name="list_ok", value=1)
    with pytest.raises(IntegrityError):
        await database.run(Transaction.write, again)


async def test_a_text_that_no_database_can_hold_is_the_callers_fault(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="cannot hold"):
        await database.run(sleds.get, "a\udc80b")


async def test_a_text_that_postgresql_cannot_hold_is_the_callers_fault(
    postgres: PostgresServer,
) -> None:
    async with await Database.open(await postgres.create()) as database:
        with pytest.raises(InvalidRequest, match="cannot hold"):
            await database.run(sleds.get, "a\0b")
