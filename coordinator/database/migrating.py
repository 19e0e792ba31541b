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
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL

from coordinator.database.retrying import until_done
from coordinator.errors import DatabaseUnavailable
from coordinator.settings import without_secrets

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
UNFINISHED: Final = "restore_unfinished"
"""A table that is there while a database was put back and its journal does not say so yet."""
_one_at_a_time: Final = threading.Lock()
"""Alembic has one environment for the whole process."""


class RestoreUnfinished(Exception):
    """What was put back is not to be worked with: its journal would say what it said before."""


async def migrate(
    url: URL, *, patience_s: float, rng: random.Random, restoring: bool = False
) -> None:
    """Migrate a database to the newest schema, in a thread.

    Args:
        url: of the database.
        patience_s: how long it is tried for.
        rng: for the back-off.
        restoring: also a database that is being put back, and does not say so itself yet.

    Raises:
        DatabaseUnavailable: it cannot be reached, or a newer program migrated it.
    """
    config = config_for(url, patience_s)
    config.attributes["restoring"] = restoring
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


def known_revisions() -> frozenset[str]:
    """All the schemas that this program can bring up to its own."""
    scripts = ScriptDirectory(str(_MIGRATIONS))
    return frozenset(each.revision for each in scripts.walk_revisions())


def _upgrade(config: Config) -> None:
    _try_to_open(config.attributes["url"])
    try:
        with _one_at_a_time:
            command.upgrade(config, "head")
    except RestoreUnfinished as error:
        raise DatabaseUnavailable(
            "a restore of it was begun and not ended; `snapshot restore` it once more"
        ) from error
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
