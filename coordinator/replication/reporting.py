"""What the passes found out: for the status, and written down in the database.

A pass that cannot write something down is none the worse for it: it is written with the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from coordinator.errors import DatabaseUnavailable
from coordinator.replication.execute import Outcome
from coordinator.replication.ports import Records
from coordinator.replication.report import SledReport
from coordinator.replication.request_log import RequestLog
from coordinator.replication.values import Inventory, Plan
from coordinator.values import SledSighting, SledState

FLUSH_S: Final = 2.0
LAST_FLUSH_S: Final = 5.0
"""What the end of the process waits for."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """The pass that runs, or the last one. Times are Unix seconds.

    Attributes:
        passes: how many have begun since the coordinator started.
        running: it has not ended yet.
        error: why it ended before its time.
        counts: its requests, by `<operation>_ok`, `<operation>_error` and `deferred`.
        sightings: how each sled fared, by id.
        inventory, plan: of this pass or, before it has come that far, the one before.
        planned: the number of that pass; 0 before there is one.
    """

    passes: int = 0
    running: bool = False
    began_at_s: float | None = None
    ended_at_s: float | None = None
    error: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    sightings: Mapping[str, SledSighting] = field(default_factory=dict)
    inventory: Inventory | None = None
    plan: Plan | None = None
    planned: int = 0


class Reporting:
    """Gathers what the pass that runs finds out."""

    def __init__(
        self, log: RequestLog, records: Records, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._log = log
        self._records = records
        self._clock = clock
        self._passes = self._planned = 0
        self._running = False
        self._began_at_s: float | None = None
        self._ended_at_s: float | None = None
        self._error: str | None = None
        self._sightings: dict[str, SledSighting] = {}
        self._unwritten: dict[str, SledSighting] = {}
        self._flushing = asyncio.Lock()
        self.inventory: Inventory | None = None
        self.plan: Plan | None = None

    def current(self) -> PassReport:
        """How it is now."""
        return PassReport(
            passes=self._passes,
            running=self._running,
            began_at_s=self._began_at_s,
            ended_at_s=self._ended_at_s,
            error=self._error,
            counts=dict(self._log.run),
            sightings=dict(self._sightings),
            inventory=self.inventory,
            plan=self.plan,
            planned=self._planned,
        )

    def begin(self) -> None:
        """A pass begins."""
        self._passes += 1
        self._running = True
        self._began_at_s, self._ended_at_s = self._clock(), None
        self._log.begin_run()

    def collected(self, reports: Mapping[str, SledReport]) -> None:
        """Every sled was asked."""
        self._sightings = {}
        for report in reports.values():
            self._saw(_sighting(report))

    def planned(self, inventory: Inventory, plan: Plan) -> None:
        """It is known what is where, and what is to be done."""
        self.inventory, self.plan = inventory, plan
        self._planned = self._passes

    def executed(self, outcome: Outcome) -> None:
        """The plan was done, as far as that went."""
        for sled_id, verdict in outcome.set_aside.items():
            self._saw(SledSighting(sled_id, verdict.state, verdict.reason))

    async def end(self, error: str | None) -> None:
        """The pass is over; `error` says why before its time."""
        self._error = error
        await self.flush()
        self._running = False
        self._ended_at_s = self._clock()

    async def keep_flushing(self) -> None:
        """Write down every so often, until cancelled: a pass may last, and be asked about."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                if self._unwritten or len(self._log):
                    await self.flush()
        finally:  # the ring outlives this process
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSH_S):
                    await self.flush()

    async def flush(self) -> None:
        """Write down what is not written yet, after what somebody else is writing down."""
        async with self._flushing:
            requests, counts = self._log.take()
            sightings, self._unwritten = self._unwritten, {}
            try:
                await self._records.write_sightings(list(sightings.values()))
                sightings = {}
                await self._records.write_requests(requests, counts)
            except (DatabaseUnavailable, asyncio.CancelledError) as error:
                self._log.put_back(requests, counts)
                self._unwritten = sightings | self._unwritten
                if not isinstance(error, DatabaseUnavailable):
                    raise
                _log.warning("requests are not written down yet", error=str(error))

    def _saw(self, sighting: SledSighting) -> None:
        self._sightings[sighting.sled_id] = self._unwritten[sighting.sled_id] = sighting


def _sighting(report: SledReport) -> SledSighting:
    verdict = report.verdict
    return SledSighting(
        sled_id=report.sled_id,
        state=SledState.OK if verdict is None else verdict.state,
        error=None if verdict is None else verdict.reason,
        seen_at_s=report.seen_at_s,
        generation=report.generation,
    )
