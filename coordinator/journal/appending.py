"""Giving what was told its place: the entries of a shard, and the hashes of its tree.

Rules kept here:
- Whoever appends has locked the shard's row, and changes it: two cannot have one index.
- What was told leaves `journal_told` in the transaction that makes an entry of it.
- The first entry of a shard says how the one before it ended, which is proved with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, insert, select, update

from coordinator.database.journal_tables import (
    journal_entries,
    journal_nodes,
    journal_shards,
    journal_told,
)
from coordinator.database.telling import entry_row, new_id
from coordinator.database.transaction import Transaction
from coordinator.journal import shards
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.journal.values import Shard, ShardState
from coordinator.values import Told

NUMBERED_AT_ONCE: Final = 500
"""So many take some ten milliseconds, during which others wait for the shard."""


async def number(tx: Transaction, now_s: float, limit: int = NUMBERED_AT_ONCE) -> int:
    """Give what was told its places, the oldest first; how many there were.

    Raises:
        NoShard: there is nothing to append to.
    """
    found = await tx.rows(select(journal_told).order_by(journal_told.c.id).limit(limit))
    if not found:
        return 0
    shard = await shards.active(tx, for_update=True)
    await append(tx, shard, [dict(row._mapping) for row in found], now_s)
    await tx.write(delete(journal_told).where(journal_told.c.id.in_([row.id for row in found])))
    return len(found)


async def append(
    tx: Transaction, shard: Shard, rows: Sequence[Mapping[str, Any]], now_s: float
) -> Edge:
    """Append entries to a shard that is locked; how its tree is then."""
    if not shard.size and (earlier := await shards.before(tx, shard)) is not None:
        rows = [_opened(shard, earlier, now_s), *rows]
    edge, nodes = shard.edge.appended([leaf_hash(row["content"].encode()) for row in rows])
    await tx.write(
        insert(journal_entries),
        [
            {"shard_id": shard.id, "position": position, **row}
            for position, row in enumerate(rows, shard.size)
        ],
    )
    await tx.write(
        insert(journal_nodes),
        [
            {"shard_id": shard.id, "level": level, "position": position, "hash": its_hash}
            for (level, position), its_hash in nodes
        ],
    )
    changed = await tx.write(
        update(journal_shards)
        .where(
            journal_shards.c.id == shard.id,
            journal_shards.c.state == ShardState.ACTIVE.value,
            journal_shards.c.size == shard.size,
        )
        .values(size=edge.size, edge=edge.content)
    )
    assert changed == 1, "its row was locked"
    return edge


def told_now(told: Told, now_s: float) -> dict[str, Any]:
    """The row of an entry that the journal tells of itself."""
    return entry_row(new_id(now_s), told, now_s)


def _opened(shard: Shard, earlier: Shard, now_s: float) -> dict[str, Any]:
    data = {
        "shard": shard.id,
        "before": earlier.id,
        "size": earlier.size,
        "root": earlier.edge.root.hex(),
    }
    return told_now(Told("journal.shard_opened", data=data), now_s)
