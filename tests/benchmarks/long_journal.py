"""A journal of very many entries, in a file: every entry, hash and index that appending makes.

Only the way into the file is shorter: the rows are inserted straight, thousands at a time, by the
statements that the tables have. The tree is the one that the entries have.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table

from coordinator.database.database import Database
from coordinator.database.journal_tables import (
    journal_artifacts,
    journal_entries,
    journal_nodes,
    journal_shards,
)
from coordinator.database.telling import written
from coordinator.journal.journal import Journal
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.values import Told
from depot.artifact import ArtifactHash

AT_ONCE: Final = 10_000
_BEGAN_S: Final = 1_700_000_000.0


async def make(path: Path, keys: Path, entries: int) -> str:
    """Make a journal of so many entries; the URL of its database."""
    url = f"sqlite+aiosqlite:///{path}"
    async with await Database.open(url) as database:
        (shard,) = await (await Journal.open(database, keys)).shards()
    await asyncio.to_thread(_fill, path, shard.id, entries)
    return url


def _fill(path: Path, shard_id: str, entries: int) -> None:
    edge = Edge()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for begin in range(0, entries, AT_ONCE):
            edge = _append(connection, shard_id, edge, min(AT_ONCE, entries - begin))
            connection.commit()
        connection.execute(
            f"UPDATE {journal_shards.name} SET size = ?, edge = ? WHERE id = ?",
            (edge.size, edge.content, shard_id),
        )
        connection.commit()


def _append(connection: sqlite3.Connection, shard_id: str, edge: Edge, count: int) -> Edge:
    rows = written(_told(edge.size, count), _BEGAN_S + edge.size)
    grown, nodes = edge.appended(leaf_hash(row["content"].encode()) for row in rows.told)
    _insert(
        connection,
        journal_entries,
        (
            {"shard_id": shard_id, "position": position, **row}
            for position, row in enumerate(rows.told, edge.size)
        ),
    )
    _insert(
        connection,
        journal_artifacts,
        ({**row, "sha256": row["sha256"].digest} for row in rows.artifacts),
    )
    _insert(
        connection,
        journal_nodes,
        (
            {"shard_id": shard_id, "level": level, "position": position, "hash": its_hash}
            for (level, position), its_hash in nodes
        ),
    )
    return grown


def _told(begin: int, count: int) -> Iterator[Told]:
    for number in range(begin, begin + count):
        yield Told(
            "sled.artifact_stored",
            sled_id=f"sled-{number % 1000}",
            artifacts=(ArtifactHash.of(number.to_bytes(8, "big")),),
            data={"size": number},
            source=("0123456789abcdef", number),
        )


def _insert(connection: sqlite3.Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    names = [column.name for column in table.columns]
    connection.executemany(
        f"INSERT INTO {table.name} ({', '.join(names)}) "
        f"VALUES ({', '.join(f':{name}' for name in names)})",
        rows,
    )
