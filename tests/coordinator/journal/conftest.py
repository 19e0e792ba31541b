"""A journal on a fresh database: once in SQLite, once in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.database.database import Database
from coordinator.journal.journal import Journal

# The databases are those of the database's own tests.
from tests.coordinator.database.conftest import (  # noqa: F401
    database,
    database_url,
    empty_url,
    in_use,
    server,
    sqlite_file,
    sqlite_template,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
async def journal(database: Database, keys: Path) -> Journal:  # noqa: F811
    return await Journal.open(database, keys)
