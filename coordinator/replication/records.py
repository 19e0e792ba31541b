"""The database, as replication sees it: each method one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from coordinator.database import (
    counters,
    generation,
    history,
    pins,
    releases,
    sleds,
    snapshot,
    staged,
)
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.database.transaction import Transaction
from coordinator.errors import SledNotFound
from coordinator.replication.ports import FleetSnapshot
from coordinator.values import ReleaseState, RequestRecord, SledSighting
from depot.artifact import ArtifactHash, Generation


class DatabaseRecords:
    """`Records` for one coordinator.

    Args:
        database: the fleet's.
        coordinator_id: the id of its staging depot.
        known: the releases that were read before.
    """

    def __init__(self, database: Database, coordinator_id: str, known: KnownReleases) -> None:
        self._database = database
        self._id = coordinator_id
        self._known = known

    async def snapshot(self) -> FleetSnapshot:
        """Read everything that a pass is about, in one transaction."""
        found = await self._database.run(snapshot.read, self._known.every)
        return await asyncio.to_thread(_seen_by, self._id, found)

    async def generation(self) -> Generation:
        """Read the generation alone."""
        return await self._database.run(generation.read)

    async def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        """Write down all that a sled has pinned; of one that is gone meanwhile, nothing."""
        try:
            await self._database.run(pins.keep, sled_id, pinned)
        except SledNotFound:
            return

    async def write_staged(self, held: Callable[[], frozenset[ArtifactHash]]) -> None:
        """Write down what is in this coordinator's staging."""

        async def write(tx: Transaction) -> None:
            await staged.replace(tx, self._id, held())

        await self._database.run(write)

    async def strike_staged(
        self, artifacts: Collection[ArtifactHash], at_generation: Generation
    ) -> bool:
        """Write down that staging is about to let go of artifacts, at that generation alone."""
        return await self._database.run(staged.drop, self._id, artifacts, at_generation)

    async def write_sightings(self, sightings: Sequence[SledSighting]) -> None:
        """Write down how sleds fared."""
        if sightings:
            await self._database.run(sleds.note, sightings)

    async def write_requests(
        self, requests: Sequence[RequestRecord], counts: Mapping[str, int]
    ) -> None:
        """Add to the ring of requests, and to the counts of a lifetime."""

        async def write(tx: Transaction) -> None:
            await history.append(tx, requests)
            await counters.add(tx, counts)

        if requests or counts:
            await self._database.run(write)

    async def write_states(
        self, incomplete: Mapping[str, Collection[ArtifactHash]], complete: Collection[str]
    ) -> None:
        """Mark releases, unless what one has lost was supplied again since that was found out."""

        async def write(tx: Transaction) -> None:
            there = (await staged.by_coordinator(tx)).values() if incomplete else ()
            supplied = frozenset[ArtifactHash]().union(*there)
            lost = [version for version, its in incomplete.items() if supplied.isdisjoint(its)]
            await releases.mark(tx, incomplete=lost, complete=complete)

        await self._database.run(write)


def _seen_by(coordinator_id: str, found: snapshot.DatabaseSnapshot) -> FleetSnapshot:
    elsewhere = (its for id_, its in found.staged.items() if id_ != coordinator_id)
    return FleetSnapshot(
        generation=found.generation,
        sizes=found.wanted,
        sleds=found.sleds,
        kept=found.kept,
        staged_here=frozenset(found.staged.get(coordinator_id, ())),
        staged_elsewhere=frozenset().union(*elsewhere),
        releases={
            release.version: frozenset(artifact.sha256 for artifact in release.artifacts)
            for release in found.releases
        },
        incomplete=frozenset(
            release.version
            for release in found.releases
            if release.state is ReleaseState.INCOMPLETE
        ),
    ).prepare()
