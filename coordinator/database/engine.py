"""The engine for a URL: what SQLite needs so that its transactions are as strict as PostgreSQL's.

SQLite: a write-ahead log, each commit on stable storage, foreign keys enforced, and `BEGIN
IMMEDIATE`, so that a transaction that reads first and writes then cannot find that somebody else
wrote in between. One connection: its transactions are one after the other in any case, and so in
the order they were asked for. PostgreSQL: `SERIALIZABLE`, of which one of two that depend on each
other fails and is run again.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from coordinator.errors import DatabaseUnavailable

_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
# CockroachDB's dialect is a package of its own, which whoever uses it installs.
_KNOWN: Final = frozenset({*_DRIVERS.values(), "cockroachdb+asyncpg"})
_CONNECT_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 60.0
_MAX_IDLE: Final = 2 / 3
"""Of the patience: how long PostgreSQL waits for a coordinator that stands still in the middle of a
transaction, whose rows are locked for all others. Then it is rolled back."""
_LOCK_WAIT: Final = 0.25
"""Of the patience: how long one attempt waits for SQLite's lock, before it is made anew."""


def parse_url(text: str) -> URL:
    """Read a database URL; without a driver, with the one that is used here.

    Raises:
        DatabaseUnavailable: it is none, or not of a database that can be used here.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUnavailable(
            "database.url is not a URL such as sqlite+aiosqlite:///path or "
            "postgresql+asyncpg://user@host/name"
        ) from None
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _KNOWN:
        raise DatabaseUnavailable(
            f"database.url is of {url.drivername!r}; known are {', '.join(sorted(_KNOWN))}"
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise DatabaseUnavailable("database.url names no file: SQLite in memory keeps nothing")
    return url


def make_engine(url: URL, patience_s: float) -> AsyncEngine:
    """Build an engine; it connects when it is first used.

    Args:
        url: of the database.
        patience_s: how long to wait for a connection to be free, and for other coordinators.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, patience_s)
    return create_async_engine(
        url,
        isolation_level="SERIALIZABLE",
        # A connection that the server closed meanwhile is no reason to refuse anything.
        pool_pre_ping=True,
        pool_timeout=patience_s,
        connect_args={
            "timeout": _CONNECT_TIMEOUT_S,
            "command_timeout": _COMMAND_TIMEOUT_S,
            "server_settings": {
                "idle_in_transaction_session_timeout": str(round(1000 * patience_s * _MAX_IDLE))
            },
        },
    )


def _sqlite(url: URL, patience_s: float) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=patience_s,
        connect_args={"timeout": patience_s * _LOCK_WAIT},
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    # The driver would begin transactions of its own, later and weaker ones.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
