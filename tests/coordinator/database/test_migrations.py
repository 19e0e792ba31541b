"""What the migrations make, and what they make of a database that is not theirs alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.database.engine import make_engine, parse_url
from coordinator.database.migrating import config_for, migrate
from coordinator.database.tables import metadata
from coordinator.errors import DatabaseUnavailable
from depot.artifact import Generation
from tests.coordinator.database.making import start_python
from tests.coordinator.postgres import PostgresServer

ALEMBICS = "alembic_version"


def revisions() -> ScriptDirectory:
    return ScriptDirectory.from_config(config_for(parse_url("sqlite:///unused"), 1.0))


(NEWEST,) = revisions().get_heads()


async def engine_for(url: str) -> AsyncEngine:
    # Patient: on a busy machine PostgreSQL would take it for one that stands still.
    return await asyncio.to_thread(make_engine, parse_url(url), 60.0)


async def execute(url: str, statement: str) -> None:
    engine = await engine_for(url)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


def told(index: ReflectedIndex) -> str:
    """An index, with the text of its condition: two of one text are not the same object."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return repr({**index, "dialect_options": options})


def described(connection: Connection) -> dict[str, object]:
    """Everything that the database knows of each table, but not in which order."""
    inspector = inspect(connection)
    assert isinstance(inspector, Inspector)
    return {
        table: {
            "columns": [
                {**column, "type": repr(column["type"])} for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": sorted(map(repr, inspector.get_foreign_keys(table))),
            "indexes": sorted(map(told, inspector.get_indexes(table))),
            "unique": sorted(map(repr, inspector.get_unique_constraints(table))),
            "checks": sorted(map(repr, inspector.get_check_constraints(table))),
        }
        for table in inspector.get_table_names()
        if table != ALEMBICS
    }


async def schema_of(url: str, *, make: bool = False) -> dict[str, object]:
    engine = await engine_for(url)
    async with engine.begin() as connection:
        if make:
            await connection.run_sync(metadata.create_all)
        found = await connection.run_sync(described)
    await engine.dispose()
    return found


@pytest.fixture
async def another_url(server: PostgresServer | None, empty_url: str) -> str:
    return f"{empty_url}.other" if server is None else await server.create()


async def test_migrations_make_exactly_the_schema_that_the_tables_describe(
    database_url: str, another_url: str
) -> None:
    made = await schema_of(another_url, make=True)
    assert set(made) == set(metadata.tables)
    assert await schema_of(database_url) == made


async def test_a_database_that_is_migrated_keeps_what_is_in_it(empty_url: str) -> None:
    for expected in (1, 7):
        async with await Database.open(empty_url) as database:
            assert await database.run(generation.read) == expected
            await database.run(generation.advance, Generation(7))


OPENS = """
import asyncio, sys
from coordinator.database import generation
from coordinator.database.database import Database

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with await Database.open(sys.argv[1]) as database:
        print(await database.run(generation.read))

asyncio.run(main())
"""


async def test_two_coordinators_that_open_a_new_database_at_once_both_get_it(
    empty_url: str,
) -> None:
    both = [await start_python(OPENS, empty_url) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(process.communicate(b"go\n") for process in both))
    assert [out for out, _ in said] == [b"1\n", b"1\n"]


async def test_half_a_migration_leaves_nothing(empty_url: str) -> None:
    await execute(empty_url, "CREATE TABLE releases (mine INTEGER)")
    with pytest.raises(DatabaseUnavailable, match="releases"):
        await Database.open(empty_url)
    assert set(await schema_of(empty_url)) == {"releases"}
    await execute(empty_url, "DROP TABLE releases")
    async with await Database.open(empty_url) as database:
        assert await database.run(generation.read) == 1


async def test_a_database_of_a_newer_program_is_refused_and_left_as_it_is(
    database_url: str,
) -> None:
    try:
        await execute(database_url, "UPDATE alembic_version SET version_num = '7777'")
        before = await schema_of(database_url)
        with pytest.raises(DatabaseUnavailable, match=r"newer version.*7777"):
            await Database.open(database_url)
        assert await schema_of(database_url) == before
    finally:
        await execute(database_url, f"UPDATE alembic_version SET version_num = '{NEWEST}'")


async def test_nothing_is_migrated_twice(database_url: str) -> None:
    await execute(database_url, "UPDATE generation SET value = 5")
    await migrate(parse_url(database_url), patience_s=1.0, rng=random.Random(1))
    async with await Database.open(database_url) as database:
        assert await database.run(generation.read) == 5


def test_the_revisions_are_one_line() -> None:
    assert len(revisions().get_heads()) == len(revisions().get_bases()) == 1
