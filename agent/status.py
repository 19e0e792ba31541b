"""The status document: the store, the copies, the events, the duties and the node in one.

Composing it waits for nothing: each part hands out what it knows already. What an operator must
act on is repeated in words under `warnings`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from agent.copies.record import CopyRecord
from agent.duties import Duties, DutyState
from agent.events import EventLog, EventLogHealth
from agent.node import NodeSample, NodeSampler
from agent.scrubbing import scrub_body
from agent.sizes import size
from agent.wire.artifacts import ArtifactsBody
from agent.wire.datasets import DatasetBody
from agent.wire.fields import timestamp
from agent.wire.healing import HealingBody
from agent.wire.node import DiskBody, NodeBody, ProcessBody
from agent.wire.status import CopyCountsBody, DutyBody, EventLogBody, RelayBody, StatusBody
from depot.artifact import ArtifactHash
from depot.healing.progress import HealingStatus
from depot.store_status import DatasetStatus, StoreStatus
from depot.writing.arriving import RelayStatus

# A sled that lost one of its datasets lacks a copy of everything: the count says it all.
MAX_ARTIFACTS_NAMED: Final = 100
MAX_WARNINGS: Final = 100


class HasStatus(Protocol):
    """What is asked of the store."""

    def status(self) -> StoreStatus:
        """How the store is."""


class HasCopies(Protocol):
    """What is asked of the copies."""

    def list(self) -> tuple[CopyRecord, ...]:
        """Running and recent copies."""


class StatusSource:
    """Composes the status document whenever it is asked for."""

    def __init__(
        self,
        *,
        version: str,
        store: HasStatus,
        copies: HasCopies,
        events: EventLog,
        duties: Duties,
        node: NodeSampler,
        relays: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version = version
        self._store = store
        self._copies = copies
        self._events = events
        self._duties = duties
        self._node = node
        self._relays = relays
        self._clock = clock
        self._started_s = clock()

    def read(self) -> StatusBody:
        """The document as of now."""
        store, events, duties = self._store.status(), self._events.health(), self._duties.snapshot()
        node, copies = self._node.latest(), self._copies.list()
        return StatusBody(
            sled_id=store.sled_id,
            version=self._version,
            uptime_s=self._clock() - self._started_s,
            ledger=store.ledger,
            ledger_epoch=store.epoch,
            generation=store.generation,
            generation_certain=store.generation_certain,
            config_digest=store.config_digest,
            datasets=tuple(map(dataset_body, store.datasets)),
            under_replicated=artifacts_body(store.under_replicated),
            missing=artifacts_body(store.missing),
            deletions_held_until=held_until(store.deletions_held_until_s, time.time()),
            healing=healing_body(store.healing),
            relay=relay_body(store.relay, offered=self._relays),
            puts_running=store.puts_running,
            copies=copy_counts(copies),
            events=event_log_body(events),
            duties=tuple(map(duty_body, duties)),
            scrub=scrub_body(store.scrub) if store.scrub else None,
            node=node_body(node) if node else None,
            warnings=bounded((*warnings(store, events, duties), *does_not_fit(store, copies))),
        )

    def reasons_not_ready(self) -> tuple[str, ...]:
        """Why this sled cannot take and serve artifacts; empty when it can."""
        return tuple(reasons_not_ready(self._store.status()))


def reasons_not_ready(store: StoreStatus) -> Iterator[str]:
    """Judge readiness. A sled without a config is ready: it waits for one."""
    if not any(dataset.state == "healthy" for dataset in store.datasets):
        yield "no healthy dataset"
    if store.ledger == "conflicted":
        yield "the datasets have different configs of the same generation; push a higher one"
    if store.ledger == "unknown":
        yield "no ledger can be read, and a dataset that may have one is away"


def warnings(
    store: StoreStatus, events: EventLogHealth, duties: Sequence[DutyState]
) -> Iterator[str]:
    """What an operator must act on, in words."""
    yield from store.warnings
    if not events.persistent:
        yield f"events are kept in memory only: {events.last_error}"
    elif events.last_error:
        yield events.last_error
    for duty in duties:
        if duty.failing:
            yield f"{duty.name} keeps failing ({duty.failures} times): {duty.last_error}"


def does_not_fit(store: StoreStatus, copies: Iterable[CopyRecord]) -> Iterator[str]:
    """What is missing for want of room, as far as copies of it found out how large it is."""
    last = {copy.sha256: copy for copy in copies}
    healthy = (each.available_bytes for each in store.datasets if each.state == "healthy")
    room_bytes = max(healthy, default=None)
    if room_bytes is None:
        return  # then room is not what is wanted
    large = {
        sha256: copy.bytes_total
        for sha256, copy in last.items()
        if copy.state == "failed" and copy.bytes_total is not None and copy.bytes_total > room_bytes
    }
    if sizes := [large[sha256] for sha256 in store.missing if sha256 in large] if large else []:
        one = len(sizes) == 1
        yield (
            f"{len(sizes)} missing {'artifact does' if one else 'artifacts do'} not fit: "
            f"{'it' if one else 'the largest'} needs {size(max(sizes))}, and no dataset has more "
            f"than {size(room_bytes)} free; raise storage.quota (or what the disk has), or drop "
            "artifacts from the config"
        )


def bounded(said: Sequence[str]) -> tuple[str, ...]:
    """The first warnings, and how many more there are: one trouble can have thousands (S1)."""
    more = len(said) - MAX_WARNINGS
    return tuple(said) if more <= 0 else (*said[:MAX_WARNINGS], f"and {more} more")


def dataset_body(dataset: DatasetStatus) -> DatasetBody:
    """Render one dataset."""
    return DatasetBody(
        path=dataset.path,
        dataset_id=dataset.dataset_id,
        device=dataset.device,
        mounted=dataset.mounted,
        state=dataset.state,
        full=dataset.full,
        last_error=dataset.last_error,
        quota_bytes=dataset.quota_bytes,
        used_bytes=dataset.used_bytes,
        reserved_bytes=dataset.reserved_bytes,
        available_bytes=dataset.available_bytes,
        artifacts=dataset.artifacts,
        quarantined=dataset.quarantined,
        quarantined_bytes=dataset.quarantined_bytes,
        in_doubt=dataset.in_doubt,
        worker_pid=dataset.worker_pid,
        worker_hangs=dataset.worker_hangs,
        left_behind=dataset.left_behind,
    )


def artifacts_body(artifacts: Sequence[ArtifactHash]) -> ArtifactsBody:
    """Count artifacts and name the first ones."""
    named = artifacts[:MAX_ARTIFACTS_NAMED]
    return ArtifactsBody(count=len(artifacts), artifacts=tuple(map(str, named)))


def healing_body(healing: HealingStatus) -> HealingBody:
    """Render how far healing is."""
    return HealingBody(
        todo=healing.todo,
        todo_bytes=healing.todo_bytes,
        healed=healing.healed,
        heal_seconds=healing.heal_seconds,
        failed=healing.failed,
        current=None if healing.current is None else str(healing.current),
        lost=artifacts_body(healing.lost),
    )


def relay_body(relay: RelayStatus, *, offered: bool) -> RelayBody:
    """Render how much is served of what arrives."""
    return RelayBody(
        offered=offered,
        arriving=relay.arriving,
        readers=relay.readers,
        sent_bytes=relay.sent_bytes,
    )


def held_until(until_s: float, now_s: float) -> datetime | None:
    """When deletions may begin, if that is still to come; both in Unix time."""
    return timestamp(until_s) if until_s > now_s else None


def copy_counts(copies: Iterable[CopyRecord]) -> CopyCountsBody:
    """Count copies by state."""
    states = Counter(copy.state for copy in copies)
    return CopyCountsBody(
        running=states["running"],
        succeeded=states["succeeded"],
        failed=states["failed"],
        superseded=states["superseded"],
    )


def event_log_body(events: EventLogHealth) -> EventLogBody:
    """Render how the event log is."""
    return EventLogBody(
        epoch=events.epoch,
        oldest=events.oldest,
        latest=events.latest,
        persistent=events.persistent,
        dropped=events.dropped,
        last_error=events.last_error,
    )


def duty_body(duty: DutyState) -> DutyBody:
    """Render one background duty."""
    return DutyBody(
        name=duty.name,
        failing=duty.failing,
        failures=duty.failures,
        last_error=duty.last_error,
        last_failed_at=timestamp(duty.last_failed_at),
    )


def node_body(sample: NodeSample) -> NodeBody:
    """Render a sample of the node."""
    machine = sample.machine
    load_1m, load_5m, load_15m = machine.load
    return NodeBody(
        sampled_at=timestamp(sample.sampled_at),
        cpu_count=machine.cpu_count,
        cpu_percent=machine.cpu_percent,
        load_1m=load_1m,
        load_5m=load_5m,
        load_15m=load_15m,
        memory_total_bytes=machine.memory_total_bytes,
        memory_available_bytes=machine.memory_available_bytes,
        process=ProcessBody(
            rss_bytes=machine.process.rss_bytes,
            open_files=machine.process.open_files,
            threads=machine.process.threads,
            cpu_percent=machine.process.cpu_percent,
        ),
        disks=tuple(
            DiskBody(
                dataset=disk.dataset,
                device=disk.device,
                total_bytes=disk.total_bytes,
                free_bytes=disk.free_bytes,
                error=disk.error,
            )
            for disk in sample.disks
        ),
    )
