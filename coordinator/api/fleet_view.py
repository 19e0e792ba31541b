"""How far the fleet is, read from the database and the last pass: for the status, and the drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from agent.duties import Duties
from agent.wire.fields import timestamp
from coordinator.api.presence import GONE_AFTER_S
from coordinator.api.staged_view import not_on_sleds, render
from coordinator.api.standing import Known, Standing, stand
from coordinator.database import coordinators, counters, sleds, snapshot
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.database.snapshot import DatabaseSnapshot
from coordinator.database.transaction import Transaction
from coordinator.replication.cycle import Cycle
from coordinator.replication.reporting import PassReport
from coordinator.replication.values import Inventory, Plan
from coordinator.replication_wire import (
    CoordinatorBody,
    CoordinatorsBody,
    PassBody,
    ReplicationBody,
    RequestCountsBody,
    StagingBody,
)
from coordinator.staging.depot import StagingDepot
from coordinator.uploads.desk import UploadDesk
from coordinator.values import FleetSnapshot, KnownCoordinator, Sled, SledPolicy
from depot.artifact import ArtifactHash
from depot.errors import DepotError

MAX_NAMED: Final = 20
"""Sleds, in warnings; more of them have one reason."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What the database says in one transaction."""

    fleet: DatabaseSnapshot
    sleds: tuple[Sled, ...]
    coordinators: tuple[KnownCoordinator, ...]
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
        known: KnownReleases,
        activation: Literal["periodic", "manual"],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._staging = staging
        self._desk = desk
        self._cycle = cycle
        self._duties = duties
        self._releases = known
        self._activation = activation
        self._clock = clock

    async def read(self) -> ReplicationBody:
        """Everything about replication in one document.

        Raises:
            DatabaseUnavailable.
        """
        found = await self._database.run(_read, self._releases)
        report = self._cycle.reporting.current()
        known = self._known(found, report)
        staged = self._staged(found)

        def work_out() -> tuple[Standing, tuple[CoordinatorBody, ...], int]:
            its = render(found.coordinators, found.fleet.staged, known)
            return stand(known), its, len(not_on_sleds(known, staged))

        standing, its_coordinators, only_here = await asyncio.to_thread(work_out)
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
            staging=self._staging_body(len(staged), only_here),
            coordinators=its_coordinators,
            warnings=(
                *self._failing(),
                *self._staging.warnings(),
                *self._away(its_coordinators),
                *lost_snapshots(report.plan, found.fleet.snapshots),
                *healing(report.plan, report.inventory),
                *one_depot(found.sleds),
            ),
        )

    async def coordinators(self) -> CoordinatorsBody:
        """Every coordinator, and what is only in its staging.

        Raises:
            DatabaseUnavailable.
        """
        found = await self._database.run(_read, self._releases)
        known = self._known(found, self._cycle.reporting.current())
        return CoordinatorsBody(
            coordinator_id=self._staging.id,
            items=await asyncio.to_thread(render, found.coordinators, found.fleet.staged, known),
        )

    async def only_here(self, *, after_pass: int = 0) -> Sequence[ArtifactHash]:
        """What is staged here, wanted, and on no sled that answered in the last pass; sorted.

        Args:
            after_pass: only a later pass than this is believed.

        Raises:
            DatabaseUnavailable.
        """
        if self._held() == frozenset():
            return []
        found = await self._database.run(_read, self._releases)
        report = self._cycle.reporting.current()
        known = self._known(found, report)
        if report.planned <= after_pass:
            known = replace(known, inventory=None, came={})
        return sorted(await asyncio.to_thread(not_on_sleds, known, self._staged(found)))

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
            no_room=self._cycle.no_room(),
            lost=frozenset() if report.plan is None else report.plan.lost,
        )

    def _held(self) -> frozenset[ArtifactHash] | None:
        try:
            return self._staging.held()
        except DepotError:  # its state says so
            return None

    def _staged(self, found: _Read) -> frozenset[ArtifactHash]:
        """What is staged here; when the disk does not say, as the database has it."""
        held = self._held()
        return found.fleet.staged.get(self._staging.id, frozenset()) if held is None else held

    def _staging_body(self, artifacts: int, only_here: int) -> StagingBody:
        status = self._staging.status()
        return StagingBody(
            state=status.state,
            artifacts=artifacts,
            only_here=only_here,
            used_bytes=status.used_bytes,
            quota_bytes=status.quota_bytes,
        )

    def _away(self, found: Sequence[CoordinatorBody]) -> Iterator[str]:
        """Coordinators that are away with something that is nowhere else."""
        for each in found:
            if each.only_there and self._clock() - _seen_s(each) > GONE_AFTER_S:
                since = "" if each.last_seen is None else f" since {each.last_seen:%F %T} UTC"
                yield (
                    f"coordinator {each.id} on {each.host or 'an unknown host'} is away{since}, "
                    f"and {each.only_there} artifacts are only in its staging: start it again, or "
                    "forget it if that is gone for good"
                )

    def _failing(self) -> tuple[str, ...]:
        failing = (duty for duty in self._duties.snapshot() if duty.failing)
        return tuple(f"{duty.name} fails: {duty.last_error}" for duty in failing)


def healing(plan: Plan | None, inventory: Inventory | None) -> Iterator[str]:
    """Sleds that lack copies on some of their datasets, the first of them by name."""
    short = {} if plan is None else plan.healing
    unwell = {} if inventory is None else {sled.id: sled.unwell for sled in inventory.sleds}
    for sled_id in sorted(short)[:MAX_NAMED]:
        artifacts = len(short[sled_id])
        why = ", ".join(unwell.get(sled_id, ())) or "it heals that by itself"
        yield (
            f"sled {sled_id} has {artifacts} artifact{'' if artifacts == 1 else 's'} on fewer "
            f"datasets than it should: {why}"
        )
    if len(short) > MAX_NAMED:
        yield f"so have {len(short) - MAX_NAMED} more sleds"


def lost_snapshots(plan: Plan | None, recorded: Iterable[FleetSnapshot]) -> Iterator[str]:
    """Snapshots of which the artifact is nowhere, the first of them by name."""
    lost = frozenset[ArtifactHash]() if plan is None else plan.lost
    gone = [each for each in recorded if each.sha256 in lost]
    for each in gone[:MAX_NAMED]:
        yield (
            f"snapshot {each.name}, version {each.version}, is nowhere: publish it again; the lost "
            "version leaves with the retention"
        )
    if len(gone) > MAX_NAMED:
        yield f"so are {len(gone) - MAX_NAMED} more versions"


def one_depot(sleds: Iterable[Sled]) -> Iterator[str]:
    """Sleds that are said to have the same depot: what is read there is not what they hold."""
    by_depot: dict[str, list[str]] = {}
    for sled in sleds:
        if sled.policy is SledPolicy.IN_SERVICE:
            by_depot.setdefault(sled.depot_url, []).append(sled.id)
    shared = [(url, ids) for url, ids in by_depot.items() if len(ids) > 1]
    for url, ids in shared[:MAX_NAMED]:
        yield (
            f"sleds {', '.join(ids[:MAX_NAMED])} are said to have one depot, {url}: say where each "
            "has its own (`depot-coordinator sled add ID AGENT_URL --depot-url URL`)"
        )


async def _read(tx: Transaction, known: KnownReleases) -> _Read:
    return _Read(
        fleet=await snapshot.read(tx, known.every),
        sleds=await sleds.every(tx),
        coordinators=await coordinators.every(tx),
        lifetime=await counters.read(tx),
    )


def _seen_s(one: CoordinatorBody) -> float:
    return 0.0 if one.last_seen is None else one.last_seen.timestamp()


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
