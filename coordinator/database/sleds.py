"""The sleds of the fleet, and how each fared when it was last asked.

Rule kept here: no two sleds in service have one agent. Its artifacts would count twice (F2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from coordinator.database.tables import sled_pins, sleds
from coordinator.database.texts import shortened
from coordinator.database.transaction import Transaction
from coordinator.errors import (
    SledAddressTaken,
    SledExpunged,
    SledInService,
    SledNotFound,
    TooMany,
)
from coordinator.values import Sled, SledPolicy, SledSighting, SledState, Told
from depot.artifact import Generation

MAX_SLEDS: Final = 10_000
"""A pass asks each of them, and the status names each."""


async def upsert(
    tx: Transaction, sled_id: str, agent_url: str, depot_url: str, *, limit: int = MAX_SLEDS
) -> Sled:
    """Add a sled, in service, or say where it is now; the fleet has at most `limit`.

    Raises:
        SledExpunged: it is to come back by its policy, not by registering itself.
        SledAddressTaken: another one has this agent.
        TooMany: sleds.
    """
    known = await _find(tx, sled_id)
    if known is None:
        await _require_free(tx, sled_id, agent_url)
        await _require_room(tx, limit)
        sled = Sled(id=sled_id, agent_url=agent_url, depot_url=depot_url)
        await tx.write(
            insert(sleds).values(
                id=sled_id, agent_url=agent_url, depot_url=depot_url, policy=sled.policy.value
            )
        )
        await tx.tell(_at("fleet.sled_added", sled_id, agent_url, depot_url))
        return sled
    if known.policy is SledPolicy.EXPUNGED:
        raise SledExpunged(f"sled {sled_id!r} was expunged; put it in service again first")
    if (known.agent_url, known.depot_url) != (agent_url, depot_url):
        await _require_free(tx, sled_id, agent_url)
        await tx.write(
            update(sleds)
            .where(sleds.c.id == sled_id)
            .values(agent_url=agent_url, depot_url=depot_url)
        )
        await tx.tell(_at("fleet.sled_moved", sled_id, agent_url, depot_url))
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


async def places(tx: Transaction) -> frozenset[tuple[str, str]]:
    """The ids of the sleds in service with their agents' URLs: what can be read often."""
    here = sleds.c.policy == SledPolicy.IN_SERVICE.value
    found = await tx.rows(select(sleds.c.id, sleds.c.agent_url).where(here))
    return frozenset((row.id, row.agent_url) for row in found)


async def set_policy(tx: Transaction, sled_id: str, policy: SledPolicy) -> Sled:
    """Expunge a sled, or put it in service again.

    Raises:
        SledNotFound: there is none of this id.
        SledAddressTaken: its agent is that of another one by now.
    """
    known = await get(tx, sled_id)
    if policy is SledPolicy.IN_SERVICE:
        await _require_free(tx, sled_id, known.agent_url)
    await tx.write(update(sleds).where(sleds.c.id == sled_id).values(policy=policy.value))
    if policy is not known.policy:
        expunged = policy is SledPolicy.EXPUNGED
        kind = "fleet.sled_expunged" if expunged else "fleet.sled_restored"
        await tx.tell(Told(kind, sled_id=sled_id))
    return replace(known, policy=policy)


async def remove(tx: Transaction, sled_id: str) -> Sled:
    """Forget an expunged sled, and what it had pinned. What it registers later is a new one.

    Raises:
        SledNotFound: there is none of this id.
        SledInService: it is to be expunged first.
    """
    sled = await get(tx, sled_id)
    if sled.policy is SledPolicy.IN_SERVICE:
        raise SledInService(f"sled {sled_id!r} is in service; expunge it first")
    await tx.write(delete(sled_pins).where(sled_pins.c.sled_id == sled_id))
    await tx.write(delete(sleds).where(sleds.c.id == sled_id))
    await tx.tell(Told("fleet.sled_removed", sled_id=sled_id))
    return sled


async def note(tx: Transaction, sightings: Iterable[SledSighting]) -> None:
    """Record how sleds fared; what a sighting does not know stays as it was.

    A sled that does not exist, or was expunged meanwhile, is left out. What is older than what is
    known, because its coordinator stood still meanwhile, takes back no generation that the sled
    has confirmed since: what it may have pinned is judged by that.
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
    if seen_at is not None and seen_at < (known.last_seen_at or 0.0):
        seen_at = known.last_seen_at
        confirmed = (known.generation, at_generation)
        at_generation = max((each for each in confirmed if each is not None), default=None)
    return {
        "its_id": sighting.sled_id,
        "state": sighting.state.value,
        "last_error": shortened(sighting.error),
        "last_seen_at": seen_at,
        "generation": None if at_generation is None else int(at_generation),
    }


def _at(kind: str, sled_id: str, agent_url: str, depot_url: str) -> Told:
    return Told(kind, sled_id=sled_id, data={"agent_url": agent_url, "depot_url": depot_url})


async def _require_free(tx: Transaction, sled_id: str, agent_url: str) -> None:
    same = select(sleds.c.id).where(
        sleds.c.agent_url == agent_url,
        sleds.c.id != sled_id,
        sleds.c.policy == SledPolicy.IN_SERVICE.value,
    )
    if (other := await tx.first(same)) is not None:
        raise SledAddressTaken(
            f"the agent at {agent_url} is sled {other.id!r}, so it cannot be {sled_id!r} as well: "
            f"give another address or, if {other.id!r} is not there any more, expunge it",
            other.id,
        )


async def _require_room(tx: Transaction, limit: int) -> None:
    row = await tx.first(select(func.count().label("sleds")).select_from(sleds))
    if row is not None and row.sleds >= limit:
        raise TooMany(f"the fleet has {row.sleds} sleds, expunged ones too; at most {limit} fit")


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
