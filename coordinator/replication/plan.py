"""Decide what one pass is to do: pure, from what is where, and the same for the same seed.

Rules kept here and in `fill`:
- Each replica that is missing on a sled that can be used is planned once, as a put or a copy, if
  anybody can give it; what nobody can give is named.
- What a sled reads from has the artifact, or is receiving it, or gets it in this plan before.
- The large go first, because they take longest. Chains go by one order of the sleds, in which each
  passes on to one what it gets, once; in trees, whoever has the least to send is the next to serve
  others. So none serves more than its share.
- Staging lets go of what enough sleds in service hold; one that cannot be asked holds nothing.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from coordinator.replication.fill import Filler, enough_sleds
from coordinator.replication.places import Fleet
from coordinator.replication.values import Inventory, Plan, Policy, SledInventory
from depot.artifact import ArtifactHash


def plan(inventory: Inventory, policy: Policy, rng: random.Random) -> Plan:
    """What is to be done so that every sled holds what is wanted.

    Args:
        inventory: what is wanted, and what is where.
        policy: how the fleet is to be filled.
        rng: chooses between equals; the same seed gives the same plan.
    """
    fleet = Fleet.of(inventory, policy, rng)
    filler = Filler(inventory, policy, fleet, rng)
    for artifact in _largest_first(fleet.missing, inventory.sizes):
        filler.fill(artifact)
    wanted = inventory.sizes.keys()
    nobodys = wanted - fleet.held - inventory.staged_here
    awaited = nobodys & (inventory.staged_elsewhere | fleet.arriving.keys())
    lost = frozenset(nobodys - awaited)
    seen = all(sled.set_aside is None for sled in inventory.sleds)
    return Plan(
        generation=inventory.generation,
        puts=tuple(filler.puts),
        spreads=tuple(filler.spreads),
        healing=_healing(fleet.sleds, wanted),
        lost=lost if seen else frozenset(),
        out_of_reach=frozenset() if seen else lost,
        awaited=frozenset(awaited),
        droppable=_droppable(
            inventory.staged_here & fleet.held, fleet.sleds, enough_sleds(inventory, policy)
        ),
        unwanted=frozenset(inventory.staged_here - wanted),
    )


def _largest_first(
    artifacts: Iterable[ArtifactHash], sizes: Mapping[ArtifactHash, int]
) -> list[ArtifactHash]:
    return sorted(artifacts, key=lambda artifact: (-sizes[artifact], artifact))


def _healing(
    sleds: Iterable[SledInventory], wanted: Collection[ArtifactHash]
) -> dict[str, tuple[ArtifactHash, ...]]:
    """What is on fewer datasets than it should be, on sleds where anything is."""
    return {sled.id: found for sled in sleds if (found := _short_of_copies(sled, wanted))}


def _short_of_copies(
    sled: SledInventory, wanted: Collection[ArtifactHash]
) -> tuple[ArtifactHash, ...]:
    if min(sled.held.values(), default=sled.datasets) >= sled.datasets:
        return ()
    return tuple(
        sorted(
            artifact
            for artifact, copies in sled.held.items()
            if 0 < copies < sled.datasets and artifact in wanted
        )
    )


def _droppable(
    staged: Iterable[ArtifactHash], sleds: Sequence[SledInventory], enough: int
) -> frozenset[ArtifactHash]:
    """What is staged here without need, because so many sleds have it."""
    return frozenset(
        artifact
        for artifact in staged
        if _at_least(enough, (sled.held.get(artifact) for sled in sleds))
    )


def _at_least(number: int, facts: Iterable[object]) -> bool:
    """Whether so many are true; looks no further than it takes."""
    return sum(1 for _ in islice(filter(None, facts), number)) == number
