"""The database behind `copy_records`: what was found out about each copy, across restarts.

On disk: `<state_dir>/copies.sqlite3`. Of what is on the datasets, nothing is known here only: a
database that is lost costs time, because every copy is read again. Of what is not there any more,
it costs the knowledge that it once was. One that cannot be used is set aside under `.unusable`, and
a new one is begun; one that is merely locked or on a full disk is left where it is and tried again.
Bounded: one row for each file that is there, and only for the datasets seen last; one for each
artifact that this sled has had and that is wanted or still there. All calls block.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple, Self

from depot.artifact import DIGEST_BYTES, ArtifactHash
from depot.concurrency.unhurried import leisurely
from depot.errors import FormatTooNew

FILE_NAME: Final = "copies.sqlite3"
FORMAT: Final = 2
MAX_DATASETS: Final = 16
"""Datasets that are remembered: more than a node has, so that disks may come and go."""
BUSY_TIMEOUT_S: Final = 1.0
_SIDE_FILES: Final = ("", "-wal", "-shm")
_SCHEMA: Final = """
    CREATE TABLE dataset (id TEXT PRIMARY KEY, seen_at REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE finding (
        dataset_id TEXT NOT NULL,
        sha256 BLOB NOT NULL,
        found_at REAL NOT NULL,
        PRIMARY KEY (dataset_id, sha256)
    ) WITHOUT ROWID;
    CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_COPIES: Final = """
    CREATE TABLE copy (
        dataset_id TEXT NOT NULL,
        sha256 BLOB NOT NULL,
        facts BLOB NOT NULL,
        PRIMARY KEY (dataset_id, sha256)
    ) WITHOUT ROWID
"""
_KEEP: Final = "INSERT OR REPLACE INTO copy VALUES (?, ?, ?)"
# In format 1 each fact had a column, and inode and time were one text.
_COPIES_1: Final = """
    SELECT dataset_id, sha256, size_bytes, identity, seen_at, verified_at, damaged FROM copy
"""
_HAD: Final = "CREATE TABLE IF NOT EXISTS had (sha256 BLOB PRIMARY KEY) WITHOUT ROWID"
_ROWS: Final = "SELECT sha256, facts FROM copy WHERE dataset_id = ? ORDER BY sha256"
_ONE_ROW: Final = "SELECT sha256, facts FROM copy WHERE dataset_id = ? AND sha256 = ?"
_FACTS: Final = struct.Struct("=QQqddQ")
"""The fields of a `Row` in their order, each of eight bytes, as this machine has them in memory:
the database is of one sled. 0.0 stands for what was never verified."""
_FIELDS: Final = _FACTS.size // 8
_ROTTEN: Final = "what is remembered of a copy is not what was written"
_PART: Final = 512
"""Rows that are looked at together: few enough that one change among them costs little."""
# The disk or somebody else's lock: nothing is wrong with the contents, and it may pass.
_PASSING: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
)


class Row(NamedTuple):
    """What is remembered of one copy; times are Unix seconds.

    Attributes:
        inode, mtime_ns: of the file that this is about; of another file, it says nothing.
        seen_at_s: when the file was first seen, or written.
    """

    size_bytes: int
    inode: int
    mtime_ns: int
    seen_at_s: float
    verified_at_s: float | None
    damaged: bool

    def packed(self) -> bytes:
        """As it stands in the database."""
        return _FACTS.pack(*self._replace(verified_at_s=self.verified_at_s or 0.0))

    @classmethod
    def unpacked(cls, facts: bytes) -> Self:
        """Raises struct.error for what is none."""
        size_bytes, inode, mtime_ns, seen_at_s, verified_at_s, damaged = _FACTS.unpack(facts)
        return cls(size_bytes, inode, mtime_ns, seen_at_s, verified_at_s or None, bool(damaged))


class Rows(NamedTuple):
    """What is remembered of some copies, in the order of their digests, column by column.

    A hundred thousand are gone through at every start, nearly all of which say what the files do:
    columns are compared at once. They are the fields of `Row`; a `verified_at_s` of 0 is never.
    """

    digests: tuple[bytes, ...]
    facts: tuple[bytes, ...]
    sizes_bytes: array[int]
    inodes: array[int]
    mtimes_ns: array[int]
    seen_at_s: array[float]
    verified_at_s: array[float]
    damaged: array[int]

    @classmethod
    def of(cls, digests: tuple[bytes, ...], facts: tuple[bytes, ...]) -> Self:
        """Raises ValueError for what was never written: a page that has rotted holds anything."""
        try:
            lengths = len(b"".join(digests)), set(map(len, digests)), set(map(len, facts))
            packed = b"".join(facts)
        except TypeError as error:
            raise ValueError(_ROTTEN) from error
        if lengths != (DIGEST_BYTES * len(digests), {DIGEST_BYTES}, {_FACTS.size}):
            raise ValueError(_ROTTEN)
        numbers, times = array("Q", packed), array("d", packed)
        size, inode, mtime, seen, verified, damaged = (
            slice(n, None, _FIELDS) for n in range(_FIELDS)
        )
        rows = cls(
            digests,
            facts,
            numbers[size],
            numbers[inode],
            array("q", packed)[mtime],
            times[seen],
            times[verified],
            numbers[damaged],
        )
        # A sum is no number if one of them is none.
        finite = isfinite(sum(rows.seen_at_s) + sum(rows.verified_at_s))
        if not finite or max(rows.damaged) > 1:
            raise ValueError(_ROTTEN)
        return rows

    def each(self) -> Iterator[tuple[bytes, Row]]:
        """One by one, each with its digest."""
        return zip(self.digests, map(Row.unpacked, self.facts), strict=True)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one dataset.

    Attributes:
        rows: of its copies, some at a time, read from the database as they are asked for, once.
        findings: when each bad copy was found that has not been made good since.
    """

    rows: Iterable[Rows] = ()
    findings: Mapping[ArtifactHash, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written about one dataset; `None` removes.

    Attributes:
        bad: said to be damaged while nobody can look at the file: where it has a row, that says so.
    """

    dataset_id: str
    rows: Mapping[ArtifactHash, Row | None]
    findings: Mapping[ArtifactHash, float | None]
    bad: Collection[ArtifactHash] = ()


class CopyDatabase:
    """One open database.

    Raises:
        FormatTooNew: a newer program wrote it.
        sqlite3.Error: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        # Used in one thread at a time, which is not always the same.
        self._db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
        )
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def recall(self, dataset_id: str, now_s: float) -> Remembered:
        """Read what is remembered of a dataset, and forget those not seen for longest.

        Raises, also while the rows are gone through:
            sqlite3.Error, TypeError, ValueError, InvalidRequest: it cannot be read.
        """
        self._begin()
        self._db.execute("INSERT OR REPLACE INTO dataset VALUES (?, ?)", (dataset_id, now_s))
        old = self._db.execute(
            "SELECT id FROM dataset ORDER BY seen_at DESC LIMIT -1 OFFSET ?", (MAX_DATASETS,)
        ).fetchall()
        for (gone,) in old:
            for statement in (
                "DELETE FROM copy WHERE dataset_id = ?",
                "DELETE FROM finding WHERE dataset_id = ?",
                "DELETE FROM dataset WHERE id = ?",
            ):
                self._db.execute(statement, (gone,))
        self._db.execute("COMMIT")
        found = self._db.execute(
            "SELECT sha256, found_at FROM finding WHERE dataset_id = ?", (dataset_id,)
        )
        return Remembered(
            self._rows(dataset_id), {ArtifactHash(digest): float(at) for digest, at in found}
        )

    def write(self, changes: Collection[Changes]) -> None:
        """Write what changed, all of it or nothing."""
        self._begin()
        for each in changes:
            self._write_rows(each.dataset_id, each.rows)
            self._write_findings(each.dataset_id, each.findings)
            self._say_bad(each.dataset_id, each.bad)
        self._db.execute("COMMIT")

    def compare_had(self, seen: Set[ArtifactHash]) -> tuple[list[ArtifactHash], Set[ArtifactHash]]:
        """The artifacts that this sled has had and that are not among `seen`; those only there.

        Raises:
            sqlite3.Error, TypeError, InvalidRequest: it cannot be read.
        """
        # Step by step: subtracting one set from the other would keep other threads waiting.
        written: set[bytes] = set()
        before: list[ArtifactHash] = []
        # The first look at what is to be healed waits for this.
        for rows in leisurely(self._db.execute("SELECT sha256 FROM had"), rests=2):
            written.update(digest for (digest,) in rows)
            before += [ArtifactHash(digest) for (digest,) in rows if digest not in seen]
        if len(written) - len(before) == len(seen):  # as usual: all of `seen` were written
            return before, frozenset()
        return before, {artifact for artifact in seen if artifact not in written}

    def write_had(self, changes: Mapping[ArtifactHash, bool]) -> None:
        """Write which artifacts this sled has had (True), and which count as new (False)."""
        self._begin()
        self._db.executemany(
            "INSERT OR REPLACE INTO had VALUES (?)",
            [(artifact.digest,) for artifact, had in changes.items() if had],
        )
        self._db.executemany(
            "DELETE FROM had WHERE sha256 = ?",
            [(artifact.digest,) for artifact, had in changes.items() if not had],
        )
        self._db.execute("COMMIT")

    def notes(self) -> dict[str, str]:
        """Every note, by name."""
        return dict(self._db.execute("SELECT name, value FROM note"))

    def write_notes(self, notes: Mapping[str, str | None]) -> None:
        """Replace or, where the value is None, remove notes."""
        self._begin()
        for name, value in notes.items():
            if value is None:
                self._db.execute("DELETE FROM note WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close it; what was not committed is gone."""
        self._db.close()

    def _begin(self) -> None:
        if self._db.in_transaction:  # the one before failed half-way
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")

    def _prepare(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise FormatTooNew(f"{path} has format {version}, this program knows up to {FORMAT}")
        self._db.execute("PRAGMA journal_mode=WAL")
        # What the last seconds told may be lost in a power cut: it is found out again.
        self._db.execute("PRAGMA synchronous=NORMAL")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self._begin()  # finds out now that it cannot be written
        kept = self._copies_of_format_1() if version == 1 else []
        if version == 0:
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
        if version < FORMAT:
            self._db.execute(_COPIES)
            self._db.executemany(_KEEP, kept)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        self._db.execute(_HAD)
        self._db.execute("COMMIT")

    def _copies_of_format_1(self) -> list[tuple[str, bytes, bytes]]:
        """Take its table out; raises ValueError for what was never written."""
        found = self._db.execute(_COPIES_1).fetchall()
        self._db.execute("DROP TABLE copy")
        kept: list[tuple[str, bytes, bytes]] = []
        try:
            for (
                dataset_id,
                digest,
                size_bytes,
                identity,
                seen_at_s,
                verified_at_s,
                damaged,
            ) in found:
                inode, mtime_ns = map(int, identity.split(":"))
                row = Row(size_bytes, inode, mtime_ns, seen_at_s, verified_at_s, damaged)
                kept.append((dataset_id, digest, row.packed()))
        except (AttributeError, TypeError, ValueError, struct.error) as error:
            raise ValueError(_ROTTEN) from error
        return kept

    def _rows(self, dataset_id: str) -> Iterator[Rows]:
        cursor = self._db.execute(_ROWS, (dataset_id,))
        while part := cursor.fetchmany(_PART):
            yield Rows.of(*zip(*part, strict=True))

    def _write_rows(self, dataset_id: str, rows: Mapping[ArtifactHash, Row | None]) -> None:
        self._db.executemany(
            _KEEP,
            [(dataset_id, a.digest, r.packed()) for a, r in rows.items() if r is not None],
        )
        self._db.executemany(
            "DELETE FROM copy WHERE dataset_id = ? AND sha256 = ?",
            [(dataset_id, artifact.digest) for artifact, row in rows.items() if row is None],
        )

    def _say_bad(self, dataset_id: str, artifacts: Iterable[ArtifactHash]) -> None:
        said: dict[ArtifactHash, Row] = {}
        for artifact in artifacts:
            key = (dataset_id, artifact.digest)
            found = self._db.execute(_ONE_ROW, key).fetchall()
            for _, row in Rows.of(*zip(*found, strict=True)).each() if found else ():
                said[artifact] = row._replace(damaged=True, verified_at_s=None)
        self._write_rows(dataset_id, said)

    def _write_findings(self, dataset_id: str, found: Mapping[ArtifactHash, float | None]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO finding VALUES (?, ?, ?)",
            [(dataset_id, a.digest, at_s) for a, at_s in found.items() if at_s is not None],
        )
        self._db.executemany(
            "DELETE FROM finding WHERE dataset_id = ? AND sha256 = ?",
            [(dataset_id, a.digest) for a, at_s in found.items() if at_s is None],
        )


def open_database(path: Path) -> tuple[CopyDatabase, str | None]:
    """Open or make the database; what is wrong with one that had to be set aside.

    Raises:
        FormatTooNew: a newer program wrote it.
        sqlite3.Error, OSError: not even a new one can be used now.
    """
    try:
        return CopyDatabase(path), None
    except (sqlite3.Error, TypeError, ValueError) as error:
        if may_pass(error):
            raise
        set_aside(path)
        return CopyDatabase(path), f"{path.name} could not be used ({error}) and was begun anew"


def may_pass(error: Exception) -> bool:
    """Tell whether the database may be usable later as it is."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _PASSING


def set_aside(path: Path) -> None:
    """Rename the database. Only the last one is kept, so that they cannot fill the disk."""
    for suffix in _SIDE_FILES:
        source = path.with_name(path.name + suffix)
        target = path.with_name(f"{path.name}.unusable{suffix}")
        with suppress(FileNotFoundError):
            os.replace(source, target)
