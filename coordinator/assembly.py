"""A coordinator put together from its settings: what is built, in which order, and who owns it.

Rules: the staging depot comes first, because it holds the lock that keeps a second coordinator off
the same directory; everything is closed in the opposite order, also when building fails half-way;
every long task is started in the task group of whoever runs the coordinator.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from agent.assembly import http_limits
from agent.copies.networks import AllowedNetworks
from agent.duties import Duties, unattended_work
from agent.event_relay import WORRYING
from agent.listening import check_can_listen, listen_at
from agent.loop_lag import measured_lag
from coordinator.api import coordinator_app, coordinator_endpoints
from coordinator.api.fleet_view import FleetView
from coordinator.api.health import Health
from coordinator.api.metrics import FleetMetrics
from coordinator.api.presence import INTERVAL_S as PRESENCE_S
from coordinator.api.presence import Presence
from coordinator.api.pruning import INTERVAL_S, PruneDesk, Retention
from coordinator.api.quiescing import Quiesce
from coordinator.api.sled_desk import SledDesk
from coordinator.api.watching import LOOK_S, FleetWatch
from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.errors import UploadRunning
from coordinator.journal.gathering import Gatherer
from coordinator.journal.journal import Journal
from coordinator.journal.keeping import LOOK_S as JOURNAL_S
from coordinator.journal.keeping import JournalKeeper, ShardLimits
from coordinator.journal.witnessing import ROUND_S as WITNESS_S
from coordinator.journal.witnessing import Witnesses
from coordinator.replication.agents import Agents
from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.cycle import Cycle
from coordinator.replication.plan import plan
from coordinator.replication.records import DatabaseRecords
from coordinator.replication.values import Policy
from coordinator.settings import CoordinatorSettings
from coordinator.snapshots.publishing import order_of
from coordinator.snapshots.schedule import LOOK_S as SNAPSHOT_S
from coordinator.snapshots.schedule import Every, Schedule
from coordinator.staging.depot import StagingDepot
from coordinator.uploads.desk import UploadDesk, UploadLimits
from coordinator.uploads.snapshots import SnapshotDesk
from depot.http.browsers import OwnNames
from depot.http.service import HttpService

_log = structlog.get_logger("coordinator")


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A built coordinator: open, listening once `listen` has returned."""

    settings: CoordinatorSettings
    database: Database
    staging: StagingDepot
    desk: UploadDesk
    cycle: Cycle
    quiesce: Quiesce
    pruning: PruneDesk
    presence: Presence
    watch: FleetWatch
    journal: JournalKeeper
    gatherer: Gatherer
    snapshots: Schedule | None
    witnesses: Witnesses
    duties: Duties
    server: HttpService

    async def listen(self) -> None:
        """Open the port.

        Raises:
            CannotStart: it is taken or not ours to take.
        """
        await listen_at(self.server, self.settings.listen, "listen")

    def begin_duties(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start every long task in `group`; they run until cancelled."""
        keep = self.duties.keep_running
        tasks = [
            group.create_task(keep("staging", self.staging.run_duties), name="staging"),
            group.create_task(keep("replication", self.cycle.run), name="replication"),
            group.create_task(keep("quiesce", self.quiesce.run), name="quiesce"),
        ]
        tell = self.duties.every(PRESENCE_S, "presence", self.presence.tell)
        tasks.append(group.create_task(tell, name="presence"))
        look = self.duties.every(LOOK_S, "fleet watch", self.watch.look)
        tasks.append(group.create_task(look, name="fleet watch"))
        keep_journal = self.duties.every(JOURNAL_S, "journal", self.journal.look)
        tasks.append(group.create_task(keep_journal, name="journal"))
        gather = self.duties.every(self.settings.journal.gather_s, "events", self.gatherer.round)
        tasks.append(group.create_task(gather, name="events"))
        if self.snapshots is not None:
            publish = self.duties.every(SNAPSHOT_S, "snapshot", self.snapshots.look)
            tasks.append(group.create_task(publish, name="snapshot"))
            watch = self.duties.every(SNAPSHOT_S, "snapshot progress", self.snapshots.watch)
            tasks.append(group.create_task(watch, name="snapshot progress"))
        witness = self.duties.every(WITNESS_S, "checkpoints", self.witnesses.round)
        tasks.append(group.create_task(witness, name="checkpoints"))
        if self.settings.prune.enabled:
            prune = self.duties.every(INTERVAL_S, "prune", self._prune)
            tasks.append(group.create_task(prune, name="prune"))
        return tasks

    async def _prune(self) -> None:
        with suppress(UploadRunning):  # there is a next time
            await self.pruning.prune(retention(self.settings))

    def status_line(self) -> str:
        """One line for `systemctl status`; what is wrong comes first."""
        failing = [duty for duty in self.duties.snapshot() if duty.failing]
        wrong = [f"{duty.name} fails: {duty.last_error}" for duty in failing]
        return "; ".join([*wrong, *self.staging.warnings(), f"listening on {self.server.url}"])

    async def drain(self) -> None:
        """Take no new work, and return when what runs has ended or run out of time.

        Replication goes on meanwhile, so that what is only staged here gets to a sled.
        """
        timeout_s = self.settings.drain_timeout_s
        async with asyncio.TaskGroup() as group:
            group.create_task(self.server.drain(timeout_s), name="drain API")
            group.create_task(self.quiesce.settle(timeout_s), name="drain staging")


@asynccontextmanager
async def assembled(
    settings: CoordinatorSettings, *, clock: Callable[[], float] = time.time
) -> AsyncIterator[Coordinator]:
    """Build a coordinator and take it apart again.

    Raises:
        DatasetBusy: another coordinator has the staging directory.
        CannotStart: another program listens where this one is to.
        DepotError, OSError: the staging directory or the database cannot be used.
    """
    async with AsyncExitStack() as stack:
        staging, database = await _opened(stack, settings)
        journal = await Journal.open(database, settings.journal_keys, clock=clock)
        duties = Duties(_log_event)
        stack.enter_context(unattended_work(duties))
        lag = stack.enter_context(measured_lag())
        known = KnownReleases()
        agents = await stack.enter_async_context(Agents(sled_networks(settings)))
        cycle = await stack.enter_async_context(
            _replication(settings, database, staging, agents, known, clock)
        )
        desk = UploadDesk(database, staging, upload_limits(settings), cycle.wake, clock=clock)
        stack.callback(desk.close)
        presence = Presence(database, staging, socket.gethostname(), clock=clock)
        await presence.tell()
        snapshots = _schedule(settings, database, staging.id, clock)
        activation = settings.replication.activation
        view = FleetView(
            database, staging, desk, cycle, duties, known=known, activation=activation, clock=clock
        )
        metrics = FleetMetrics(view.read, desk, duties, lag.read, snapshots)
        api = _api(settings, database, staging, agents, journal, desk, cycle, view, metrics, clock)
        # With no time to drain: that was done, or the end is not an orderly one.
        stack.push_async_callback(api.server.stop, 0.0)
        yield Coordinator(
            settings=settings,
            database=database,
            staging=staging,
            desk=desk,
            cycle=cycle,
            quiesce=api.quiesce,
            pruning=api.pruning,
            presence=presence,
            watch=FleetWatch(database, cycle.wake),
            gatherer=Gatherer(database, agents),
            witnesses=Witnesses(database, agents),
            journal=JournalKeeper(journal, shard_limits(settings), clock=clock),
            snapshots=snapshots,
            duties=duties,
            server=api.server,
        )


async def _opened(
    stack: AsyncExitStack, settings: CoordinatorSettings
) -> tuple[StagingDepot, Database]:
    """What is kept on disks, opened for as long as `stack` is.

    Raises:
        CannotStart: the API could not be served.
    """
    staging = await stack.enter_async_context(
        await StagingDepot.open(
            settings.staging.path,
            quota_bytes=settings.staging.quota_bytes,
            on_event=_log_staging,
        )
    )
    # Before the tables are brought up to date, and this one counts among the coordinators.
    await check_can_listen(settings.listen, "listen")
    url = await asyncio.to_thread(_prepared, settings)
    return staging, await stack.enter_async_context(await Database.open(url))


def _replication(
    settings: CoordinatorSettings,
    database: Database,
    staging: StagingDepot,
    agents: Agents,
    known: KnownReleases,
    clock: Callable[[], float],
) -> AbstractAsyncContextManager[Cycle]:
    return replication(
        records=DatabaseRecords(database, staging.id, known),
        staging=staging,
        agent_of=agents,
        planner=plan,
        options=replication_options(settings),
        # One seed for all coordinators: their plans are about the same chains then, and what one
        # asks a sled for joins what another one has begun there.
        rng=random.Random("replication"),
        clock=clock,
    )


def _schedule(
    settings: CoordinatorSettings,
    database: Database,
    coordinator_id: str,
    clock: Callable[[], float],
) -> Schedule | None:
    """What publishes snapshots by itself; None where nobody asked for that."""
    asked = settings.snapshot
    if not asked.interval_s or asked.archive is None:
        return None
    every = Every(
        order=order_of(settings),
        archive=asked.archive,
        endpoint=asked.endpoint,
        directory=settings.snapshot_work,
        keep=asked.keep,
        interval_s=asked.interval_s,
    )
    return Schedule(database, coordinator_id, every, clock=clock)


@dataclass(frozen=True, slots=True)
class _Api:
    """The API, and what works for it and for itself."""

    server: HttpService
    quiesce: Quiesce
    pruning: PruneDesk


def _api(
    settings: CoordinatorSettings,
    database: Database,
    staging: StagingDepot,
    agents: Agents,
    journal: Journal,
    desk: UploadDesk,
    cycle: Cycle,
    view: FleetView,
    metrics: FleetMetrics,
    clock: Callable[[], float],
) -> _Api:
    """Make the API, of which nothing listens yet."""
    quiesce = Quiesce(desk, cycle, view)
    pruning = PruneDesk(database, desk, cycle, agents)
    health = Health(partial(database.run, generation.read), staging)
    table = coordinator_endpoints(
        database=database,
        desk=desk,
        snapshot_desk=SnapshotDesk(database, staging, desk, cycle.wake, clock=clock),
        sled_desk=SledDesk(database, agents),
        cycle=cycle,
        view=view,
        quiesce=quiesce,
        pruning=pruning,
        retention=retention(settings),
        coordinator_id=staging.id,
        clock=clock,
        wake=cycle.wake,
        reasons_not_ready=health.reasons_not_ready,
        metrics=metrics,
        journal=journal,
    )
    limits = http_limits(settings.http)
    app = coordinator_app(table, OwnNames.of(settings.allowed_hosts, settings.listen.host), limits)
    metrics.watch(app, table)
    return _Api(HttpService(app, limits=limits, name="coordinator"), quiesce, pruning)


def replication_options(settings: CoordinatorSettings) -> ReplicationOptions:
    """How to replicate."""
    asked = settings.replication
    return ReplicationOptions(
        policy=Policy(min_sled_replication=asked.min_sled_replication),
        period_s=asked.period_s,
        manual=asked.activation == "manual",
        max_concurrent_requests=asked.max_concurrent_requests,
    )


def sled_networks(settings: CoordinatorSettings) -> AllowedNetworks:
    """Where sleds may be."""
    return AllowedNetworks.of(settings.sleds.allowed_networks)


def retention(settings: CoordinatorSettings) -> Retention:
    """Which releases stay."""
    return Retention(settings.prune.keep_previous_targets, settings.prune.keep_newest)


def shard_limits(settings: CoordinatorSettings) -> ShardLimits:
    """When a shard of the journal is signed and sealed by itself."""
    asked = settings.journal
    return ShardLimits(asked.max_entries, asked.max_age_s, asked.checkpoint_s)


def upload_limits(settings: CoordinatorSettings) -> UploadLimits:
    """The bounds of uploads."""
    return UploadLimits(
        max_size_bytes=settings.upload.max_size_bytes,
        max_concurrent=settings.upload.max_concurrent,
        networks=AllowedNetworks.of(settings.import_.allowed_sources),
    )


def _prepared(settings: CoordinatorSettings) -> str:
    """The database's URL; the directory of the embedded one is made."""
    if settings.database.url is None:
        Path(settings.staging.path).parent.mkdir(parents=True, exist_ok=True)
    return settings.database_url


def _log_event(kind: str, fields: Mapping[str, object]) -> None:
    _log.info("event", kind=kind, **fields)


def _log_staging(kind: str, fields: Mapping[str, object]) -> None:
    """What the staging depot tells; who puts and drops artifacts there says so already."""
    level = logging.WARNING if kind in WORRYING else logging.DEBUG
    _log.log(level, "staging depot", kind=kind, **fields)
