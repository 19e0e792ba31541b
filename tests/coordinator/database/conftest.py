"""A fresh, migrated database for each test: once in SQLite, once in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.database.database import Database
from tests.coordinator.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """What the test's databases are made on; None for SQLite."""
    if request.param == "sqlite":
        return None
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres


@pytest.fixture
async def empty_url(server: PostgresServer | None, tmp_path: Path) -> str:
    """Of a database that nothing was ever done with."""
    if server is None:
        return f"sqlite+aiosqlite:///{tmp_path}/fleet.sqlite3"
    return await server.create()


@pytest.fixture
async def database_url(empty_url: str) -> str:
    """Of a database that is migrated."""
    await (await Database.open(empty_url)).close()
    return empty_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.open(database_url) as database:
        yield database
