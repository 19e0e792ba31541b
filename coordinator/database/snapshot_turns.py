"""Whose turn it is to make the next snapshot of the database, and how the last ones fared.

Rules kept here:
- One coordinator at a time: a turn is taken in one transaction, for a while, and prolonged for as
  long as it takes. One that died gives it back by saying nothing.
- A failure stands until a snapshot succeeds, whichever coordinator makes it; it is told once.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Row, insert, select, update

from coordinator.database.tables import snapshot_turns
from coordinator.database.texts import shortened
from coordinator.database.transaction import Transaction
from coordinator.values import SnapshotMade, SnapshotTurn, Told

HELD_S: Final = 120.0
"""How long a turn lasts that is not prolonged."""


async def take(
    tx: Transaction, name: str, coordinator_id: str, now_s: float, *, interval_s: float
) -> SnapshotTurn:
    """Take the turn if a snapshot is due and nobody is at it.

    Args:
        tx: the transaction.
        name: of the snapshot.
        coordinator_id: who asks.
        now_s: Unix seconds, by its clock.
        interval_s: between two snapshots.
    """
    row = await tx.first(select(snapshot_turns).where(_is(name)))
    if row is None:
        held = {"coordinator_id": coordinator_id, "until": now_s + HELD_S}
        await tx.write(insert(snapshot_turns).values(name=name, **held))
        return SnapshotTurn(taken=True)
    taken = _is_due(row, now_s, interval_s) and not _is_held(row, now_s, interval_s)
    if taken:
        await _hold(tx, name, coordinator_id, now_s + HELD_S)
    return SnapshotTurn(taken, row.published_at, row.version, row.error)


async def prolong(tx: Transaction, name: str, coordinator_id: str, now_s: float) -> bool:
    """Keep the turn for another while; whether it is still this coordinator's."""
    its = _is(name) & (snapshot_turns.c.coordinator_id == coordinator_id)
    return bool(await tx.write(update(snapshot_turns).where(its).values(until=now_s + HELD_S)))


async def published(tx: Transaction, name: str, made: SnapshotMade, now_s: float) -> None:
    """Record that a snapshot was published, and let go of the turn."""
    await tx.write(
        update(snapshot_turns)
        .where(_is(name))
        .values(
            coordinator_id=None,
            until=None,
            published_at=now_s,
            version=made.version,
            error=None,
        )
    )
    data = {
        "name": name,
        "version": made.version,
        "checksum": made.checksum,
        "size_bytes": made.size_bytes,
    }
    await tx.tell(Told("fleet.snapshot_published", data=data))


async def failed(
    tx: Transaction,
    name: str,
    coordinator_id: str,
    error: str,
    now_s: float,
    *,
    not_before_s: float,
) -> None:
    """Record that it failed; the next turn is to be taken `not_before_s` seconds from now.

    Of a coordinator that has lost its turn meanwhile nothing is recorded: another one is at it, or
    has succeeded since.
    """
    its = _is(name) & (snapshot_turns.c.coordinator_id == coordinator_id)
    row = await tx.first(select(snapshot_turns.c.error).where(its))
    if row is None:
        return
    values = {"coordinator_id": None, "until": now_s + not_before_s, "error": shortened(error)}
    await tx.write(update(snapshot_turns).where(its).values(**values))
    if row.error is None:
        data = {"name": name, "error": shortened(error)}
        await tx.tell(Told("fleet.snapshot_failed", data=data))


async def give_back(tx: Transaction, name: str, coordinator_id: str) -> None:
    """Let go of the turn, if it is this coordinator's."""
    its = _is(name) & (snapshot_turns.c.coordinator_id == coordinator_id)
    await tx.write(update(snapshot_turns).where(its).values(coordinator_id=None, until=None))


async def _hold(tx: Transaction, name: str, coordinator_id: str, until_s: float) -> None:
    held = {"coordinator_id": coordinator_id, "until": until_s}
    await tx.write(update(snapshot_turns).where(_is(name)).values(**held))


def _is(name: str) -> ColumnElement[bool]:
    return snapshot_turns.c.name == name


def _is_due(row: Row[Any], now_s: float, interval_s: float) -> bool:
    # A time far ahead is of a clock that was wrong: by it, nothing would be due for years.
    return row.published_at is None or abs(now_s - row.published_at) >= interval_s


def _is_held(row: Row[Any], now_s: float, interval_s: float) -> bool:
    # As above: nobody holds a turn for longer than that, nor waits for longer after a failure.
    longest_s = 2 * HELD_S if row.coordinator_id is not None else max(interval_s, 2 * HELD_S)
    return row.until is not None and now_s < row.until <= now_s + longest_s
