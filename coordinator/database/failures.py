"""What a failure of the database means: run it again, or say that it cannot be used."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

FAILURES: Final = (SQLAlchemyError, OSError, UnicodeEncodeError, OverflowError)
"""What may come out of the database: drivers let the network's own errors through."""

_SERIALIZATION_FAILURE: Final = "40001"
_DEADLOCK: Final = "40P01"
_DUPLICATE_TABLE: Final = "42P07"
_DATA_EXCEPTIONS: Final = "22"
_TOO_LONG: Final = "54000"  # for an index
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY_CODE: Final = 0xFF


class Failure(Enum):
    """What to do about it."""

    CONFLICT = auto()
    """Another transaction was in the way, and nothing of this one was done: run it again."""
    VIOLATION = auto()
    """A constraint was violated: by what another transaction did meanwhile, or by a defect."""
    BAD_VALUE = auto()
    """The database cannot hold a value that somebody sent: a text with a NUL, or 2**63, say."""
    UNAVAILABLE = auto()
    """The database cannot be used now. Whether a commit was done may be unknown."""


def judge(error: Exception) -> Failure:
    """Tell what an error of the database is."""
    # What SQLite's driver refuses to send; SQLAlchemy lets both through as they are.
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return Failure.BAD_VALUE
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return Failure.UNAVAILABLE
    if _is_bad_value(error):
        return Failure.BAD_VALUE
    sqlstate = getattr(error.orig, "sqlstate", None)
    if isinstance(error, IntegrityError) or sqlstate == _DUPLICATE_TABLE:
        return Failure.VIOLATION
    busy = getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE in _BUSY
    if sqlstate in (_SERIALIZATION_FAILURE, _DEADLOCK) or busy:
        return Failure.CONFLICT
    return Failure.UNAVAILABLE


def _is_bad_value(error: DBAPIError) -> bool:
    # What asyncpg refuses to send is a ValueError; what PostgreSQL refuses is in its class 22.
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    refused = sqlstate.startswith(_DATA_EXCEPTIONS) or sqlstate == _TOO_LONG
    not_sent = isinstance(getattr(error.orig, "__cause__", None), ValueError)
    return isinstance(error, DataError) or refused or not_sent


def reason(error: Exception) -> str:
    """Say in one line what went wrong, without the statement and its parameters."""
    if isinstance(error, PoolTimeout):
        return "every connection is in use"
    said = str(error.orig if isinstance(error, DBAPIError) else error) or type(error).__name__
    if isinstance(error, ProgrammingError):
        return f"it has not the expected schema: {said.splitlines()[0]}"
    return said.splitlines()[0]
