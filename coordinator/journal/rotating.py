"""From one shard to the next, and back: each is one transaction, all of it or nothing.

Rules kept here:
- The old shard's last entry says which shard and key follow, and its last checkpoint is signed by
  its own key. It is sealed without only when that key is lost for good, and says so itself.
- A rotation names the shard that it is to end. Said again, it ends no other one.
- It can be undone while the new shard is empty: then nothing was ever promised about it.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import delete

from coordinator.database.journal_tables import journal_checkpoints, journal_shards
from coordinator.database.transaction import Transaction
from coordinator.errors import ShardInUse
from coordinator.journal import shards
from coordinator.journal.appending import append, told_now
from coordinator.journal.checkpointing import note_checkpoint
from coordinator.journal.notes import SignerKey, VerifierKey
from coordinator.journal.tree import Edge
from coordinator.journal.values import KEY_LOST, Rotation, Shard, ShardState
from coordinator.values import Told


def first_shard(shard_id: str, key: VerifierKey, now_s: float) -> Shard:
    """The one that a journal begins with."""
    return Shard(shard_id, 0, 0, ShardState.ACTIVE, Edge(), key, now_s)


async def rotate(
    tx: Transaction,
    ending: str,
    signer: SignerKey | None,
    next_id: str,
    next_key: VerifierKey,
    now_s: float,
) -> Rotation:
    """Seal the active shard, and make the next one.

    Args:
        tx: the transaction.
        ending: the id of the shard to be sealed; when another one is active, nothing is done.
        signer: its key; None: it is lost, and what was not signed before never will be.
        next_id: of the new shard.
        next_key: of the new shard.
        now_s: Unix seconds.
    """
    active = await shards.active(tx, for_update=True)
    if active.id != ending or not (active.size or signer is None):
        return Rotation(False, active, await shards.before(tx, active))
    data: dict[str, object] = {"shard": active.id, "next": next_id, "next_key": str(next_key)}
    data |= {KEY_LOST: True} if signer is None else {}
    edge = await append(
        tx, active, [told_now(Told("journal.shard_sealed", data=data), now_s)], now_s
    )
    sealed = replace(active, state=ShardState.SEALED, edge=edge, sealed_s=now_s)
    if signer is not None:
        await note_checkpoint(tx, sealed, signer, now_s)
    await shards.change(tx, active.id, state=ShardState.SEALED.value, time_sealed=now_s)
    following = Shard(
        next_id, sealed.ordinal + 1, sealed.end_index, ShardState.ACTIVE, Edge(), next_key, now_s
    )
    await shards.add(tx, following)
    return Rotation(True, following, sealed)


async def undo(tx: Transaction, now_s: float) -> Rotation:
    """Forget the newest shard, which is empty, and go on with the one before it.

    Raises:
        ShardInUse: it has entries, or there is none before it that could go on.
    """
    active = await shards.active(tx, for_update=True)
    earlier = await shards.before(tx, active)
    if active.size:
        raise ShardInUse(
            f"shard {active.id} has {active.size} entries by now; what follows it is another one"
        )
    if earlier is None or earlier.dropped_s is not None:
        raise ShardInUse(f"there is no shard before {active.id} that could go on")
    its = journal_checkpoints.c.shard_id == active.id
    await tx.write(delete(journal_checkpoints).where(its))
    await tx.write(delete(journal_shards).where(journal_shards.c.id == active.id))
    await shards.change(tx, earlier.id, state=ShardState.ACTIVE.value, time_sealed=None)
    again = replace(earlier, state=ShardState.ACTIVE, sealed_s=None)
    told = Told("journal.shard_reactivated", data={"shard": earlier.id, "instead_of": active.id})
    edge = await append(tx, again, [told_now(told, now_s)], now_s)
    return Rotation(True, replace(again, edge=edge), await shards.before(tx, again))
