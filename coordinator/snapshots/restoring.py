"""A snapshot back in the place of the fleet's database, while no coordinator is running. Blocking.

Rules kept here:
- Nothing is touched before the snapshot was verified: its checksum by who fetched it, the database
  itself here.
- The swap is one step: a rename, or a transaction. Until it, and whatever fails, the database is
  what it was. What it was is kept beside it.
- It does not go back behind a generation that a sled has accepted, unless told so: such a sled
  refuses every config from then on, until the generation is advanced.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent.snapshots.databases import require_sound
from agent.snapshots.durable import sync_directory
from agent.snapshots.errors import Unfit
from agent.snapshots.hashing import BLOCK_BYTES
from agent.snapshots.landing import SQLITE_MAGIC, Landing
from coordinator.database.tables import metadata
from coordinator.errors import DatabaseInUse, SnapshotBehind
from coordinator.snapshots import contents, postgres
from coordinator.snapshots.contents import Contents
from coordinator.snapshots.copying import require_owner

_LOGS: Final = ("-wal", "-journal")
_MAX_NAMED: Final = 5
_VERSIONS: Final = "alembic_version"
_FUNCTION: Final = "journal_sealed"


def verified(url: URL, snapshot: Path) -> Contents:
    """Check a snapshot by itself: that it is whole, sound, of a coordinator, and of this kind.

    Raises:
        LibraryMissing: a program of PostgreSQL's is not installed.
        Unfit: it is not.
        OSError: it cannot be read.
    """
    if url.get_backend_name() == "sqlite":
        with snapshot.open("rb") as file:
            if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                raise Unfit(f"{snapshot}: expected a SQLite database, as database.url names one")
        require_sound(snapshot)
        return contents.of_file(snapshot)
    postgres.require_whole(snapshot)
    return contents.of_dump(snapshot)


def present(url: URL) -> Contents | None:
    """What the database says that is there now; None when it cannot be read.

    Raises:
        LibraryMissing: a program of PostgreSQL's is not installed.
    """
    try:
        if url.get_backend_name() == "sqlite":
            return contents.of_file(_file_of(url), immutable=False)
        return contents.of_server(url)
    except Unfit:
        return None


def require_not_behind(snapshot: Contents, accepted: Mapping[str, int]) -> None:
    """Refuse a snapshot of a lower generation than some sled has accepted.

    Args:
        snapshot: what it says.
        accepted: the generation of each sled, by its id.

    Raises:
        SnapshotBehind: saying what to do.
    """
    ahead = {id_: each for id_, each in accepted.items() if each > snapshot.generation}
    if not ahead:
        return
    named = ", ".join(f"{id_} ({ahead[id_]})" for id_ in sorted(ahead)[:_MAX_NAMED])
    more = "" if len(ahead) <= _MAX_NAMED else f" and {len(ahead) - _MAX_NAMED} more"
    raise SnapshotBehind(
        f"the snapshot is of generation {snapshot.generation}, and sleds have accepted higher "
        f"ones: {named}{more}; after going back they refuse every config until the generation is "
        f"advanced to {max(ahead.values()) + 1}",
        max(ahead.values()) + 1,
    )


def require_unused(url: URL) -> None:
    """Refuse while any process has the database open.

    Raises:
        DatabaseInUse: one has.
        LibraryMissing: a program of PostgreSQL's is not installed.
    """
    if url.get_backend_name() != "sqlite":
        others = postgres.output(["psql", "-XAtqc", _OTHERS, "--no-password"], url).strip()
        if others != "0":
            raise DatabaseInUse(f"{others} other sessions use database {url.database}")
        return
    path = _file_of(url)
    if not path.exists():
        return
    try:
        # Leaving the write-ahead log takes the file for oneself; it writes all that is in the log.
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.OperationalError as error:
        raise DatabaseInUse(f"{path} is in use: {error}") from error
    except sqlite3.DatabaseError:  # it is damaged: that is why another is put in its place
        return


_OTHERS: Final = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def put_back(url: URL, snapshot: Path, *, work: Path, keep_in: Path) -> Path | None:
    """Swap a verified snapshot in; where what was there is kept.

    Args:
        url: of the database.
        snapshot: a verified file.
        work: a directory that nobody else may read, for what is made on the way.
        keep_in: a directory for what was there, of PostgreSQL; a file stays where it was.

    Raises:
        LibraryMissing, Unfit: of PostgreSQL's programs; nothing was changed.
        OSError: nothing was changed.
    """
    suffix = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if url.get_backend_name() == "sqlite":
        return _put_file(_file_of(url), snapshot, suffix)
    kept = keep_in / f"{url.database}.{suffix}.dump"
    _put_dump(url, snapshot, work, kept)
    return kept


def _put_file(path: Path, snapshot: Path, suffix: str) -> Path | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    require_owner(path if path.exists() else path.parent)
    with Landing(path) as landing:
        offset_bytes = 0
        with snapshot.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                landing.write(block, offset_bytes)
                offset_bytes += len(block)
        kept = _keep(path, suffix)
        landing.place()
    return kept


def _keep(path: Path, suffix: str) -> Path | None:
    """Give what is there a second name, with the log that belongs to it."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.{suffix}")
    os.link(path, kept)
    for log in _LOGS:
        if (there := Path(f"{path}{log}")).exists():
            os.link(there, f"{kept}{log}")
    sync_directory(path.parent)
    return kept


def _put_dump(url: URL, snapshot: Path, work: Path, kept: Path) -> None:
    was, script, clearing = work / "was.dump", work / "restore.sql", work / "clear.sql"
    postgres.dump(url, was, compressed=True)
    postgres.output(["pg_restore", "--no-owner", f"--file={script}", str(snapshot)])
    clearing.write_text(_clearing())
    was.replace(kept)
    together = ["--single-transaction", f"--file={clearing}", f"--file={script}"]
    postgres.output(["psql", "-Xq", "--set=ON_ERROR_STOP=1", "--no-password", *together], url)


def _clearing() -> str:
    """Drop what is ours, of whichever version; nobody who waits for a table waits for ever."""
    tables = ", ".join(sorted({*metadata.tables, _VERSIONS}))
    return (
        "SET lock_timeout = '10s';\n"
        f"DROP TABLE IF EXISTS {tables} CASCADE;\n"
        f"DROP FUNCTION IF EXISTS {_FUNCTION} CASCADE;\n"
    )


def _file_of(url: URL) -> Path:
    assert url.database is not None, "parse_url has seen to it"
    return Path(url.database)
