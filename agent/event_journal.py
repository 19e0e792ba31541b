"""The event log's database: a bounded table of numbered events.

Rules kept here:
- AUTOINCREMENT keeps the highest number, inside the transaction that stores the events: one that
  was ever committed is never handed out again, even when its event has been removed.
- A commit is on stable storage (`synchronous=FULL`) when `append` returns.
- A corrupt database is moved aside, not deleted; one of a newer format is left alone.

Blocking: only the event log's own thread, or one at start, comes here.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FORMAT: Final = 1
RECENT: Final = 4096
"""Events in memory: some megabytes, and more than a reader who comes regularly has missed."""
_SIDE_FILES: Final = ("", "-wal", "-shm")
_SCHEMA: Final = """
    CREATE TABLE epoch (name TEXT NOT NULL);
    CREATE TABLE event (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        fields TEXT NOT NULL
    );
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no number yet. `time` is in Unix seconds, `fields` is a JSON object."""

    time: float
    kind: str
    fields: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event that happened, and its number in its epoch; see `Draft`."""

    sequence: int
    time: float
    kind: str
    text: str

    @property
    def fields(self) -> Mapping[str, object]:
        """What else it carries: read when somebody asks, because of most events nobody does."""
        return _fields(self.text)


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal, or none and the reason why."""

    journal: Journal | None
    problem: str | None = None


class Journal:
    """One open database that keeps the last `max_entries` events.

    Attributes:
        recovered: the newest `recent` that it held when it was opened, oldest first.
        oldest: the number of the oldest of all it held; 0: there was none.
    """

    def __init__(self, path: Path, max_entries: int, recent: int = RECENT) -> None:
        # Opened in one thread and used in another, never in two at once.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._max_entries = max_entries
        self._db.text_factory = _text
        try:
            self.epoch = self._prepare()
            self.recovered = self._load(min(recent, max_entries))
            self.oldest = self._oldest()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> str:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise sqlite3.NotSupportedError(
                f"its format is {version}, this program knows up to {FORMAT}"
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        # Also finds out now, not at the first event, that the database cannot be written.
        self._db.execute("BEGIN IMMEDIATE")
        if version == 0:
            self._create()
        self._db.execute("COMMIT")
        (epoch,) = self._db.execute("SELECT name FROM epoch").fetchone()
        return str(epoch)

    def _create(self) -> None:
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute("INSERT INTO epoch VALUES (?)", (new_epoch(),))
        self._db.execute(f"PRAGMA user_version={FORMAT}")

    def _load(self, recent: int) -> list[Event]:
        rows = self._db.execute(
            "SELECT sequence, time, kind, fields FROM event ORDER BY sequence DESC LIMIT ?",
            (recent,),
        ).fetchall()
        return list(map(_event, rows[::-1]))

    def _oldest(self) -> int:
        (latest, oldest) = self._db.execute(
            "SELECT max(sequence), min(sequence) FROM event"
        ).fetchone()
        return max(oldest, latest - self._max_entries + 1) if latest else 0

    def append(self, drafts: Sequence[Draft]) -> list[Event]:
        """Store `drafts` durably, drop what is too old, and return the numbered events.

        After an error the journal is of no more use; whether the events are stored is unknown.
        """
        self._db.execute("BEGIN IMMEDIATE")
        first = self._highest() + 1
        events = [
            Event(number, draft.time, draft.kind, draft.fields)
            for number, draft in enumerate(drafts, start=first)
        ]
        self._db.executemany(
            "INSERT INTO event (sequence, time, kind, fields) VALUES (?, ?, ?, ?)",
            [(event.sequence, event.time, event.kind, event.text) for event in events],
        )
        self._db.execute(
            "DELETE FROM event WHERE sequence <= ?", (events[-1].sequence - self._max_entries,)
        )
        self._db.execute("COMMIT")
        return events

    def _highest(self) -> int:
        """The highest number that was ever handed out."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the database; a transaction under way is rolled back."""
        self._db.close()


def read_events(path: Path, after: int, limit: int) -> list[Event]:
    """Read the first `limit` events numbered above `after`, beside whoever writes.

    Raises:
        sqlite3.Error, TypeError, ValueError: they cannot be read.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        db.text_factory = _text
        rows = db.execute(
            "SELECT sequence, time, kind, fields FROM event WHERE sequence > ? "
            "ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return list(map(_event, rows))


def open_journal(path: Path, max_entries: int, recent: int) -> Opened:
    """Open or create the journal at `path`; a corrupt one is moved aside first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _open_or_replace(path, max_entries, recent)
    except (OSError, sqlite3.Error) as error:
        return Opened(None, f"{path} cannot be used: {error}")


def _open_or_replace(path: Path, max_entries: int, recent: int) -> Opened:
    try:
        return Opened(Journal(path, max_entries, recent))
    except (sqlite3.OperationalError, sqlite3.NotSupportedError):
        raise  # The disk, the permissions, the format: nothing is wrong with the contents.
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        kept = _move_aside(path)
        problem = f"{path} was corrupt ({error}); it is kept as {kept.name}"
        return Opened(Journal(path, max_entries, recent), problem)


def _move_aside(path: Path) -> Path:
    """Rename the database. Only the last one is kept, so that they cannot fill the disk."""
    kept = path.with_name(path.name + ".corrupt")
    for suffix in _SIDE_FILES:
        source = path.with_name(path.name + suffix)
        target = kept.with_name(kept.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            os.replace(source, target)
    return kept


def _text(content: bytes) -> str:
    # What has rotted is read with a mark in it rather than not at all.
    return content.decode(errors="replace")


def _event(row: tuple[int, float, str, str]) -> Event:
    event = Event(*row)
    _fields(event.text)
    return event


def _fields(text: str) -> Mapping[str, object]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object as an event's fields, found {text[:80]!r}")
    return fields


def new_epoch() -> str:
    """A name that no other epoch has."""
    return secrets.token_hex(16)
