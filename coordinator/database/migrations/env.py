"""Run by Alembic: connects and migrates, in one transaction, so that half of it leaves nothing.

What is given to it: `config.attributes["url"]`, `["patience_s"]`, and perhaps `["restoring"]`.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.database.engine import make_engine
from coordinator.database.migrating import UNFINISHED, RestoreUnfinished
from coordinator.database.tables import metadata


def _migrate(connection: Connection) -> None:
    # SQLite's statements that change the schema are part of its transactions as well.
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        restoring = context.config.attributes.get("restoring", False)
        if not restoring and inspect(connection).has_table(UNFINISHED):
            raise RestoreUnfinished
        context.run_migrations()


async def _connect_and_migrate(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


def _run() -> None:
    given = context.config.attributes
    engine = make_engine(given["url"], given["patience_s"])
    # Alembic reads the revisions' files when they are first needed: now, not on the event loop.
    context.script.get_heads()
    asyncio.run(_connect_and_migrate(engine))


_run()
