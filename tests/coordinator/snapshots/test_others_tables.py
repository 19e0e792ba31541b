"""A PostgreSQL database in which somebody else has tables too: they stay as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from agent.snapshots.files import FileArchive
from coordinator.cli.depot_coordinator import run
from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.snapshots import ours, postgres
from tests.coordinator.database.making import opened
from tests.coordinator.database.test_migrations import engine_for, execute, schema_of
from tests.coordinator.postgres import PostgresServer
from tests.coordinator.snapshots.making import downloaded, publish, raise_by_one

THEIRS = (
    "CREATE TABLE theirs (a INTEGER PRIMARY KEY, b SERIAL)",
    "CREATE INDEX ix_theirs ON theirs (b)",
    'CREATE SCHEMA "Odd ""schema"',
    'CREATE TABLE "Odd ""schema".sleds (a INTEGER)',
    "CREATE SCHEMA another",
    "CREATE TABLE another.generation (id INTEGER, value INTEGER)",
    "CREATE TABLE another.releases (a INTEGER)",
    "CREATE FUNCTION their_function() RETURNS INTEGER LANGUAGE sql AS $$ SELECT 1 $$",
    "CREATE TYPE their_type AS ENUM ('a')",
    "SELECT lo_create(0)",
    "INSERT INTO theirs VALUES (1)",
    'INSERT INTO "Odd ""schema".sleds VALUES (1)',
    "INSERT INTO another.generation VALUES (0, 77)",
)

TRIGGERS = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"


@pytest.fixture
async def url(postgres: PostgresServer) -> str:
    """Of a database that is shared."""
    url = await postgres.create()
    await (await Database.open(url)).close()
    for statement in THEIRS:
        await execute(url, statement)
    return url


@pytest.fixture
def config(url: str, archive: FileArchive, tmp_path: Path) -> Path:
    file = tmp_path / "coordinator.toml"
    write_config(file, url, archive)
    return file


def write_config(file: Path, url: str, archive: FileArchive) -> None:
    file.write_text(
        f'[database]\nurl = "{url}"\n[staging]\npath = "{file.parent}/staging"\n'
        f'[snapshot]\narchive = "{archive.url}"\nname = "fleet"\n'
    )


async def restored(config: Path, *arguments: object) -> int:
    words = ["snapshot", "restore", "--yes", "--config", config, *arguments]
    return await asyncio.to_thread(run, [str(word) for word in words])


async def at(url: str) -> int:
    async with await opened(url) as database:
        return int(await database.run(generation.read))


async def rows(url: str, query: str) -> list[object]:
    engine = await engine_for(url)
    try:
        async with engine.begin() as connection:
            return list((await connection.execute(text(query))).scalars())
    finally:
        await engine.dispose()


async def test_others_tables_are_not_published_and_stay_as_they_are(
    url: str, config: Path, archive: FileArchive, tmp_path: Path
) -> None:
    before, triggers = await schema_of(url), await rows(url, TRIGGERS)
    assert len(triggers) == 2
    await asyncio.to_thread(publish, archive, url, tmp_path)
    copy = await asyncio.to_thread(downloaded, archive, tmp_path / "copy")
    listed = await asyncio.to_thread(postgres.output, ["pg_restore", "--list", str(copy)])
    assert "theirs" not in listed
    assert "Odd" not in [line.split()[4] for line in listed.splitlines() if "TABLE" in line]
    assert "BLOB" not in listed

    await execute(url, "INSERT INTO theirs VALUES (2)")
    async with await opened(url) as database:
        await database.run(raise_by_one)
    assert await restored(config) == 0

    assert await at(url) == 1
    assert await schema_of(url) == before
    assert await rows(url, TRIGGERS) == triggers
    assert await rows(url, "SELECT a FROM theirs ORDER BY a") == [1, 2]
    assert await rows(url, 'SELECT a FROM "Odd ""schema".sleds') == [1]
    assert await rows(url, "SELECT their_function()") == [1]


async def test_a_dump_of_all_that_there_is_puts_back_what_is_the_coordinators(
    url: str, config: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    await asyncio.to_thread(postgres.dump, parse_url(url), whole, compressed=True)
    await execute(url, "INSERT INTO theirs VALUES (2)")
    assert await restored(config, whole) == 0
    assert await rows(url, "SELECT a FROM theirs ORDER BY a") == [1, 2]


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE VIEW their_view AS SELECT id FROM sleds",
        "CREATE TABLE their_notes (sled TEXT REFERENCES sleds (id))",
    ],
)
async def test_what_depends_on_the_coordinators_tables_keeps_them_from_being_replaced(
    url: str,
    config: Path,
    archive: FileArchive,
    tmp_path: Path,
    theirs: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await asyncio.to_thread(publish, archive, url, tmp_path)
    async with await opened(url) as database:
        await database.run(raise_by_one)
    await execute(url, theirs)
    assert await restored(config) == 3
    said = capsys.readouterr().err
    assert theirs.split()[2] in said
    assert "CASCADE" not in said
    assert await at(url) == 2


async def test_another_programs_database_is_not_taken_for_ones_own(
    postgres: PostgresServer,
    url: str,
    config: Path,
    archive: FileArchive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await asyncio.to_thread(publish, archive, url, tmp_path)
    another = await postgres.create()
    await execute(another, "CREATE TABLE alembic_version (version_num TEXT)")
    await execute(another, "INSERT INTO alembic_version VALUES ('theirs')")
    await execute(another, "CREATE TABLE releases (a INTEGER)")
    await asyncio.to_thread(write_config, config, another, archive)

    assert await restored(config, "--without-copy") == 3
    assert "alembic_version, releases" in capsys.readouterr().err
    assert await rows(another, "SELECT version_num FROM alembic_version") == ["theirs"]


def test_of_a_dump_what_is_the_coordinators_is_chosen() -> None:
    listed = (
        ";\n; Selected TOC Entries:\n;\n"
        "1; 2615 1 SCHEMA - odd schema depot\n"
        "2; 1255 2 FUNCTION public journal_sealed() depot\n"
        "3; 1255 3 FUNCTION public theirs() depot\n"
        "4; 1259 4 TABLE public sleds an owner\n"
        "5; 1259 5 TABLE public theirs depot\n"
        "6; 0 0 ACL public TABLE sleds depot\n"
        "7; 0 0 ACL public COLUMN sleds.id depot\n"
        "8; 0 0 ACL public TABLE theirs depot\n"
        "9; 0 4 TABLE DATA public sleds depot\n"
        "10; 2606 6 FK CONSTRAINT public theirs fk_sleds depot\n"
        "11; 1259 7 INDEX public ix_journal_entries_time depot\n"
        "12; 1259 8 INDEX public ix_theirs depot\n"
        "13; 3079 9 EXTENSION - pg_trgm \n"
    )
    assert list(ours.numbers(listed)) == ["2", "4", "6", "7", "9", "11"]


def test_of_a_dump_tables_of_these_names_in_anothers_schema_are_not_chosen() -> None:
    listed = (
        "1; 1259 1 TABLE another releases owner\n"
        "2; 1259 2 TABLE another sleds owner\n"
        "3; 1259 3 TABLE public alembic_version owner\n"
        "4; 1259 4 TABLE public generation owner\n"
        "5; 1259 5 TABLE public releases owner\n"
        "6; 1259 6 TABLE public sleds owner\n"
        "7; 0 2 TABLE DATA another sleds owner\n"
        "8; 0 6 TABLE DATA public sleds owner\n"
    )
    assert list(ours.numbers(listed)) == ["3", "4", "5", "6", "8"]
    without_tables = "2; 0 2 TABLE DATA another sleds owner\n3; 0 3 TABLE DATA public sleds owner\n"
    assert list(ours.numbers(without_tables)) == ["2", "3"]
