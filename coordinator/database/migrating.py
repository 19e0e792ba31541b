"""Bringing a database's schema up to what this program knows.

All of it is one transaction: a coordinator that is killed in the middle leaves the old schema. Of
two that start at once one migrates; the other finds that done, at once or when it tries again.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL

from coordinator.database.retrying import until_done
from coordinator.errors import DatabaseUnavailable
from coordinator.settings import without_secrets

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_one_at_a_time: Final = threading.Lock()
"""Alembic has one environment for the whole process."""


async def migrate(url: URL, *, patience_s: float, rng: random.Random) -> None:
    """Migrate a database to the newest schema, in a thread.

    Raises:
        DatabaseUnavailable: it cannot be reached, or a newer program migrated it.
    """
    config = config_for(url, patience_s)
    try:
        await until_done(
            lambda: asyncio.to_thread(_upgrade, config), patience_s=patience_s, rng=rng
        )
    except DatabaseUnavailable as error:
        shown = without_secrets(url.render_as_string(hide_password=True))
        raise DatabaseUnavailable(f"{shown}: {error}") from error


def config_for(url: URL, patience_s: float) -> Config:
    """What Alembic is told about a database."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=url, patience_s=patience_s)
    return config


def _upgrade(config: Config) -> None:
    _try_to_open(config.attributes["url"])
    try:
        with _one_at_a_time:
            command.upgrade(config, "head")
    except CommandError as error:
        raise DatabaseUnavailable(
            f"its schema is of a newer version than this program knows ({error})"
        ) from error


def _try_to_open(url: URL) -> None:
    """Find out here whether a file can be opened: the driver's thread would outlive its loop."""
    if url.get_backend_name() != "sqlite":
        return
    assert url.database is not None
    try:
        sqlite3.connect(url.database).close()
    except sqlite3.Error as error:
        raise DatabaseUnavailable(str(error)) from error
