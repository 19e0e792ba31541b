"""The pass: read the database, collect, plan, execute, write down; again and again.

Rules kept here:
- When the database has moved on, the pass ends and another begins.
- A pass ends at the latest when its period is over, or soon after somebody had a reason to wake
  it; what is under way goes on meanwhile (F4).
- A release is marked incomplete only when every sled has said, since the database was read, that
  it has not got the artifact.
- A sled that keeps changing its mind about what it has pinned raises the generation less and less
  often.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from coordinator.errors import DatabaseUnavailable
from coordinator.replication.collect import Collector
from coordinator.replication.execute import Executor, Outcome
from coordinator.replication.letting_go import LettingGo
from coordinator.replication.pacing import Ending, Pacing
from coordinator.replication.ports import AsOf, FleetSnapshot, Records, Staging
from coordinator.replication.report import SledReport
from coordinator.replication.reporting import Reporting
from coordinator.replication.stock import take_stock
from coordinator.replication.values import Inventory, Plan, Policy
from coordinator.replication.verdict import Kind
from depot.artifact import ArtifactHash
from depot.concurrency.backoff import Backoff
from depot.errors import DepotError

LEAST_RUN_S: Final = 1.0
"""A plan has so long before a reason for another pass interrupts it."""
IN_THREAD: Final = 20_000
"""Replicas from which on working out a plan would keep everything else waiting."""

_log = structlog.get_logger(__name__)


class Planner(Protocol):
    """`coordinator.replication.plan.plan`."""

    def __call__(self, inventory: Inventory, policy: Policy, rng: random.Random, /) -> Plan:
        """What is to be done so that every sled holds what is wanted."""


class Cycle:
    """Makes passes. `collector` and `executor` are entered by whoever composes them.

    Attributes:
        reporting: what the passes found out.
    """

    def __init__(
        self,
        *,
        records: Records,
        staging: Staging,
        collector: Collector,
        executor: Executor,
        planner: Planner,
        policy: Policy,
        reporting: Reporting,
        pacing: Pacing,
        rng: random.Random,
    ) -> None:
        self._records = records
        self._staging = staging
        self._collector = collector
        self._executor = executor
        self._planner = planner
        self._policy = policy
        self._pacing = pacing
        self._seed = rng.random()
        self._letting_go = LettingGo(staging, records)
        self._pins: Backoff[str] = Backoff()
        self._lost_at_s: dict[ArtifactHash, float] = {}
        # When the plan that is being done ends at the latest, and at the earliest.
        self._end: asyncio.TimerHandle | None = None
        self._least_end_s = 0.0
        self.reporting = reporting

    def arriving(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What is under way to each sled now."""
        return self._executor.arriving()

    def came(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What has come to each sled since the inventory that `reporting` has."""
        return self._executor.came()

    def no_room(self) -> Mapping[str, Mapping[ArtifactHash, str]]:
        """By sled, what it had no room for when that was last tried, and why."""
        return self._executor.setbacks.no_room()

    def wake(self) -> None:
        """Have a pass begin soon: something changed. One on demand only if one is being made."""
        self._pacing.wake()
        self._make_room()

    def activate(self) -> None:
        """Have a pass begin soon, that also tries what failed before and would be put off."""
        self._executor.setbacks.forget()
        self.go_on()

    def go_on(self) -> None:
        """Have a pass begin soon: an earlier one's work has led to something."""
        self._pacing.activate()
        self._make_room()

    async def run(self) -> None:
        """Make passes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._make_passes(), name="passes")
            group.create_task(self.reporting.keep_flushing(), name="request log")

    async def _make_passes(self) -> None:
        while True:
            await self._pacing.wait()
            self._pacing.ended(await self.once())

    async def once(self) -> Ending:
        """Make one pass."""
        self.reporting.begin()
        error: str | None = None
        try:
            return await self._pass()
        except DatabaseUnavailable as unavailable:
            error = str(unavailable)
            _log.warning("pass ended: the database is unavailable", error=error)
            return Ending.TRY_AGAIN
        finally:
            await self.reporting.end(error)

    # ---- one pass

    async def _pass(self) -> Ending:
        as_of = AsOf(asyncio.get_running_loop().time(), self._staging.moment())
        await self._write_staged()
        snapshot = await self._records.snapshot()
        # After the database: what it has of this coordinator's uploads was staged before.
        staged = self._held()
        await self._executor.keep_only({sled.id for sled in snapshot.sleds})
        reports = await self._collector.collect(snapshot, as_of)
        if await self._has_moved_on(snapshot, reports):
            return Ending.GOES_ON
        self.reporting.collected(reports)
        kept = await self._keep_pins(snapshot, reports)
        inventory, plan = await self._plan(snapshot, reports, staged)
        self.reporting.planned(inventory, plan)
        oldest = min((report.as_of for report in reports.values()), default=as_of)
        await self._let_go(plan, oldest)
        await self._mark(snapshot, self._surely_lost(plan, oldest, as_of), plan)
        outcome = await self._execute(plan, snapshot, inventory, soon=kept)
        self.reporting.executed(outcome)
        return self._ending(outcome, reports, again=kept)

    async def _write_staged(self) -> None:
        """Write down what is in staging, unless the disk does not say."""
        try:
            await self._records.write_staged(self._staging.held)
        except DatabaseUnavailable:
            raise
        except DepotError as error:
            _log.error("the staging depot cannot be read", error=str(error))

    def _held(self) -> frozenset[ArtifactHash] | None:
        """What is in staging; None when the disk does not say."""
        try:
            return self._staging.held()
        except DepotError:
            return None

    async def _has_moved_on(
        self, snapshot: FleetSnapshot, reports: Mapping[str, SledReport]
    ) -> bool:
        """Ask the database again when a sled is ahead of what it said, before believing either."""
        kinds = {report.verdict.kind for report in reports.values() if report.verdict is not None}
        if kinds.isdisjoint((Kind.AHEAD, Kind.OTHER_CONTENTS, Kind.LOCAL)):
            return False
        return await self._records.generation() != snapshot.generation

    async def _keep_pins(self, snapshot: FleetSnapshot, reports: Mapping[str, SledReport]) -> bool:
        """Write down what sleds have pinned beyond the releases; whether any of that is new."""
        now_s, new = asyncio.get_running_loop().time(), False
        for sled_id, report in reports.items():
            if report.pinned is None:
                continue
            known = snapshot.kept.get(sled_id, frozenset())
            # What is kept and in a release again makes no difference, and stays (F3).
            if report.pinned & known | report.pinned.difference(snapshot.sizes) == known:
                self._pins.forget(sled_id)
            elif self._pins.is_due(sled_id, now_s):
                self._pins.failed(sled_id, now_s)
                await self._records.keep_pins(sled_id, report.pinned)
                new = True
        return new

    async def _plan(
        self,
        snapshot: FleetSnapshot,
        reports: Mapping[str, SledReport],
        staged: frozenset[ArtifactHash] | None,
    ) -> tuple[Inventory, Plan]:
        # Artifacts that cannot be read now are not lost: they are somewhere, as it were.
        unreadable = snapshot.staged_here if staged is None else frozenset[ArtifactHash]()
        before = self.reporting.inventory
        arriving, slow = self._executor.arriving(), self._executor.setbacks.slow()
        paces = self._executor.paces()

        def work_out() -> tuple[Inventory, Plan]:
            inventory = take_stock(
                snapshot,
                reports,
                staged_here=staged or frozenset(),
                staged_elsewhere=snapshot.staged_elsewhere | unreadable,
                arriving=arriving,
                slow=slow,
                paces=paces,
                before={} if before is None else {sled.id: sled for sled in before.sleds},
            )
            # Passes of one generation go on with each other's chains; the next has other ones.
            rng = random.Random(f"{self._seed} {int(snapshot.generation)}")
            return inventory, self._planner(inventory, self._policy, rng)

        if len(snapshot.sizes) * len(snapshot.sleds) < IN_THREAD:
            return work_out()
        return await asyncio.to_thread(work_out)

    async def _let_go(self, plan: Plan, as_of: AsOf) -> None:
        in_use = frozenset().union(*self._executor.arriving().values())
        try:
            await self._letting_go.let_go(plan, as_of, in_use)
        except DatabaseUnavailable:
            raise
        except DepotError as error:
            _log.error("the staging depot lets go of nothing", error=str(error))

    def _surely_lost(self, plan: Plan, oldest: AsOf, as_of: AsOf) -> frozenset[ArtifactHash]:
        """What every sled has said it has not, since the database said that nobody staged it.

        What a slow sled says can be older than what the database says: then it does not count
        before the sled has said it again.
        """
        self._lost_at_s = {
            artifact: self._lost_at_s.get(artifact, as_of.loop_s)
            for artifact in plan.lost | plan.out_of_reach
        }
        return frozenset(
            artifact for artifact in plan.lost if self._lost_at_s[artifact] <= oldest.loop_s
        )

    async def _mark(
        self, snapshot: FleetSnapshot, lost: frozenset[ArtifactHash], plan: Plan
    ) -> None:
        """Mark the releases that have lost something, and those that have got it back."""
        unknown = plan.lost | plan.out_of_reach
        bad = {version for version, has in snapshot.releases.items() if has & lost}
        good = {version for version, has in snapshot.releases.items() if not has & unknown}
        bad -= snapshot.incomplete
        good &= snapshot.incomplete
        if bad or good:
            _log.info("releases changed", incomplete=sorted(bad), complete=sorted(good))
            await self._records.write_states(
                {version: snapshot.releases[version] & lost for version in bad}, good
            )

    async def _execute(
        self, plan: Plan, snapshot: FleetSnapshot, inventory: Inventory, *, soon: bool
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        limit_s = self._pacing.longest_pass_s
        self._least_end_s = loop.time() + LEAST_RUN_S
        self._end = loop.call_later(max(LEAST_RUN_S, limit_s), self._executor.interrupt)
        if soon or self._pacing.is_due:
            self._make_room()
        try:
            return await self._executor.run(plan, snapshot, inventory)
        finally:
            self._end.cancel()
            self._end = None

    def _make_room(self) -> None:
        """End the plan that is being done, as soon as it has had its time."""
        if self._end is not None and self._end.when() > self._least_end_s:
            self._end.cancel()
            loop = asyncio.get_running_loop()
            self._end = loop.call_at(self._least_end_s, self._executor.interrupt)

    def _ending(
        self, outcome: Outcome, reports: Mapping[str, SledReport], *, again: bool
    ) -> Ending:
        if outcome.done or outcome.moved_on or outcome.interrupted or again:
            return Ending.GOES_ON
        kinds = {report.verdict.kind for report in reports.values() if report.verdict is not None}
        if outcome.failed or outcome.left_out or kinds & {Kind.BEHIND, Kind.LOCAL, Kind.PINNED}:
            return Ending.TRY_AGAIN
        return Ending.SETTLED
