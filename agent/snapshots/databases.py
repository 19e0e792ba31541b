"""SQLite databases: whether one is closed and sound, and a copy of one in use. Blocking."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from agent.snapshots.errors import Unfit
from agent.snapshots.landing import SQLITE_MAGIC

_LOGS: Final = ("-wal", "-journal")
_SOUND: Final = [("ok",)]
_MOST_TOLD: Final = 3
BUSY_TIMEOUT_S: Final = 60.0
"""How long a copy waits for a writer that holds the whole database."""


def require_sound(path: Path) -> str:
    """Check a database; any other file is fine as it is. What was found, as a line.

    Raises:
        Unfit: it is damaged, or in use: part of it is in a log beside it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
            return "Not a database, taken as it is"
    for suffix in _LOGS:
        log = Path(f"{path}{suffix}")
        if log.exists() and log.stat().st_size:
            raise Unfit(
                f"{path} is in use or was not closed: part of it is in {log.name}; publish a copy "
                f"of it (sqlite3 {path.name} \"VACUUM INTO 'copy'\")"
            )
    faults = _faults(path)
    if faults != _SOUND:
        told = "; ".join(str(fault[0]) for fault in faults[:_MOST_TOLD])
        raise Unfit(f"{path} is damaged: {told}")
    return "Database integrity check: ok"


def copy_in_use(source: Path, target: Path) -> None:
    """Make a closed copy of a database as it is at one moment, whoever writes to it meanwhile.

    In one read transaction (`VACUUM INTO`): a copy in steps begins anew with each write of another
    process, and under enough of them never ends. The copy is not synced.

    Args:
        source: a database, open or not.
        target: where there is no file yet.

    Raises:
        Unfit: it is none, it is damaged, or it stayed locked for BUSY_TIMEOUT_S.
    """
    uri = f"{source.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise Unfit(f"{source} cannot be copied: {error}") from error


def _faults(path: Path) -> list[tuple[object, ...]]:
    # Immutable: the bytes of this file alone are judged, and nothing is made beside it.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchall()
    except sqlite3.Error as error:
        return [(str(error),)]
