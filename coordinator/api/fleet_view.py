"""How far the fleet is, read from the database and the last pass: for the status, and the drain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.duties import Duties
from agent.wire import timestamp
from coordinator.api.standing import Known, Standing, stand
from coordinator.database import counters, sleds, snapshot
from coordinator.database.database import Database
from coordinator.database.snapshot import FleetSnapshot
from coordinator.database.transaction import Transaction
from coordinator.replication.cycle import Cycle
from coordinator.replication.reporting import PassReport
from coordinator.staging.depot import StagingDepot
from coordinator.uploads.desk import UploadDesk
from coordinator.values import Sled
from coordinator.wire import PassBody, ReplicationBody, RequestCountsBody, StagingBody
from depot.artifact import ArtifactHash
from depot.errors import DepotError


@dataclass(frozen=True, slots=True)
class _Read:
    """What the database says in one transaction."""

    fleet: FleetSnapshot
    sleds: tuple[Sled, ...]
    lifetime: Mapping[str, int]


class FleetView:
    """Reads how far the fleet is."""

    def __init__(
        self,
        database: Database,
        staging: StagingDepot,
        desk: UploadDesk,
        cycle: Cycle,
        duties: Duties,
        *,
        activation: Literal["periodic", "manual"],
    ) -> None:
        self._database = database
        self._staging = staging
        self._desk = desk
        self._cycle = cycle
        self._duties = duties
        self._activation = activation

    async def read(self) -> ReplicationBody:
        """Everything about replication in one document.

        Raises:
            DatabaseUnavailable.
        """
        found = await self._database.run(_read)
        report = self._cycle.reporting.current()
        standing = await asyncio.to_thread(stand, self._known(found, report))
        return ReplicationBody(
            generation=int(found.fleet.generation),
            coordinator_id=self._staging.id,
            activation=self._activation,
            quiescing=self._desk.quiescing is not None,
            uploads_running=self._desk.running,
            last_pass=_pass_body(report),
            releases=standing.releases,
            sleds=standing.sleds,
            artifacts=standing.artifacts,
            requests=RequestCountsBody(last_run=dict(report.counts), lifetime=dict(found.lifetime)),
            staging=self._staging_body(found, standing),
            warnings=(*self._failing(), *self._staging.warnings()),
        )

    async def only_here(self) -> Sequence[ArtifactHash]:
        """What is wanted and neither on a sled nor in another one's staging, sorted.

        Raises:
            DatabaseUnavailable.
        """
        found = await self._database.run(_read)
        known = self._known(found, self._cycle.reporting.current())
        return self._only_here(found, await asyncio.to_thread(stand, known))

    def _known(self, found: _Read, report: PassReport) -> Known:
        fleet = found.fleet
        return Known(
            wanted=fleet.wanted,
            sleds=found.sleds,
            releases=fleet.releases,
            target=fleet.target,
            inventory=report.inventory,
            arriving=self._cycle.arriving(),
            came=self._cycle.came(),
            lost=frozenset() if report.plan is None else report.plan.lost,
        )

    def _only_here(self, found: _Read, standing: Standing) -> Sequence[ArtifactHash]:
        others = (its for id_, its in found.fleet.staged.items() if id_ != self._staging.id)
        elsewhere = set(standing.held_somewhere).union(*others)
        return sorted((self._held() & found.fleet.wanted.keys()) - elsewhere)

    def _held(self) -> frozenset[ArtifactHash]:
        try:
            return self._staging.held()
        except DepotError:  # its state says so
            return frozenset()

    def _staging_body(self, found: _Read, standing: Standing) -> StagingBody:
        status = self._staging.status()
        return StagingBody(
            state=status.state,
            artifacts=len(self._held()),
            only_here=len(self._only_here(found, standing)),
            used_bytes=status.used_bytes,
            quota_bytes=status.quota_bytes,
        )

    def _failing(self) -> tuple[str, ...]:
        failing = (duty for duty in self._duties.snapshot() if duty.failing)
        return tuple(f"{duty.name} fails: {duty.last_error}" for duty in failing)


async def _read(tx: Transaction) -> _Read:
    return _Read(await snapshot.read(tx), await sleds.every(tx), await counters.read(tx))


def _pass_body(report: PassReport) -> PassBody:
    inventory = report.inventory
    return PassBody(
        passes=report.passes,
        running=report.running,
        began=timestamp(report.began_at_s),
        ended=timestamp(report.ended_at_s),
        error=report.error,
        generation=None if inventory is None else int(inventory.generation),
    )
