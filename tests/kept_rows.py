"""What is remembered of copies, changed behind the agent's back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from depot.scrub.copy_database import Row


def change_rows(database: Path, change: Callable[[Row], Row]) -> None:
    """Write every row anew, of every dataset."""
    with closing(sqlite3.connect(database)) as db, db:
        found = db.execute("SELECT dataset_id, sha256, facts FROM copy").fetchall()
        db.executemany(
            "UPDATE copy SET facts = ? WHERE dataset_id = ? AND sha256 = ?",
            [(change(Row.unpacked(facts)).packed(), *key) for *key, facts in found],
        )


def age_rows(database: Path, seconds: float) -> None:
    """Have every copy verified so much earlier."""

    def age(row: Row) -> Row:
        assert row.verified_at_s is not None
        return row._replace(verified_at_s=row.verified_at_s - seconds)

    change_rows(database, age)
