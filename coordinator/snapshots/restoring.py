"""A snapshot back in the place of the fleet's database, while no coordinator is running. Blocking.

Rules kept here:
- Nothing is touched before the snapshot was verified: its checksum by who fetched it, the database
  itself here.
- The swap is one step: a rename, or a transaction. Until it, and whatever fails, the database is
  what it was. What it was is kept beside it, unless told otherwise of what cannot be copied.
- What others have in a database of PostgreSQL is not touched (`ours`).
- It does not go back behind a generation that a sled has accepted, unless told so: such a sled
  refuses every config from then on, until the generation is advanced.
"""

from __future__ import annotations

import os
import sqlite3
import time
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
from coordinator.database.migrating import UNFINISHED, known_revisions
from coordinator.errors import DatabaseInUse, RestoreFailed, SnapshotBehind
from coordinator.snapshots import contents, ours, postgres
from coordinator.snapshots.contents import Contents
from coordinator.snapshots.copying import require_owner

_LOGS: Final = ("-wal", "-journal")
_MAX_NAMED: Final = 5
# A session of one of the programs here ends a moment after the program.
_LOOKS: Final = 10
_LOOK_S: Final = 0.2
_LOCK_WAIT: Final = "10s"
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY_CODE: Final = 0xFF
_NEWER_SETTING: Final = b"SET transaction_timeout "  # since PostgreSQL 17


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
        found = contents.of_file(snapshot)
    else:
        postgres.require_whole(snapshot)
        found = contents.of_dump(snapshot)
    if len(found.schema) != 1 or not known_revisions().issuperset(found.schema):
        named = ", ".join(found.schema) or "none"
        raise Unfit(f"{snapshot}: its schema ({named}) is of a newer version than this program")
    return found


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
        _require_alone(url)
        return
    path = _file_of(url)
    if not path.exists():
        return
    try:
        # Leaving the write-ahead log takes the file for oneself; it writes all that is in the log.
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _BUSY:
            raise DatabaseInUse(f"{path} is in use: {error}") from error
        # It is damaged: that is why another is put in its place.


# The server's own workers are not in the way. Of others' sessions only a privileged user sees the
# kind; workers that clean up are nobody's.
_OTHERS: Final = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL "
    "AND coalesce(backend_type, 'client backend') = 'client backend'"
)


def _require_alone(url: URL) -> None:
    others = ""
    for _ in range(_LOOKS):
        others = "".join(postgres.answer(url, _OTHERS))
        if others == "0":
            return
        time.sleep(_LOOK_S)
    raise DatabaseInUse(f"{others} other sessions use database {url.database}")


def put_back(
    url: URL, snapshot: Path, *, work: Path, keep_in: Path, copy: bool = True
) -> Path | None:
    """Swap a verified snapshot in; where what was there is kept.

    One of PostgreSQL is not to be worked with before `finish`.

    Args:
        url: of the database.
        snapshot: a verified file.
        work: a directory that nobody else may read, for what is made on the way.
        keep_in: a directory for what was there, of PostgreSQL; a file stays where it was.
        copy: whether what is there is kept, of PostgreSQL; a file always is.

    Raises:
        RestoreFailed: what is there cannot be copied, and is to be kept; or it is somebody else's,
            or depends on what is to be replaced. Nothing was changed.
        LibraryMissing, Unfit: of PostgreSQL's programs; nothing was changed.
        OSError: nothing was changed.
    """
    suffix = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if url.get_backend_name() == "sqlite":
        return _put_file(_file_of(url), snapshot, suffix)
    kept = keep_in / f"{url.database}.{suffix}.dump" if copy else None
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


def _put_dump(url: URL, snapshot: Path, work: Path, kept: Path | None) -> None:
    was, script = work / "was.dump", work / "restore.sql"
    clearing, marking = work / "clear.sql", work / "mark.sql"
    ours.require_ours(url)
    if kept is not None:
        _copy_first(url, was)
    ours.script(snapshot, script)
    without_newer_settings(script)
    clearing.write_text(_clearing())
    marking.write_text(f"RESET search_path;\nCREATE TABLE IF NOT EXISTS {UNFINISHED} ();\n")
    if kept is not None:
        keep_durably(was, kept)
    together = [f"--file={each}" for each in (clearing, script, marking)]
    try:
        _psql(url, "--single-transaction", *together)
    except Unfit as error:
        raise RestoreFailed(f"the transaction that puts it back failed: {error}") from error


def _copy_first(url: URL, was: Path) -> None:
    try:
        ours.dump(url, was, compressed=True)
    except Unfit as error:
        raise RestoreFailed(
            f"nothing was changed, because what is there cannot be copied first: {error}; have "
            "database.url name another, empty database and restore into that, or give "
            "--without-copy: what is there is lost then"
        ) from error


def close_file(path: Path) -> None:
    """Have a SQLite file that was worked with be all there is of it.

    Raises:
        DatabaseInUse: somebody has it open.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    if mode != ("delete",):
        raise DatabaseInUse(f"{path} is in use")


def finish(url: URL) -> None:
    """Have coordinators take what was put back.

    Raises:
        LibraryMissing, Unfit: of PostgreSQL's programs.
    """
    if url.get_backend_name() != "sqlite":
        drop = f"DROP TABLE IF EXISTS {UNFINISHED}"
        _psql(url, f"--command=SET lock_timeout = '{_LOCK_WAIT}'", f"--command={drop}")


def _psql(url: URL, *arguments: str) -> None:
    postgres.output(["psql", "-Xq", "--set=ON_ERROR_STOP=1", "--no-password", *arguments], url)


def keep_durably(was: Path, kept: Path) -> None:
    """Have a dump outlast a power cut under its name, for nobody else to read."""
    was.chmod(0o600)
    with was.open("rb") as file:
        os.fsync(file.fileno())
    was.replace(kept)
    sync_directory(kept.parent)


def without_newer_settings(script: Path) -> None:
    """Take a setting out of a script that servers older than the program do not know."""
    whole = script.with_name(f"{script.name}.whole")
    script.replace(whole)
    with whole.open("rb") as lines, script.open("wb") as kept:
        header = True
        for line in lines:
            # Before the first statement of another kind: a row may say the same.
            header = header and line.startswith((b"SET ", b"--", b"\\", b"SELECT ", b"\n"))
            if not (header and line.startswith(_NEWER_SETTING)):
                kept.write(line)
    whole.unlink()


def _clearing() -> str:
    """Drop what is ours; nobody who waits for a table waits for ever."""
    return (
        f"SET client_min_messages = warning;\nSET lock_timeout = '{_LOCK_WAIT}';\n"
        f"{ours.clearing()}"
        # Whoever came since the last look: what they wait for is dropped by now, and locked.
        "DO $$ BEGIN\n"
        f"FOR look IN 1..{_LOOKS} LOOP\n"
        "  PERFORM pg_stat_clear_snapshot();\n"
        f"  IF ({_OTHERS}) = 0 THEN RETURN; END IF;\n"
        f"  PERFORM pg_sleep({_LOOK_S});\n"
        "END LOOP;\n"
        "RAISE EXCEPTION 'other sessions use this database';\n"
        "END $$;\n"
    )


def _file_of(url: URL) -> Path:
    assert url.database is not None, "parse_url has seen to it"
    return Path(url.database)
