"""A migrated database that several coordinators have open, once for each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.snapshots.files import FileArchive
from coordinator.database.database import Database
from tests.coordinator.database.making import opened
from tests.coordinator.postgres import PostgresServer
from tests.coordinator.running import migrated

# The server that speaks S3 is that of the tests of archives.
from tests.snapshots.conftest import (  # noqa: F401
    credentials,
    make_bucket,
    s3_client,
    s3_server,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """What the test's databases are made on; None for SQLite."""
    if request.param == "sqlite":
        return None
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres


@pytest.fixture(scope="session")
def sqlite_template() -> bytes:
    """What a migrated SQLite file holds."""
    return migrated()


@pytest.fixture
def sqlite_file(sqlite_template: bytes, tmp_path: Path) -> Path:
    """A migrated SQLite file."""
    path = tmp_path / "fleet.sqlite3"
    path.write_bytes(sqlite_template)
    return path


@pytest.fixture
async def url(server: PostgresServer | None, sqlite_file: Path) -> str:
    """Of a migrated database."""
    if server is None:
        return f"sqlite+aiosqlite:///{sqlite_file}"
    url = await server.create()
    await (await Database.open(url)).close()
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with await opened(url) as database:
        yield database


@pytest.fixture
def archive(tmp_path: Path) -> FileArchive:
    (tmp_path / "archive").mkdir()
    return FileArchive(tmp_path / "archive")
