"""The coordinator's figures for Prometheus; how they are exposed is `agent.metrics`'.

What the status document knows is taken from it, so that the two cannot differ. Without the database
there are the figures of this process alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric

from agent.duties import Duties
from agent.loop_lag import Lags
from agent.metrics import PREFIX, Metrics, Values, counter, duty_figures, gauge, loop_lag_figures
from coordinator.errors import DatabaseUnavailable
from coordinator.replication_wire import PassBody, ReplicationBody, StagingBody
from coordinator.snapshots.schedule import Schedule
from coordinator.uploads.desk import UploadDesk
from coordinator.values import ReleaseState, SledState
from coordinator.wire import SledBody
from depot.http.openapi import Endpoint

# Looked up where it may take its time.
VERSION: Final = version("sled-depot")
NOT_ASKED: Final = "not_asked"
EXPUNGED: Final = "expunged"
SLED_STATES: Final = (*(state.value for state in SledState), NOT_ASKED, EXPUNGED)


class FleetMetrics:
    """Every figure of one coordinator."""

    def __init__(
        self,
        status: Callable[[], Awaitable[ReplicationBody]],
        desk: UploadDesk,
        duties: Duties,
        lags: Callable[[], Lags],
        snapshots: Schedule | None = None,
    ) -> None:
        self._status = status
        self._desk = desk
        self._duties = duties
        self._lags = lags
        self._snapshots = snapshots
        self._found: ReplicationBody | None = None
        self._ended: PassBody | None = None
        self._metrics = Metrics(self._figures)

    def watch(self, app: web.Application, table: Iterable[Endpoint]) -> None:
        """Count what `app` answers. Call it before the app is served."""
        self._metrics.watch(app, "coordinator", table)

    async def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        try:
            self._found = await self._status()
        except DatabaseUnavailable:
            self._found = None
        return self._metrics.render()

    def _figures(self) -> Iterator[Metric]:
        found = self._found
        yield labelled("coordinator_info", "Always 1; the label tells.", "version", {VERSION: 1})
        yield gauge("database_up", "0 while the database cannot be used.", int(found is not None))
        yield gauge("uploads_running", "Uploads and imports under way.", self._desk.running)
        moved: Values = {(): self._desk.moved.count_bytes}
        yield counter("uploads_moved_bytes", "Received, verified and staged.", (), moved)
        if found is not None:
            yield from fleet_figures(found)
            if found.last_pass.ended is not None:  # while the next one runs, it is the last still
                self._ended = found.last_pass
            yield from pass_figures(found.last_pass, self._ended)
            yield from staging_figures(found.staging)
        if self._snapshots is not None and self._snapshots.published_at_s is not None:
            at_s = self._snapshots.published_at_s
            yield gauge(
                "snapshot_published_timestamp_seconds",
                "When a coordinator last published one of the database, Unix time.",
                at_s,
            )
        yield from duty_figures(self._duties.snapshot())
        yield from loop_lag_figures(self._lags())


def fleet_figures(found: ReplicationBody) -> Iterator[Metric]:
    """Figures of the fleet, which every coordinator of it has."""
    yield gauge("fleet_generation", "Of the wanted set.", found.generation)
    sleds = Counter(map(_state_of, found.sleds))
    yield labelled("fleet_sleds", "Sleds.", "state", {state: sleds[state] for state in SLED_STATES})
    artifacts = found.artifacts.model_dump()
    yield labelled("fleet_artifacts", "Artifacts, each counted once.", "state", artifacts)
    releases = Counter(release.state for release in found.releases)
    by_state = {state.value: releases[state.value] for state in ReleaseState}
    yield labelled("fleet_releases", "Releases.", "state", by_state)
    lifetime = found.requests.lifetime
    requests: Values = {
        (kind, result): count
        for name, count in lifetime.items()
        for kind, _, result in [name.rpartition("_")]
        if kind
    }
    yield counter(
        "fleet_requests", "Requests to sleds, of all coordinators.", ("kind", "result"), requests
    )
    put_off: Values = {(): lifetime.get("deferred", 0)}
    yield counter("fleet_requests_deferred", "Put off by sleds; repeated.", (), put_off)
    yield gauge("coordinator_quiescing", "1 when no uploads are taken.", int(found.quiescing))
    yield gauge("coordinator_warnings", "Warnings in the status.", len(found.warnings))


def pass_figures(last: PassBody, ended: PassBody | None) -> Iterator[Metric]:
    """Figures of the pass that runs, or the last one, and of the last one that `ended`."""
    yield counter("passes", "Begun since the coordinator started.", (), {(): last.passes})
    yield gauge("pass_running", "1 while one runs.", int(last.running))
    yield gauge("pass_failed", "1 when it ended before its time.", int(last.error is not None))
    if ended is not None and ended.began is not None and ended.ended is not None:
        took_s = (ended.ended - ended.began).total_seconds()
        yield gauge("pass_duration_seconds", "Of the last one that ended.", took_s)
        ended_s = ended.ended.timestamp()
        yield gauge("pass_ended_timestamp_seconds", "When it did, Unix time.", ended_s)


def staging_figures(staging: StagingBody) -> Iterator[Metric]:
    """Figures of this coordinator's staging depot."""
    yield gauge("staging_healthy", "1 when in use.", int(staging.state == "healthy"))
    yield gauge("staging_artifacts", "Artifacts staged here.", staging.artifacts)
    yield gauge("staging_only_here", "Of these, wanted and nowhere else.", staging.only_here)
    yield gauge("staging_used_bytes", "What they take.", staging.used_bytes)
    yield gauge("staging_quota_bytes", "What may be used.", staging.quota_bytes)


def labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    """A figure for each value of one label."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _state_of(sled: SledBody) -> str:
    return EXPUNGED if sled.policy == "expunged" else sled.state or NOT_ASKED
