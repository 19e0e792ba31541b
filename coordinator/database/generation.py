"""The generation: the number of the set of artifacts that sleds are to hold.

It rises by itself with each change of that set (`Transaction.write`); only `advance` sets it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select, update

from coordinator.database.tables import generation
from coordinator.database.transaction import GENERATION_RAISED, Transaction
from coordinator.values import Told
from depot.artifact import Generation
from depot.errors import ConfigGeneration, InvalidRequest

MAX_ADVANCE: Final = 2**62
"""What is left above it cannot be used up by changes."""


async def read(tx: Transaction) -> Generation:
    """The current generation; after a change in the same transaction, the one it led to."""
    row = await tx.first(select(generation.c.value))
    assert row is not None, "the migrations make the row"
    return Generation(row.value)


async def advance(tx: Transaction, to: Generation) -> Generation:
    """Set the generation to a higher one, as the remedy for sleds that are ahead for good.

    Raises:
        ConfigGeneration: it is higher already.
        InvalidRequest: hardly anything would be left above it.
    """
    current = await read(tx)
    if to < current:
        raise ConfigGeneration(
            f"the fleet is at generation {current}, and cannot go back to {to}", to, current
        )
    if to > MAX_ADVANCE:
        raise InvalidRequest(f"the generation can be advanced to 2^62 at most, found {to}")
    await tx.write(update(generation).values(value=int(to)))
    if to > current:
        await tx.tell(Told(GENERATION_RAISED, data={"generation": int(to), "by_hand": True}))
    return to
