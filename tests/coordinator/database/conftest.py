"""A fresh, migrated database for each test: once in SQLite, once in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.database.database import Database
from tests.coordinator.database.making import make_empty, opened
from tests.coordinator.postgres import PostgresServer
from tests.coordinator.running import migrated


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
        return f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3"
    return await server.create()


@pytest.fixture(scope="session")
def sqlite_template() -> bytes:
    """What a migrated SQLite file holds."""
    return migrated()


@pytest.fixture(scope="session")
def in_use() -> dict[PostgresServer, str]:
    """The database of a server that tests use one after the other: making one takes longest."""
    return {}


@pytest.fixture
async def database_url(
    server: PostgresServer | None, in_use: dict[PostgresServer, str], sqlite_file: Path
) -> str:
    """Of a database that is migrated, and empty when `database` is used as well."""
    if server is None:
        return f"sqlite+aiosqlite:///{sqlite_file}"
    if server not in in_use:
        in_use[server] = await server.create()
        await (await Database.open(in_use[server])).close()
    return in_use[server]


@pytest.fixture
def sqlite_file(sqlite_template: bytes, tmp_path: Path) -> Path:
    """A migrated SQLite file."""
    path = tmp_path / "fleet.sqlite3"
    path.write_bytes(sqlite_template)
    return path


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await opened(database_url) as database:
        await database.run(make_empty)
        yield database
