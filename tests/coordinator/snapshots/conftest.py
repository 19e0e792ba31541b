"""A migrated database that several coordinators have open, once for each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.snapshots.files import FileArchive
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
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


@pytest.fixture(scope="session")
def templates() -> dict[PostgresServer, str]:
    """The name of a migrated database on a server: a copy of it takes a moment."""
    return {}


@pytest.fixture
async def url(
    server: PostgresServer | None, templates: dict[PostgresServer, str], sqlite_file: Path
) -> str:
    """Of a migrated database."""
    if server is None:
        return f"sqlite+aiosqlite:///{sqlite_file}"
    if server not in templates:
        url = await server.create()
        await (await Database.open(url)).close()
        templates[server] = str(parse_url(url).database)
    return await server.create(templates[server])


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with await opened(url) as database:
        yield database


@pytest.fixture
def archive(tmp_path: Path) -> FileArchive:
    (tmp_path / "archive").mkdir()
    return FileArchive(tmp_path / "archive")
