from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.database.engine import make_engine, parse_url


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:////var/fleet.sqlite3", "sqlite+aiosqlite:////var/fleet.sqlite3"),
        ("postgresql://a@b/c", "postgresql+asyncpg://a@b/c"),
        ("sqlite+aiosqlite:///fleet.sqlite3", "sqlite+aiosqlite:///fleet.sqlite3"),
    ],
)
def test_a_url_without_a_driver_is_of_the_one_that_is_used_here(given: str, meant: str) -> None:
    assert parse_url(given).render_as_string() == meant


async def test_f5_what_sqlite_committed_is_on_stable_storage_and_refers_to_what_is_there(
    sqlite_file: Path,
) -> None:
    engine = await asyncio.to_thread(make_engine, parse_url(f"sqlite:///{sqlite_file}"), 1.0)
    try:
        async with engine.connect() as connection:
            said = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
    finally:
        await engine.dispose()
    assert said == ["wal", 2, 1]
