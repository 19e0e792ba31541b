"""The coordinator's API: one table of endpoints, and the app that serves it.

A handler parses, calls one verb, renders; how a refusal looks is `depot.http`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from agent.api.queries import strict_about_queries
from coordinator.api.coordinators import CoordinatorApi
from coordinator.api.fleet_view import FleetView
from coordinator.api.generation import GenerationApi
from coordinator.api.journal import JournalApi
from coordinator.api.metrics import FleetMetrics
from coordinator.api.observe import ObserveApi
from coordinator.api.problems import PROBLEMS
from coordinator.api.pruning import PruneDesk, Retention
from coordinator.api.quiescing import Quiesce
from coordinator.api.releases import ReleaseApi
from coordinator.api.replication import ReplicationApi
from coordinator.api.sled_desk import SledDesk
from coordinator.api.sleds import SledApi
from coordinator.api.snapshots import SnapshotApi
from coordinator.api.target import TargetApi
from coordinator.api.trust import TrustApi
from coordinator.api.uploads import UploadApi
from coordinator.database.database import Database
from coordinator.journal.journal import Journal
from coordinator.replication.cycle import Cycle
from coordinator.uploads.desk import UploadDesk
from coordinator.uploads.snapshots import SnapshotDesk
from depot.http.browsers import OwnNames
from depot.http.limits import HttpLimits
from depot.http.openapi import Endpoint
from depot.http.service import make_app
from depot.http.versions import ApiInfo

COORDINATOR_API: Final = ApiInfo(
    title="Coordinator API",
    description="Releases, trust, sleds and replication of one fleet.",
    version="1.0.0",
    oldest=(1, 0, 0),
    newest=(1, 0, 0),
)


def coordinator_endpoints(
    *,
    database: Database,
    desk: UploadDesk,
    snapshot_desk: SnapshotDesk,
    sled_desk: SledDesk,
    cycle: Cycle,
    view: FleetView,
    quiesce: Quiesce,
    pruning: PruneDesk,
    retention: Retention,
    coordinator_id: str,
    clock: Callable[[], float],
    wake: Callable[[], None],
    reasons_not_ready: Callable[[], Awaitable[Sequence[str]]],
    metrics: FleetMetrics,
    journal: Journal,
) -> tuple[Endpoint, ...]:
    """The table of the coordinator's API."""
    table = (
        *GenerationApi(database, wake).endpoints(),
        *SledApi(database, sled_desk, wake).endpoints(),
        *TrustApi(database).endpoints(),
        *UploadApi(desk).endpoints(),
        *ReleaseApi(database, pruning, retention, wake).endpoints(),
        *TargetApi(database).endpoints(),
        *SnapshotApi(database, desk, snapshot_desk, cycle).endpoints(),
        *ReplicationApi(database, cycle, view, quiesce).endpoints(),
        *ObserveApi(reasons_not_ready, metrics).endpoints(),
        *JournalApi(journal).endpoints(),
        *CoordinatorApi(database, view, coordinator_id, wake, clock).endpoints(),
    )
    return tuple(map(strict_about_queries, table))


def coordinator_app(
    table: Sequence[Endpoint], own: OwnNames, limits: HttpLimits | None = None
) -> web.Application:
    """The app that serves the coordinator's API, under its `own` names only."""
    return make_app(table, api=COORDINATOR_API, limits=limits, problems=PROBLEMS, own=own)
