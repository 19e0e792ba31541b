"""The sleds of the fleet, and how each fared when it was last asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from coordinator.database.tables import sleds
from coordinator.database.texts import shortened
from coordinator.database.transaction import Transaction
from coordinator.errors import SledExpunged, SledNotFound
from coordinator.values import Sled, SledPolicy, SledSighting, SledState
from depot.artifact import Generation


async def upsert(tx: Transaction, sled_id: str, agent_url: str, depot_url: str) -> Sled:
    """Add a sled, in service, or say where it is now.

    Raises:
        SledExpunged: it is to come back by its policy, not by registering itself.
    """
    known = await _find(tx, sled_id)
    if known is None:
        sled = Sled(id=sled_id, agent_url=agent_url, depot_url=depot_url)
        await tx.write(
            insert(sleds).values(
                id=sled_id, agent_url=agent_url, depot_url=depot_url, policy=sled.policy.value
            )
        )
        return sled
    if known.policy is SledPolicy.EXPUNGED:
        raise SledExpunged(f"sled {sled_id!r} was expunged; put it in service again first")
    if (known.agent_url, known.depot_url) != (agent_url, depot_url):
        await tx.write(
            update(sleds)
            .where(sleds.c.id == sled_id)
            .values(agent_url=agent_url, depot_url=depot_url)
        )
    return await get(tx, sled_id)


async def get(tx: Transaction, sled_id: str) -> Sled:
    """Raises SledNotFound when there is none of this id."""
    if (sled := await _find(tx, sled_id)) is None:
        raise SledNotFound(f"no sled has the id {sled_id!r}")
    return sled


async def every(tx: Transaction) -> tuple[Sled, ...]:
    """All sleds, expunged ones too, by their ids."""
    # Not sorted by the database, whose order depends on how it was set up.
    found = map(_sled, await tx.rows(select(sleds)))
    return tuple(sorted(found, key=lambda sled: sled.id))


async def in_service(tx: Transaction) -> tuple[Sled, ...]:
    """The sleds that work is done with, by their ids."""
    return tuple(sled for sled in await every(tx) if sled.policy is SledPolicy.IN_SERVICE)


async def set_policy(tx: Transaction, sled_id: str, policy: SledPolicy) -> Sled:
    """Expunge a sled, or put it in service again.

    Raises:
        SledNotFound: there is none of this id.
    """
    changed = await tx.write(update(sleds).where(sleds.c.id == sled_id).values(policy=policy.value))
    if not changed:
        raise SledNotFound(f"no sled has the id {sled_id!r}")
    return await get(tx, sled_id)


async def note(tx: Transaction, sightings: Iterable[SledSighting]) -> None:
    """Record how sleds fared; what a sighting does not know stays as it was.

    A sled that does not exist, or was expunged meanwhile, is left out.
    """
    here = {sled.id: sled for sled in await in_service(tx)}
    rows = [
        _seen(here[sighting.sled_id], sighting)
        for sighting in sightings
        if sighting.sled_id in here
    ]
    await tx.write(update(sleds).where(sleds.c.id == bindparam("its_id")), rows)


def _seen(known: Sled, sighting: SledSighting) -> dict[str, Any]:
    seen_at = known.last_seen_at if sighting.seen_at_s is None else sighting.seen_at_s
    at_generation = known.generation if sighting.generation is None else sighting.generation
    return {
        "its_id": sighting.sled_id,
        "state": sighting.state.value,
        "last_error": shortened(sighting.error),
        "last_seen_at": seen_at,
        "generation": None if at_generation is None else int(at_generation),
    }


async def _find(tx: Transaction, sled_id: str) -> Sled | None:
    row = await tx.first(select(sleds).where(sleds.c.id == sled_id))
    return None if row is None else _sled(row)


def _sled(row: Row[Any]) -> Sled:
    return Sled(
        id=row.id,
        agent_url=row.agent_url,
        depot_url=row.depot_url,
        policy=SledPolicy(row.policy),
        state=None if row.state is None else SledState(row.state),
        last_error=row.last_error,
        last_seen_at=row.last_seen_at,
        generation=None if row.generation is None else Generation(row.generation),
    )
