"""A migrated database that several coordinators have open, once for each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.snapshots.files import FileArchive
from coordinator.database.database import Database
from coordinator.database.engine import parse_url

# The file and the server are those of the database's own tests.
from tests.coordinator.database.conftest import (  # noqa: F401
    server,
    sqlite_file,
    sqlite_template,
)
from tests.coordinator.database.making import opened
from tests.coordinator.postgres import PostgresServer

# The server that speaks S3 is that of the tests of archives.
from tests.snapshots.conftest import (  # noqa: F401
    credentials,
    make_bucket,
    s3_client,
    s3_server,
)


@pytest.fixture(scope="session")
def templates() -> dict[PostgresServer, str]:
    """The name of a migrated database on a server: a copy of it takes a moment."""
    return {}


@pytest.fixture
async def url(
    server: PostgresServer | None,  # noqa: F811
    templates: dict[PostgresServer, str],
    sqlite_file: Path,  # noqa: F811
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
