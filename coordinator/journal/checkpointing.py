"""The checkpoints that were signed, as the database has them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row, bindparam, insert, select

from coordinator.database.journal_tables import journal_checkpoints
from coordinator.database.transaction import Transaction
from coordinator.journal.checkpoints import Checkpoint, signed
from coordinator.journal.notes import SignerKey
from coordinator.journal.values import Shard, SignedCheckpoint

_LATEST: Final = (
    select(journal_checkpoints)
    .where(journal_checkpoints.c.shard_id == bindparam("shard"))
    .order_by(journal_checkpoints.c.size.desc())
    .limit(1)
)


async def note_checkpoint(
    tx: Transaction, shard: Shard, signer: SignerKey, now_s: float
) -> SignedCheckpoint:
    """Sign how a shard is, unless that was done at this size."""
    known = await latest(tx, shard.id)
    if known is not None and known.size == shard.size:
        return known
    note = signed(Checkpoint(shard.key.name, shard.size, shard.edge.root), signer)
    made = SignedCheckpoint(shard.id, shard.size, note, now_s)
    await tx.write(
        insert(journal_checkpoints).values(
            shard_id=made.shard_id, size=made.size, note=made.note, time=made.time_s
        )
    )
    return made


async def latest(tx: Transaction, shard_id: str) -> SignedCheckpoint | None:
    """The last one of a shard; None when none was signed."""
    row = await tx.first(_LATEST, {"shard": shard_id})
    return None if row is None else of_row(row)


async def every(tx: Transaction, shard_id: str) -> tuple[SignedCheckpoint, ...]:
    """All of a shard, the smallest first."""
    its = select(journal_checkpoints).where(journal_checkpoints.c.shard_id == shard_id)
    return tuple(map(of_row, await tx.rows(its.order_by(journal_checkpoints.c.size))))


def of_row(row: Row[Any]) -> SignedCheckpoint:
    """The checkpoint in a row, which may have columns of other tables beside it."""
    of, its = row._mapping, journal_checkpoints.c
    return SignedCheckpoint(of[its.shard_id], of[its.size], of[its.note], of[its.time])
