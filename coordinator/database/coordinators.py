"""The coordinators that work on this fleet, when each was last there, and forgetting one.

What a coordinator has staged counts as being somewhere for as long as it is known here, however
long it is away: its disk may come back. Only an operator knows that it does not.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from coordinator.database import staged
from coordinator.database.tables import coordinators, staged_artifacts
from coordinator.database.transaction import Transaction
from coordinator.errors import CoordinatorActive, CoordinatorNotFound
from coordinator.values import KnownCoordinator


async def note(tx: Transaction, coordinator_id: str, host: str, now_s: float) -> bool:
    """Say that a coordinator is there; whether it was not known, or not any more."""
    its = coordinators.c.id == coordinator_id
    if await tx.write(update(coordinators).where(its).values(host=host, last_seen_at=now_s)):
        return False
    await tx.write(
        insert(coordinators).values(
            id=coordinator_id, host=host, first_seen_at=now_s, last_seen_at=now_s
        )
    )
    return True


async def every(tx: Transaction) -> tuple[KnownCoordinator, ...]:
    """All that are known, if only because something is staged there, by their ids."""
    found = {row.id: _known(row) for row in await tx.rows(select(coordinators))}
    for row in await tx.rows(select(staged_artifacts.c.coordinator_id).distinct()):
        found.setdefault(row.coordinator_id, KnownCoordinator(row.coordinator_id, None, None, None))
    return tuple(found[id_] for id_ in sorted(found))


async def forget(
    tx: Transaction, coordinator_id: str, *, gone_since_s: float | None = None
) -> KnownCoordinator:
    """Count on a coordinator's staging no more. One that is there after all says so again.

    Args:
        tx: the transaction.
        coordinator_id: of the coordinator.
        gone_since_s: it must not have been there since, Unix seconds; None does not ask.

    Raises:
        CoordinatorNotFound: none has this id.
        CoordinatorActive: it was there since.
    """
    known = {each.id: each for each in await every(tx)}.get(coordinator_id)
    if known is None:
        raise CoordinatorNotFound(f"no coordinator has the id {coordinator_id!r}")
    if gone_since_s is not None and (known.last_seen_s or 0.0) > gone_since_s:
        raise CoordinatorActive(
            f"coordinator {coordinator_id!r} on {known.host!r} was there a moment ago; what it has "
            "staged is forgotten when it is gone for good"
        )
    await staged.forget(tx, coordinator_id)
    await tx.write(delete(coordinators).where(coordinators.c.id == coordinator_id))
    return known


def _known(row: Row[Any]) -> KnownCoordinator:
    return KnownCoordinator(row.id, row.host, row.first_seen_at, row.last_seen_at)
