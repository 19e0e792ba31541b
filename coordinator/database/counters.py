"""What was counted over the life of the fleet, by all coordinators."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import insert, select, update

from coordinator.database.tables import counters
from coordinator.database.transaction import Transaction


async def add(tx: Transaction, counted: Mapping[str, int]) -> None:
    """Add to counters; one that is not there begins at 0."""
    for name in sorted(name for name, by in counted.items() if by):
        more = {"value": counters.c.value + counted[name]}
        if not await tx.write(update(counters).where(counters.c.name == name).values(more)):
            await tx.write(insert(counters).values(name=name, value=counted[name]))


async def read(tx: Transaction) -> dict[str, int]:
    """Every counter that was ever added to."""
    rows = await tx.rows(select(counters).order_by(counters.c.name))
    return {row.name: row.value for row in rows}
