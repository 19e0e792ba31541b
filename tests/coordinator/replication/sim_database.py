"""The fleet's database in memory: its rows, and what one coordinator does with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator.errors import DatabaseUnavailable
from coordinator.replication.ports import FleetSnapshot
from coordinator.values import RequestRecord, SledSighting
from depot.artifact import ArtifactHash, Generation
from tests.coordinator.replication.sim_sleds import Network

T = TypeVar("T")
QUERY_S = 0.001


@dataclass
class SimDatabase:
    """Rows, changed by one coordinator at a time.

    Attributes:
        down: every transaction fails.
    """

    network: Network
    generation: int = 1
    releases: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    kept: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    staged: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    expunged: set[str] = field(default_factory=set)
    sightings: dict[str, SledSighting] = field(default_factory=dict)
    requests: list[RequestRecord] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    down: bool = False

    @property
    def wanted(self) -> frozenset[ArtifactHash]:
        return frozenset().union(*self.releases.values())

    def add_release(self, version: str, artifacts: Iterable[ArtifactHash]) -> None:
        before = self.wanted
        self.releases[version] = frozenset(artifacts)
        self._raise(before)

    def remove_release(self, version: str) -> None:
        before = self.wanted
        del self.releases[version]
        self.incomplete.discard(version)
        self._raise(before)

    def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        outside = pinned & self.kept.get(sled_id, frozenset()) | pinned - self.wanted
        if outside != self.kept.get(sled_id, frozenset()):
            self.kept[sled_id] = outside
            self.generation += 1

    def _raise(self, before: frozenset[ArtifactHash]) -> None:
        if self.wanted != before:
            self.generation += 1


class SimRecords:
    """The database as one coordinator sees it: `Records`."""

    def __init__(self, database: SimDatabase, coordinator_id: str) -> None:
        self.database = database
        self._id = coordinator_id

    async def run(self, work: Callable[[SimDatabase], T]) -> T:
        await asyncio.sleep(QUERY_S)
        if self.database.down:
            raise DatabaseUnavailable("the database cannot be reached")
        result = work(self.database)
        await asyncio.sleep(QUERY_S)
        return result

    async def snapshot(self) -> FleetSnapshot:
        return await self.run(self._snapshot)

    def _snapshot(self, database: SimDatabase) -> FleetSnapshot:
        rows = [database.network.sleds[id_].row() for id_ in sorted(database.network.sleds)]
        elsewhere = [held for id_, held in database.staged.items() if id_ != self._id]
        return FleetSnapshot(
            generation=Generation(database.generation),
            sizes={each: database.network.sizes[each] for each in database.wanted},
            sleds=tuple(row for row in rows if row.id not in database.expunged),
            kept=dict(database.kept),
            staged_here=database.staged.get(self._id, frozenset()),
            staged_elsewhere=frozenset().union(*elsewhere),
            releases=dict(database.releases),
            incomplete=frozenset(database.incomplete),
        )

    async def generation(self) -> Generation:
        return await self.run(lambda database: Generation(database.generation))

    async def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        await self.run(lambda database: database.keep_pins(sled_id, pinned))

    async def write_staged(self, held: Callable[[], frozenset[ArtifactHash]]) -> None:
        await self.run(lambda database: database.staged.update({self._id: held()}))

    async def strike_staged(
        self, artifacts: Collection[ArtifactHash], at_generation: Generation
    ) -> bool:
        def strike(database: SimDatabase) -> bool:
            if database.generation != at_generation:
                return False
            left = database.staged.get(self._id, frozenset()).difference(artifacts)
            database.staged[self._id] = left
            return True

        return await self.run(strike)

    async def write_sightings(self, sightings: Sequence[SledSighting]) -> None:
        seen = {sighting.sled_id: sighting for sighting in sightings}
        await self.run(lambda database: database.sightings.update(seen))

    async def write_requests(
        self, requests: Sequence[RequestRecord], counts: Mapping[str, int]
    ) -> None:
        def write(database: SimDatabase) -> None:
            database.requests += requests
            database.counts.update(counts)

        await self.run(write)

    async def write_states(
        self, incomplete: Mapping[str, Collection[ArtifactHash]], complete: Collection[str]
    ) -> None:
        def write(database: SimDatabase) -> None:
            supplied = frozenset[ArtifactHash]().union(*database.staged.values())
            lost = {version for version, its in incomplete.items() if supplied.isdisjoint(its)}
            database.incomplete |= lost & database.releases.keys()
            database.incomplete -= set(complete)

        await self.run(write)
