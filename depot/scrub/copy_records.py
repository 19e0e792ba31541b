"""What was found out about each copy, kept across restarts: when it was verified, that it is bad.

A record is about one file, which its inode and modification time name: of a file that took its
place behind our back it says nothing. What changes is written in batches, in a thread; what was not
written yet when the process died is found out again. The database never stops the store: while it
cannot be used everything is in memory only, and the status says so (S5).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from depot.artifact import ArtifactHash
from depot.concurrency.threads import DaemonThreads
from depot.dataset.dataset import Dataset
from depot.dataset.found_files import FoundFile, FoundFiles
from depot.errors import DatasetUnusable, FormatTooNew, InvalidRequest
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.os_errors import describe_error
from depot.scrub.copy_book import Book, match
from depot.scrub.copy_database import (
    FILE_NAME,
    Changes,
    CopyDatabase,
    Remembered,
    Row,
    may_pass,
    open_database,
    set_aside,
)

T = TypeVar("T")

FLUSH_INTERVAL_S: Final = 2.0
MAX_FINDINGS: Final = 100_000
"""Bad copies of a dataset whose healing is timed; a disk that lost more has other worries."""
_CALL_TIMEOUT_S: Final = 10.0
_PER_FILE_S: Final = 0.001
"""Many files take a busy machine longer; most of them a quiet one a hundredth of that."""
_BATCH: Final = 500
_MOST_ROWS: Final = 4000


@dataclass(slots=True)
class Tally:
    """Bad copies of one dataset since the start; the times from found to healed, in seconds."""

    found: int = 0
    healed: int = 0
    heal_s: float = 0.0
    last_heal_s: float | None = None


class CopyRecords:
    """The records of every dataset of a store.

    Args:
        state_dir: where the database is.
        clock: Unix time in seconds.

    Attributes:
        begun_anew: how often everything in the database was lost while it was in use.
    """

    def __init__(self, state_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = state_dir / FILE_NAME
        self._clock = clock
        self._threads = DaemonThreads("copy-records", 1)
        self._db: CopyDatabase | None = None
        self.begun_anew = 0
        self._begun_anew: str | None = None
        self._out_of_use: str | None = None
        self._books: dict[int, Book] = {}
        self._tallies: dict[int, Tally] = {}
        self._notes: dict[str, str] = {}
        self._all_lost = False
        self._writing = asyncio.Lock()
        self._recalling = asyncio.Lock()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the database, for the status."""
        return tuple(said for said in (self._begun_anew, self._out_of_use) if said)

    async def open(self) -> None:
        """Open the database, or do without.

        Raises:
            FormatTooNew: a newer program wrote it.
        """
        self._notes = await self._use(CopyDatabase.notes) or {}

    async def close(self, mirrors: Iterable[Mirror]) -> None:
        """Write what is not written yet, and close the database."""
        await self.flush(mirrors)
        # What is left is of datasets that are away. Their rows must not outlive what overtook them.
        await self._write([book.take_leave() for book in self._books.values() if book.changed])
        with suppress(OSError):
            await self._threads.call(_CALL_TIMEOUT_S, self._close_now)
        self._threads.close()

    async def run(self, mirrors: Collection[Mirror]) -> None:
        """Write what changes, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush(mirrors)

    # What is known

    def tally(self, mirror: Mirror) -> Tally:
        """The bad copies found and healed on a dataset."""
        return self._tallies.setdefault(mirror.index, Tally())

    def ages(self, mirror: Mirror) -> Mapping[ArtifactHash, float]:
        """When each copy that is not damaged was last verified or, if it never was, first seen."""
        book = self._books.get(mirror.index)
        return book.ages if book else {}

    def oldest_s(self, mirror: Mirror) -> float | None:
        """The least age of the copies of a dataset; None when there are none."""
        return min(self.ages(mirror).values(), default=None)

    def findings(self, mirror: Mirror) -> Mapping[ArtifactHash, float]:
        """When each bad copy was found that has not been made good since."""
        book = self._books.get(mirror.index)
        return book.findings if book else {}

    def forget(self, mirror: Mirror, unwanted: Callable[[ArtifactHash], bool]) -> None:
        """Wait no longer for the healing of what is gone and not wanted any more."""
        book = self._books.get(mirror.index)
        for artifact in [a for a in self.findings(mirror) if unwanted(a)]:
            if book is not None and artifact not in mirror.artifacts:
                del book.findings[artifact]
                book.settled.add(artifact)

    # Taking note

    async def recall(
        self, index: int, dataset_id: str, files: FoundFiles
    ) -> dict[ArtifactHash, Copy]:
        """Begin the records of a dataset that was attached: what is known of its files."""
        async with self._recalling:  # two that change places are told of each other
            before = self._before(index, dataset_id)
            # The rows are compared with the files now.
            same = [book for book in before if book.dataset_id == dataset_id]
            await self._write([book.settle() for book in same])
            # Those of one that left for another cannot be: their files are not there.
            gone = [book for book in before if book.dataset_id != dataset_id]
            await self._write([book.take_leave() for book in gone])
            unwritten = {
                artifact: artifact in book.bad for book in same for artifact in book.changed
            }
            self._books[index], copies = await self._matched(dataset_id, files, unwritten)
        return copies

    async def _matched(
        self,
        dataset_id: str,
        files: FoundFiles,
        unwritten: Mapping[ArtifactHash, bool],
    ) -> tuple[Book, dict[ArtifactHash, Copy]]:
        now_s = self._clock()

        def matched(db: CopyDatabase | None) -> tuple[Book, dict[ArtifactHash, Copy]]:
            remembered = db.recall(dataset_id, now_s) if db else Remembered()
            return match(dataset_id, remembered, files, unwritten, now_s)

        found = await self._use(matched, _CALL_TIMEOUT_S + len(files) * _PER_FILE_S)
        if found is not None:
            return found
        # In a thread also without a database: every file is gone through.
        book, copies = await asyncio.to_thread(matched, None)
        # What could not be read now may say of a copy that it is damaged: it stays (B6).
        book.changed = set(unwritten)
        return book, copies

    def _before(self, index: int, dataset_id: str) -> list[Book]:
        """Take the records that end: of what was in this slot, and of this dataset in another."""
        ending = [
            i for i, book in self._books.items() if i == index or book.dataset_id == dataset_id
        ]
        return [self._books.pop(i) for i in ending]

    def note(
        self, mirror: Mirror, artifact: ArtifactHash, before: Copy | None, after: Copy | None
    ) -> None:
        """Take note that a copy changed; `Mirror.on_record`."""
        book = self._books.get(mirror.index)
        if book is None:
            return
        book.note(artifact, before, after, self._clock())
        if after is None:
            return  # it may have been quarantined: what was found there is still to be healed
        if not after.damaged:
            self._healed(mirror, book, artifact, after)
        elif (before is None or not before.damaged) and artifact not in book.findings:
            self._found(mirror, book, artifact)

    def note_gone(self, mirror: Mirror, artifact: ArtifactHash) -> None:
        """Take note that a wanted copy was found to be gone: as bad as a damaged one."""
        book = self._books.get(mirror.index)
        if book is not None and artifact not in book.findings:
            self._found(mirror, book, artifact)

    def _found(self, mirror: Mirror, book: Book, artifact: ArtifactHash) -> None:
        self.tally(mirror).found += 1
        if len(book.findings) < MAX_FINDINGS:
            book.findings[artifact] = self._clock()
            book.settled.add(artifact)

    def _healed(self, mirror: Mirror, book: Book, artifact: ArtifactHash, copy: Copy) -> None:
        if copy.verified_at_s is None or artifact not in book.findings:
            return
        tally = self.tally(mirror)
        tally.healed += 1
        tally.last_heal_s = max(0.0, self._clock() - book.findings.pop(artifact))
        tally.heal_s += tally.last_heal_s
        book.settled.add(artifact)

    # Notes of others

    def read_note(self, name: str) -> str | None:
        """Return what was kept under a name."""
        return self._notes.get(name)

    async def keep_note(self, name: str, value: str | None) -> None:
        """Keep a short text across restarts; None: no more."""
        if self._notes.get(name) == value:
            return
        if value is None:
            self._notes.pop(name, None)
        else:
            self._notes[name] = value
        await self._use(lambda db: db.write_notes({name: value}))

    # What others remember, see `depot.scrub.had`

    async def compare_had(
        self, seen: Set[ArtifactHash]
    ) -> tuple[list[ArtifactHash], Set[ArtifactHash]] | None:
        """See `CopyDatabase.compare_had`; None when the database cannot be used now."""
        return await self._use(lambda db: db.compare_had(seen))

    async def write_had(self, changes: Mapping[ArtifactHash, bool]) -> bool:
        """See `CopyDatabase.write_had`; False when it cannot be written now."""

        def write(database: CopyDatabase) -> bool:
            database.write_had(changes)
            return True

        return await self._use(write) is not None

    # Writing

    async def flush(self, mirrors: Iterable[Mirror]) -> None:
        """Write what changed; what cannot be written now is kept for the next time."""
        async with self._writing:
            known = [(m, self._books[m.index]) for m in mirrors if m.index in self._books]
            if self._all_lost:
                await self._write_all_again(known)
            while await self._flush_some(known):
                pass  # what many copies are rows of is never in memory at once

    async def _flush_some(self, known: Collection[tuple[Mirror, Book]]) -> bool:
        """Write part of what changed; whether there is more that can be written."""
        before = sum(len(book.changed) for _, book in known)
        taken = [
            (b.dataset_id, set(islice(b.changed, _MOST_ROWS)), set(b.settled)) for _, b in known
        ]
        written = False
        try:
            changes = [
                await self._changes(mirror, book, some)
                for (mirror, book), (_, some, _) in zip(known, taken, strict=True)
            ]
            written = await self._write([each for each in changes if each.rows or each.findings])
        finally:
            if not written:  # also when it was cancelled half-way, as every duty is at the end
                self._take_again(taken)
        return written and 0 < sum(len(book.changed) for _, book in known) < before

    def _take_again(
        self, taken: Iterable[tuple[str, set[ArtifactHash], set[ArtifactHash]]]
    ) -> None:
        books = {book.dataset_id: book for book in self._books.values()}
        for dataset_id, changed, settled in taken:
            if book := books.get(dataset_id):
                book.changed |= changed
                book.settled |= settled

    async def _write(self, changes: Collection[Changes]) -> bool:
        return not changes or await self._use(lambda db: _written(db, changes)) is not None

    async def _write_all_again(self, known: Collection[tuple[Mirror, Book]]) -> None:
        self._all_lost = False
        notes = dict(self._notes)
        await self._use(lambda db: db.write_notes(notes))
        for mirror, book in known:
            book.changed.update(mirror.artifacts)
            book.settled.update(book.findings)

    async def _changes(self, mirror: Mirror, book: Book, changed: set[ArtifactHash]) -> Changes:
        book.changed -= changed
        settled = book.settle()
        rows: dict[ArtifactHash, Row | None] = {}
        left = iter(sorted(changed))
        while batch := tuple(islice(left, _BATCH)):
            found = await self._rows(mirror, book, batch)
            if found is None:
                book.changed.update(batch, left)
                break
            rows.update(found)
        return Changes(book.dataset_id, rows, settled.findings)

    async def _rows(
        self, mirror: Mirror, book: Book, batch: tuple[ArtifactHash, ...]
    ) -> dict[ArtifactHash, Row | None] | None:
        """What is to be written of some copies; None when they cannot be looked at now."""
        try:
            if mirror.dataset.marker.dataset_id != book.dataset_id:
                return {}
            files = await mirror.read(Dataset.look_at, batch)
        except (OSError, DatasetUnusable):
            return None
        return {a: self._row(mirror, book, a, files.find(a)) for a in batch}

    def _row(
        self, mirror: Mirror, book: Book, artifact: ArtifactHash, file: FoundFile | None
    ) -> Row | None:
        copy = mirror.artifacts.get(artifact)
        if copy is None or file is None or copy.size_bytes != file.size_bytes:
            return None
        verified_at_s = copy.verified_at_s
        if verified_at_s is not None and file.changed_at_s > verified_at_s:
            verified_at_s = None  # this file may not be the one that was verified
        seen_at_s = book.ages.get(artifact) or copy.verified_at_s or self._clock()
        return Row(*file[:3], seen_at_s, verified_at_s, copy.damaged)

    # The database

    async def _use(
        self, action: Callable[[CopyDatabase], T], timeout_s: float = _CALL_TIMEOUT_S
    ) -> T | None:
        """Do something with the database; None when it cannot be used now."""
        try:
            result = await self._threads.call(timeout_s, self._attempt, action)
        except (sqlite3.Error, OSError) as error:
            said = describe_error(error) if isinstance(error, OSError) else str(error)
            self._out_of_use = f"what is found out about copies is in memory only: {said}"
            return None
        self._out_of_use = None
        return result

    def _attempt(self, action: Callable[[CopyDatabase], T]) -> T:
        # In the thread, which alone uses the database.
        try:
            return action(self._opened())
        except FormatTooNew:
            raise
        except (sqlite3.Error, TypeError, ValueError, InvalidRequest) as error:
            if may_pass(error):
                raise
            self._close_now()
            set_aside(self._path)
            self._begun_anew = f"{FILE_NAME} could not be used ({error}) and was begun anew"
            self._all_lost = True
            self.begun_anew += 1
            return action(self._opened())

    def _opened(self) -> CopyDatabase:
        if self._db is None:
            self._db, begun_anew = open_database(self._path)
            self._begun_anew = begun_anew or self._begun_anew
        return self._db

    def _close_now(self) -> None:
        database, self._db = self._db, None
        if database is not None:
            database.close()


def _written(database: CopyDatabase, changes: Collection[Changes]) -> bool:
    database.write(changes)
    return True
