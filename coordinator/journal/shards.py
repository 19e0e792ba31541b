"""The shards as the database has them: which there are, which is active, where an index is.

Order is by creation. Where a shard begins was read of the one before it when that was sealed; how
long it is, is read of the shard itself.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, insert, select, update

from coordinator.database.journal_tables import journal_shards
from coordinator.database.transaction import Transaction
from coordinator.errors import EntryNotFound, NoShard
from coordinator.journal.notes import VerifierKey
from coordinator.journal.tree import Edge
from coordinator.journal.values import Shard, ShardState

ORIGIN: Final = "sled-depot/journal"
"""What the name of every key begins with; the shard's id follows."""


def origin(shard_id: str) -> str:
    """The name of a shard's tree, and of its key."""
    return f"{ORIGIN}/{shard_id}"


async def every(tx: Transaction) -> tuple[Shard, ...]:
    """All shards, the oldest first."""
    return tuple(map(_shard, await tx.rows(select(journal_shards).order_by(_ORDINAL))))


async def active(tx: Transaction, *, for_update: bool = False) -> Shard:
    """The shard that takes entries; `for_update` keeps others from appending meanwhile.

    Raises:
        NoShard: none was made yet.
    """
    query = select(journal_shards).where(journal_shards.c.state == ShardState.ACTIVE.value)
    found = await _first(tx, query.with_for_update() if for_update else query)
    if found is None:
        raise NoShard("the journal has no shard that takes entries")
    return found


async def before(tx: Transaction, shard: Shard) -> Shard | None:
    """The one that was created before another one."""
    earlier = journal_shards.c.ordinal < shard.ordinal
    return await _first(tx, select(journal_shards).where(earlier).order_by(_ORDINAL.desc()))


async def get(tx: Transaction, shard_id: str) -> Shard:
    """Raises EntryNotFound when there is none of this id."""
    found = await _first(tx, select(journal_shards).where(journal_shards.c.id == shard_id))
    if found is None:
        raise EntryNotFound(f"the journal has no shard {shard_id!r}")
    return found


async def holding(tx: Transaction, index: int) -> Shard:
    """The shard that an index of the journal is in.

    Raises:
        EntryNotFound: there is no such index yet.
    """
    return of_index(await tx.first(_BEGUN, {"index": index}), index)


def begun(query: Select[Any]) -> Select[Any]:
    """Have a query of shards find the newest that begins at the value `index`, or before it."""
    early_enough = journal_shards.c.first_index <= bindparam("index")
    return query.where(early_enough).order_by(_ORDINAL.desc()).limit(1)


def of_index(row: Row[Any] | None, index: int) -> Shard:
    """The shard in what a query found that `begun` made.

    Raises:
        EntryNotFound: the journal has no such index yet.
    """
    found = None if row is None else _shard(row)
    # An empty one begins where the next entry will be.
    if found is None or not found.first_index <= index < found.end_index:
        raise EntryNotFound(f"the journal has no entry {index}")
    return found


async def add(tx: Transaction, shard: Shard) -> None:
    """Write down a new one."""
    await tx.write(
        insert(journal_shards).values(
            id=shard.id,
            ordinal=shard.ordinal,
            first_index=shard.first_index,
            state=shard.state.value,
            size=shard.size,
            edge=shard.edge.content,
            verifier_key=str(shard.key),
            time_created=shard.created_s,
            time_sealed=shard.sealed_s,
        )
    )


async def change(tx: Transaction, shard_id: str, **values: object) -> None:
    """Write down something else about one."""
    await tx.write(update(journal_shards).where(journal_shards.c.id == shard_id).values(**values))


_ORDINAL: Final = journal_shards.c.ordinal
_BEGUN: Final = begun(select(journal_shards))


async def _first(tx: Transaction, query: Select[Any]) -> Shard | None:
    row = await tx.first(query.limit(1))
    return None if row is None else _shard(row)


def _shard(row: Row[Any]) -> Shard:
    # By column: other tables in the same row have columns of these names.
    of, its = row._mapping, journal_shards.c
    return Shard(
        id=of[its.id],
        ordinal=of[its.ordinal],
        first_index=of[its.first_index],
        state=ShardState(of[its.state]),
        edge=Edge.of(of[its.size], bytes(of[its.edge])),
        key=VerifierKey.parse(of[its.verifier_key]),
        created_s=of[its.time_created],
        sealed_s=of[its.time_sealed],
        dropped_s=of[its.time_dropped],
    )
