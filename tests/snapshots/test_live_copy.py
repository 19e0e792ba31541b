"""A snapshot of a database that others write to."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from agent.snapshots.course import Result
from agent.snapshots.databases import copy_in_use, require_sound
from agent.snapshots.errors import Unfit
from agent.snapshots.files import FileArchive
from agent.snapshots.publish import Publication, publish
from tests.snapshots.test_damage import download

WRITERS: Final = 4
COPIES: Final = 5
BUSY_S: Final = 60.0


class Hammered:
    """A database with writers at work.

    Attributes:
        committed: the number of rows that are known to be committed; they count from 1.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.committed = 0
        self.moved = threading.Condition()
        self._over = False
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute(
                "CREATE TABLE things (id INTEGER PRIMARY KEY AUTOINCREMENT, what BLOB)"
            )

    def write(self) -> None:
        with closing(sqlite3.connect(self.path, timeout=BUSY_S)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            while not self._over:
                with connection:
                    row = connection.execute("INSERT INTO things (what) VALUES (randomblob(500))")
                with self.moved:
                    self.committed = max(self.committed, row.lastrowid or 0)
                    self.moved.notify_all()

    def wait_for(self, more: int) -> int:
        """Wait until so many more rows are committed; how many there are."""
        with self.moved:
            wanted = self.committed + more
            assert self.moved.wait_for(lambda: self.committed >= wanted, timeout=BUSY_S)
            return self.committed

    @contextmanager
    def hammered(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.write) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over = True
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_copy_under_writers_is_sound_and_a_prefix_of_what_was_committed(
    mode: str, tmp_path: Path
) -> None:
    database = Hammered(tmp_path / "live.db", mode)
    archive = FileArchive(tmp_path / "archive")
    (tmp_path / "node").mkdir()
    target = tmp_path / "node/state.db"
    with database.hammered():
        for number in range(COPIES):
            before = database.wait_for(20)
            copy = tmp_path / f"copy-{number}"
            copy_in_use(database.path, copy)
            publish(
                archive,
                Publication(path=copy, name="state", compressed=number % 2 == 1),
                line=lambda _: None,
                progress=lambda _: None,
            )
            after = database.wait_for(1)

            assert download(archive, target) is Result.DOWNLOADED
            assert require_sound(target) == "Database integrity check: ok"
            with closing(sqlite3.connect(target)) as started:
                ids = [row for (row,) in started.execute("SELECT id FROM things ORDER BY id")]
            # Ids are given in the order of the commits: nothing is missing before the last one.
            assert ids == list(range(1, len(ids) + 1))
            # The last one may have been committed before its writer could say so.
            assert before <= len(ids) <= after + WRITERS


def test_what_is_no_database_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no database" * 1000)

    with pytest.raises(Unfit):
        copy_in_use(tmp_path / "file", tmp_path / "copy")
    with pytest.raises(Unfit):
        copy_in_use(tmp_path / "missing", tmp_path / "copy")

    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "missing").exists()
