"""Execute: do what a plan says, as far as it goes.

Rules kept here:
- What has begun is never cut off by the next pass: it goes on, its end is noted and counted, and
  the next plan knows that it is under way. So a slow transfer keeps no pass open (F4).
- A sled that is busy is left alone for a little, or as long as it said, and others wait for it no
  more when that is long; one that is full, or an artifact that cannot be got there, is tried again
  later each time, across passes.
- A sled where nothing moves is not waited for by others, and for a while passes nothing on (F4).
- Whatever else goes wrong with a job sets its sled aside, and no other (F4).
- A sled that is ahead makes the database be asked. Only when that has moved on does the pass end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import structlog

from coordinator.replication.job_queue import JobQueue
from coordinator.replication.lanes import Job, Key, key_of
from coordinator.replication.ports import FleetSnapshot
from coordinator.replication.request_log import RequestLog
from coordinator.replication.setbacks import Setbacks
from coordinator.replication.transfers import Transfers
from coordinator.replication.values import Copy, Inventory, Plan, Put
from coordinator.replication.verdict import Kind, Verdict, nonsense
from coordinator.values import Sled
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError

BUSY_S: Final = 1.0
MAX_BUSY: Final = 3
WAITED_FOR_S: Final = 3.0
"""What waits for a sled that is left alone for longer is done otherwise."""
MAX_BUSY_S: Final = 15.0
"""A sled that wants to be left alone for longer is left to a later pass."""
LOOK_S: Final = 5.0
LOOKED_AT: Final = 200
"""Jobs, before others have their turn on the event loop."""
_SET_ASIDE: Final = (Kind.AHEAD, Kind.BEHIND, Kind.UNREACHABLE, Kind.NONSENSE)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What came of a plan.

    Attributes:
        done: puts and copies that succeeded.
        failed: that did not.
        left_out: that were not tried, or not to the end.
        moved_on: the database is at another generation than the plan.
        interrupted: some of it was not begun.
        set_aside: sleds, with what they were set aside for.
    """

    done: int = 0
    failed: int = 0
    left_out: int = 0
    moved_on: bool = False
    interrupted: bool = False
    set_aside: dict[str, Verdict] = field(default_factory=dict)


@dataclass(slots=True)
class _Run:
    """One plan on its way."""

    generation: Generation
    sleds: Mapping[str, Sled]
    queue: JobQueue
    outcome: Outcome = field(default_factory=Outcome)
    busy: Counter[str] = field(default_factory=Counter)
    """How often each sled was left alone since it last took something."""
    left_alone_until_s: dict[str, float] = field(default_factory=dict)
    copies_asked: int = 0
    """Copies of which it is not known yet whether they begin."""
    interrupted: bool = False
    error: Exception | None = None
    """What one of its jobs could not be done for, other than by its sled's fault."""


class Executor:
    """Does plans, one after the other; an async context manager that owns what is under way.

    Args:
        read_generation: reads it from the database.
        on_late: called when something succeeded that an earlier plan had begun.

    Attributes:
        setbacks: what went wrong in this plan and those before.
    """

    def __init__(
        self,
        transfers: Transfers,
        log: RequestLog,
        read_generation: Callable[[], Awaitable[Generation]],
        *,
        max_concurrent: int,
        on_late: Callable[[], None] = lambda: None,
    ) -> None:
        self._transfers = transfers
        self._log = log
        self.setbacks = Setbacks()
        self._read_generation = read_generation
        self._on_late = on_late
        self._max_copies_asked = max_concurrent
        # One slot is left for what takes no time.
        self._max_puts = max(1, max_concurrent - 1)
        self._puts = 0
        self._under_way: dict[Key, asyncio.Task[None]] = {}
        self._came: set[Key] = set()
        self._run: _Run | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Nothing runs yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of what is under way: puts break off, copies go on without being watched."""
        await self._cancel(list(self._under_way))

    def arriving(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What is under way to each sled."""
        return _by_sled(self._under_way)

    def paces(self) -> Mapping[str, float]:
        """By sled, bytes per second of its fastest copies not long ago."""
        return dict(self._transfers.paces)

    def came(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What has come to each sled since the plan that is being done was made."""
        return _by_sled(self._came)

    def interrupt(self) -> None:
        """Begin nothing more of the plan that is being done; `run` returns soon."""
        if self._run is not None:
            self._run.interrupted = True
            self._changed.set()

    async def keep_only(self, sleds: Collection[str]) -> None:
        """Break off everything that is under way to other sleds."""
        await self._cancel([key for key in self._under_way if key[1] not in sleds])

    async def run(self, plan: Plan, snapshot: FleetSnapshot, inventory: Inventory) -> Outcome:
        """Do a plan until nothing of it can go on, or it is interrupted.

        Raises:
            DatabaseUnavailable: the generation could not be read when that was needed.
        """
        self.setbacks.see(inventory)
        self._came.clear()
        queue = JobQueue(plan, inventory)
        sleds = {sled.id: sled for sled in snapshot.sleds}
        run = self._run = _Run(plan.generation, sleds, queue)
        try:
            while True:
                await self._begin_what_can(run)
                if run.interrupted or queue.is_done:
                    break
                await self._wait()
                self._look_for_slow_sleds(run)
                if run.error is not None:
                    raise run.error
        finally:
            self._run = None
        run.outcome.left_out += queue.left_out
        run.outcome.interrupted = not queue.is_done
        return run.outcome

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(LOOK_S):
                await self._changed.wait()
        except TimeoutError:
            return

    def _look_for_slow_sleds(self, run: _Run) -> None:
        for sled_id in self.setbacks.standing_still(sled_id for _, sled_id in self._under_way):
            run.queue.wait_no_more_for(sled_id)

    # ---- beginning

    async def _begin_what_can(self, run: _Run) -> None:
        while not run.interrupted:
            self._begin_some(run)
            if not run.queue.is_behind:
                return
            run.queue.step()
            await asyncio.sleep(0)  # a plan of a million copies keeps nobody waiting

    def _begin_some(self, run: _Run) -> None:
        # What cannot begin now is left out, which costs time, too, and has the queue be behind.
        for _ in range(LOOKED_AT):
            if self._puts >= self._max_puts or (put := run.queue.next_put()) is None:
                break
            self._begin(run, put)
        for _ in range(LOOKED_AT):
            if run.copies_asked >= self._max_copies_asked:
                break
            if (copy := run.queue.next_copy()) is None:
                break
            self._begin(run, copy)

    def _begin(self, run: _Run, planned: Job) -> None:
        key, job = key_of(planned), self.setbacks.due(planned)
        if job is None or key in self._under_way:
            self._log.deferred()
            run.outcome.left_out += 1
            run.queue.leave_out(planned)
            return
        self.setbacks.moved(job.target)
        if isinstance(job, Put):
            self._puts += 1
            work = self._send(run, job)
        else:
            run.copies_asked += 1
            work = self._fetch(run, job)
        task = asyncio.create_task(work, name=f"{job.target} gets {job.artifact}")
        self._under_way[key] = task
        task.add_done_callback(lambda ended: self._gone(run, key, ended))

    def _gone(self, run: _Run, key: Key, task: asyncio.Task[None]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            run.error = error
            if run is not self._run:  # nobody waits for that plan; a later one is another matter
                _log.warning(
                    "a job of an earlier pass failed",
                    sled=key[1],
                    error=str(error),
                    exc_info=None if isinstance(error, DepotError) else error,
                )
        self._changed.set()

    async def _cancel(self, keys: Collection[Key]) -> None:
        tasks = [self._under_way[key] for key in keys]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one job

    async def _send(self, run: _Run, put: Put) -> None:
        try:
            verdict = await self._outcome(
                put,
                self._transfers.send(
                    run.sleds[put.target],
                    put.artifact,
                    run.generation,
                    lambda: self._moved(run, put),
                ),
            )
        finally:
            self._puts -= 1
        await self._settle(run, put, verdict)

    async def _fetch(self, run: _Run, copy: Copy) -> None:
        asked, waits = True, False

        def moved() -> None:
            nonlocal asked
            if asked:
                asked = False
                run.copies_asked -= 1
            self._moved(run, copy)

        def is_tried_later(verdict: Verdict) -> bool:
            nonlocal waits
            waits = verdict.kind is Kind.SOURCE and self._waits_for_it(run, copy)
            return waits

        sled, sources = run.sleds[copy.target], [run.sleds[source] for source in copy.sources]
        try:
            verdict = await self._outcome(
                copy,
                self._transfers.fetch(
                    sled, copy.artifact, run.generation, sources, moved, is_tried_later
                ),
            )
        finally:
            if asked:
                run.copies_asked -= 1
        if not waits:
            await self._settle(run, copy, verdict)

    async def _outcome(self, job: Job, work: Awaitable[Verdict | None]) -> Verdict | None:
        """How a job ended, whatever it ended in."""
        try:
            return await work
        except Exception as error:  # A task root: F4 instead of the end of the pass.
            _log.exception("cannot deal with what a sled answers", sled=job.target)
            return nonsense(error)

    def _waits_for_it(self, run: _Run, copy: Copy) -> bool:
        """Whether the source of a relay had nothing to pass on yet, and is waited for now."""
        if run is not self._run or not run.queue.after_its_source(copy):
            return False
        self._under_way.pop(key_of(copy), None)  # it may begin anew before this task has ended
        return True

    def _moved(self, run: _Run, job: Job) -> None:
        self.setbacks.moved(job.target)
        if run is self._run and run.queue.begun(job):
            self._changed.set()

    async def _settle(self, run: _Run, job: Job, verdict: Verdict | None) -> None:
        """Note how a job ended; of a plan that is not being done any more, only for the next."""
        key, current = key_of(job), run is self._run
        if verdict is None:
            # A sled that says it has got it, and then does not list it, is not asked over and over.
            self.setbacks.tried(job)
            self._came.add(key)
            run.busy.pop(job.target, None)
            run.outcome.done += 1
            if current:
                run.queue.succeeded(job)
            else:
                self._on_late()
        elif (
            verdict.kind is Kind.BUSY
            and current
            and self._can_wait(run, job.target, verdict.wait_s)
        ):
            self._put_off(run, job, verdict.wait_s)
        else:
            await self._failed(run, job, verdict)

    def _can_wait(self, run: _Run, sled_id: str, wait_s: float) -> bool:
        left_alone = run.left_alone_until_s.get(sled_id, 0.0) > asyncio.get_running_loop().time()
        return wait_s <= MAX_BUSY_S and (left_alone or run.busy[sled_id] < MAX_BUSY)

    def _put_off(self, run: _Run, job: Job, wait_s: float) -> None:
        loop, sled_id = asyncio.get_running_loop(), job.target
        if run.left_alone_until_s.get(sled_id, 0.0) <= loop.time():
            wait_s = max(wait_s, BUSY_S * 2 ** run.busy[sled_id])
            run.busy[sled_id] += 1
            run.left_alone_until_s[sled_id] = loop.time() + wait_s
        run.queue.put_off(job)
        if wait_s >= WAITED_FOR_S:
            run.queue.wait_no_more_for(sled_id)
        loop.call_at(run.left_alone_until_s[sled_id], self._again, run, job)

    def _again(self, run: _Run, job: Job) -> None:
        if run is self._run:
            run.queue.again(job)
            self._changed.set()

    async def _failed(self, run: _Run, job: Job, verdict: Verdict) -> None:
        if verdict.kind is Kind.FULL:
            self.setbacks.full(job, verdict.reason)
        elif verdict.kind not in _SET_ASIDE:
            self.setbacks.tried(job)
        if verdict.kind is Kind.UNREACHABLE:
            self.setbacks.unanswered(job)
        if verdict.wait_s:
            self.setbacks.wait(job, verdict.wait_s)
        run.outcome.failed += 1
        moved_on = verdict.kind is Kind.AHEAD and await self._has_moved_on(run)
        if run is not self._run:
            return
        run.queue.failed(job)
        if moved_on:
            run.outcome.moved_on = True
            self.interrupt()
        elif verdict.kind in _SET_ASIDE:
            run.outcome.set_aside[job.target] = verdict
            run.queue.set_aside(job.target)

    async def _has_moved_on(self, run: _Run) -> bool:
        return run is self._run and await self._read_generation() != run.generation


def _by_sled(keys: Iterable[Key]) -> Mapping[str, frozenset[ArtifactHash]]:
    found: defaultdict[str, set[ArtifactHash]] = defaultdict(set)
    for artifact, sled_id in keys:
        found[sled_id].add(artifact)
    return {sled_id: frozenset(artifacts) for sled_id, artifacts in found.items()}
