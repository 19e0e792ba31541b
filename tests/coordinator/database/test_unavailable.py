"""A database that cannot be reached, is locked, or goes away in the middle."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Select, func, select

from coordinator.database import generation, releases, sleds
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.errors import DatabaseUnavailable
from depot.artifact import Generation
from tests.coordinator.database.making import add_sled, artifact, release, start_python
from tests.coordinator.postgres import PostgresServer

UNUSABLE = {
    "not a URL": ("fleet.sqlite3", "is not a URL"),
    "in memory": ("sqlite+aiosqlite://", "keeps nothing"),
    "another database": ("mysql://depot:secret@host/name", "of 'mysql'; known are"),
    "another driver": ("postgresql+psycopg://depot:secret@host/name", r"psycopg'; known are"),
    "not installed": ("cockroachdb+asyncpg://depot:secret@host/name", "cockroachdb"),
    "no directory": ("sqlite:////nowhere/at/all/fleet.sqlite3", "unable to open"),
    "nobody there": ("postgresql://depot:secret@127.0.0.1:1/fleet?ssl=disable", "127.0.0.1"),
    "password in the query": (
        "postgresql://depot@127.0.0.1:1/fleet?ssl=disable&password=secret&passfile=/secret",
        r"127.0.0.1:1/fleet\?\S*ssl=disable",
    ),
    "no socket": ("postgresql://depot:secret@/fleet?host=/nowhere", "No such file|not exist"),
}


@pytest.mark.parametrize(("url", "said"), UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    url: str, said: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match=said) as refused:
        await Database.open(url)
    assert "secret" not in str(refused.value)


async def test_a_database_that_does_not_exist_on_its_server_is_named(
    postgres: PostgresServer,
) -> None:
    with pytest.raises(DatabaseUnavailable, match='"nobodys" does not exist'):
        await Database.open(postgres.url("nobodys"))


async def test_a_file_that_is_no_database_is_left_as_it_is(sqlite_file: Path) -> None:
    content = b"somebody's letters" * 1000
    await asyncio.to_thread(sqlite_file.write_bytes, content)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        await Database.open(f"sqlite:///{sqlite_file}")
    assert await asyncio.to_thread(sqlite_file.read_bytes) == content


@pytest.fixture
def holder(sqlite_file: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else who has the file open."""
    connection = sqlite3.connect(sqlite_file, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


async def test_a_sqlite_file_that_is_locked_for_long_is_unavailable_and_then_works(
    holder: sqlite3.Connection, sqlite_file: Path
) -> None:
    async with await Database.open(f"sqlite:///{sqlite_file}", patience_s=0.2) as database:
        await asyncio.to_thread(holder.execute, "BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await database.run(generation.read)
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await Database.open(f"sqlite:///{sqlite_file}", patience_s=0.2)
        await asyncio.to_thread(holder.execute, "ROLLBACK")
        assert await database.run(generation.read) == 1


async def test_a_sqlite_file_that_is_locked_for_a_moment_is_waited_for(
    holder: sqlite3.Connection, sqlite_file: Path
) -> None:
    async with await Database.open(f"sqlite:///{sqlite_file}") as database:
        await asyncio.to_thread(holder.execute, "BEGIN IMMEDIATE")
        adding = asyncio.create_task(database.run(add_sled, "s1"))
        await asyncio.sleep(0)
        await asyncio.to_thread(holder.execute, "UPDATE generation SET value = 9")
        await asyncio.to_thread(holder.execute, "COMMIT")
        await adding
        assert await database.run(generation.read) == 9


BACKEND: Select[tuple[int]] = select(func.pg_backend_pid())


async def test_a_connection_that_is_cut_in_the_middle_fails_that_and_no_other(
    postgres: PostgresServer,
) -> None:
    async with await Database.open(await postgres.create()) as database:
        runs = []

        async def work(tx: Transaction) -> None:
            await add_sled(tx, "s1")
            row = await tx.first(BACKEND)
            assert row is not None
            runs.append(row[0])
            await postgres.administer(f"SELECT pg_terminate_backend({row[0]})")
            await add_sled(tx, "s2")

        with pytest.raises(DatabaseUnavailable):
            await database.run(work)
        assert len(runs) == 1
        assert await database.run(sleds.every) == ()


async def test_a_connection_that_was_cut_while_idle_is_not_noticed(
    postgres: PostgresServer,
) -> None:
    async with await Database.open(await postgres.create()) as database:
        row = await database.run(Transaction.first, BACKEND)
        assert row is not None
        await postgres.administer(f"SELECT pg_terminate_backend({row[0]})")
        await database.run(add_sled, "s1")


async def test_a_coordinator_that_stands_still_in_the_middle_does_not_hold_up_the_others(
    postgres: PostgresServer,
) -> None:
    url = await postgres.create()
    async with (
        await Database.open(url, patience_s=1.5) as stalled,
        await Database.open(url) as other,
    ):
        locked, go_on = asyncio.Event(), asyncio.Event()

        async def stall(tx: Transaction) -> None:
            await generation.advance(tx, Generation(50))
            locked.set()
            await go_on.wait()
            await add_sled(tx, "s1")

        stalling = asyncio.create_task(stalled.run(stall))
        await locked.wait()
        await other.run(releases.record, release("1.0", artifact("a")))
        go_on.set()
        with pytest.raises(DatabaseUnavailable):
            await stalling
        assert await other.run(sleds.every) == ()
        assert await other.run(generation.read) == 2


async def test_whoever_gives_up_waiting_for_a_lock_does_not_get_it_later(
    holder: sqlite3.Connection, sqlite_file: Path
) -> None:
    async with (
        await Database.open(f"sqlite:///{sqlite_file}") as database,
        await Database.open(f"sqlite:///{sqlite_file}") as other,
    ):
        await asyncio.to_thread(holder.execute, "BEGIN EXCLUSIVE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await database.run(add_sled, "s1")
        await asyncio.to_thread(holder.execute, "ROLLBACK")
        for one in (other, database):
            assert await one.run(sleds.every) == ()


KILLED = """
import asyncio, sys
from coordinator.database.database import Database
from tests.coordinator.database.making import artifact, release
from coordinator.database import releases

async def work(tx):
    await releases.record(tx, release("2.0", artifact("b")))
    print("written", flush=True)
    await asyncio.Event().wait()

async def main():
    database = await Database.open(sys.argv[1])
    await database.run(releases.record, release("1.0", artifact("a")))
    await database.run(work)

asyncio.run(main())
"""


async def test_a_coordinator_killed_in_the_middle_leaves_what_it_committed_and_nothing_else(
    database: Database, database_url: str
) -> None:
    process = await start_python(KILLED, database_url)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert [each.version for each in await database.run(releases.every)] == ["1.0"]
    assert await database.run(generation.read) == 2
    await database.run(add_sled, "s1")
