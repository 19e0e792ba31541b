"""Dropping a sealed shard whose entries are in an export: where it is, and how it ended, stay.

Rules kept here:
- Nothing is deleted before the shard is marked as dropped, in a transaction of its own: from then
  on nobody reads its entries, and what is left of them is deleted some at a time.
- The entry that says so is appended in that transaction, so that a mark without one is a lie.
- That entry carries on what the shard's own entries say of shards that were dropped, or ended when
  the database was put back: else nobody could tell them from hidden ones once it is gone.
- A shard is dropped by how it ended: whoever says another size or root has an export of something
  else, or of a shard that was changed.
- Its last checkpoint stays. Without one it is not dropped, as nothing would prove its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, func, select

from coordinator.database.journal_tables import (
    journal_artifacts,
    journal_checkpoints,
    journal_entries,
    journal_nodes,
    journal_shards,
)
from coordinator.database.transaction import Transaction
from coordinator.errors import ShardInUse
from coordinator.journal import checkpointing, filing, shards
from coordinator.journal.appending import append, told_now
from coordinator.journal.restores import DATABASE_RESTORED, Restore
from coordinator.journal.values import EARLIER, RESTORES, SHARD_DROPPED, Shard, ShardState
from coordinator.values import Told
from depot.errors import InvalidRequest

DELETED_AT_ONCE: Final = 2000
"""Entries, with their hashes, when they are short; others wait for so long."""
_DELETE_ARTIFACT: Final = delete(journal_artifacts).where(
    journal_artifacts.c.sha256 == bindparam("its_sha256"),
    journal_artifacts.c.entry_id == bindparam("its_entry"),
)


async def said_in(tx: Transaction, shard_id: str) -> Mapping[str, Any]:
    """What a sealed shard says of dropped shards and of restores, as `drop` is to carry it on.

    Raises:
        EntryNotFound: there is no such shard.
    """
    shard = await shards.get(tx, shard_id)
    its = journal_entries.c
    rows = await tx.rows(
        select(its.position, its.content)
        .where(its.shard_id == shard_id, its.kind.in_((SHARD_DROPPED, DATABASE_RESTORED)))
        .order_by(its.position)
    )
    earlier: list[str] = []
    restores: list[Mapping[str, Any]] = []
    for row in rows:
        restore = Restore.parse(row.content)
        if restore is not None and restore.is_at_its_place(shard_id, shard.size, row.position):
            restores.append(restore.data)
        said = filing.said_in(row.content)
        if said.get("kind") == SHARD_DROPPED:
            data = said["data"]
            earlier += [data["shard"], *data.get(EARLIER, ())]
            restores += data.get(RESTORES, ())
    return {EARLIER: earlier, RESTORES: restores}


async def drop(
    tx: Transaction,
    shard_id: str,
    size: int,
    root: bytes,
    said: Mapping[str, Any],
    now_s: float,
) -> Shard:
    """Mark a shard as dropped; one that is dropped already stays as it is.

    Args:
        tx: the transaction.
        shard_id: which.
        size: how many entries it ended with.
        root: the hash of their tree.
        said: what `said_in` says of it.
        now_s: Unix seconds.

    Raises:
        EntryNotFound: there is no such shard.
        InvalidRequest: it did not end like this.
        ShardInUse: it takes entries, or nobody has signed its end.
    """
    shard = await shards.get(tx, shard_id)
    if (shard.size, shard.edge.root) != (size, root):
        raise InvalidRequest(
            f"shard {shard_id} has {shard.size} entries with the root {shard.edge.root.hex()}; "
            f"the export has {size} with {root.hex()}"
        )
    if shard.dropped_s is not None:
        return shard
    if shard.state is not ShardState.SEALED:
        raise ShardInUse(f"shard {shard_id} is active; rotate first")
    signed = await checkpointing.latest(tx, shard_id)
    if signed is None or signed.size != size:
        raise ShardInUse(f"shard {shard_id} has no last checkpoint, so its entries are kept")
    await shards.change(tx, shard_id, time_dropped=now_s)
    older = journal_checkpoints.c.size < size
    await tx.write(
        delete(journal_checkpoints).where(journal_checkpoints.c.shard_id == shard_id, older)
    )
    data = {"shard": shard_id, "first_index": shard.first_index, "size": size, "root": root.hex()}
    data |= said
    active = await shards.active(tx, for_update=True)
    await append(tx, active, [told_now(Told(SHARD_DROPPED, data=data), now_s)], now_s)
    return await shards.get(tx, shard_id)


async def delete_some(tx: Transaction, limit: int = DELETED_AT_ONCE) -> bool:
    """Delete some of what dropped shards have left; False: nothing was left."""
    its = journal_entries.c
    left = (
        select(func.min(its.position)).where(its.shard_id == journal_shards.c.id).scalar_subquery()
    )
    found = await tx.first(
        select(journal_shards.c.id, left.label("begin"))
        .where(journal_shards.c.time_dropped.is_not(None), left.is_not(None))
        .limit(1)
    )
    if found is None:
        return False
    end = await filing.few(tx, found.id, found.begin, limit)
    some = (its.shard_id == found.id, its.position < end)
    await _delete_artifacts(tx, await tx.rows(select(its.id, its.content).where(*some)))
    await _delete_nodes(tx, found.id, end)
    await tx.write(delete(journal_entries).where(*some))
    return True


async def _delete_artifacts(tx: Transaction, entries: Sequence[Row[Any]]) -> None:
    # By the whole key: by the entry alone, the whole table would be gone through each time.
    found = [
        {"its_sha256": sha256, "its_entry": entry_id}
        for row in entries
        for sha256, entry_id in filing.pairs(row.id, filing.said_in(row.content))
    ]
    if found:
        await tx.write(_DELETE_ARTIFACT, found)


async def _delete_nodes(tx: Transaction, shard_id: str, end: int) -> None:
    its = journal_nodes.c
    for level in range(end.bit_length()):
        # Whatever begins before: what it is over of the rest is of no use to anybody either.
        over = its.position <= (end - 1) >> level
        await tx.write(
            delete(journal_nodes).where(its.shard_id == shard_id, its.level == level, over)
        )
