"""Verifying the copies of one dataset, pass after pass, the one not verified for longest first.

That order is the cursor: what was verified is in the records, so a pass that a restart, a pause or
an absence of the dataset interrupts goes on where it was. One copy is read at a time, at the rate
that `depot.scrub.pace` allows; a copy that is being read when the pass is interrupted is read
again from its start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import structlog

from depot.artifact import ArtifactHash
from depot.concurrency.foreground import Foreground, Signal
from depot.dataset.dataset import Dataset
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.verify import Verdict, judge_copy
from depot.scrub.copy_records import CopyRecords
from depot.scrub.kept_passes import KeptPasses
from depot.scrub.pace import ScrubPace
from depot.scrub.pass_queue import PassQueue, is_part, queue_of
from depot.scrub.pause import Pause
from depot.scrub.report import DatasetScrub, DatasetScrubState, ScrubPass
from depot.scrub.throttle import CHECK_S, Throttle

_log = structlog.get_logger("depot.scrub")
EventSink = Callable[[str, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubContext:
    """What the scrubs of all datasets share.

    Attributes:
        wake: given when there may be something to do.
        on_damage: called when a bad copy was found.
        is_wanted: whether an artifact is to be here; what is not may go at any time.
        clock: Unix time in seconds.
    """

    records: CopyRecords
    pace: ScrubPace
    foreground: Foreground
    pause: Pause
    wake: Signal
    on_event: EventSink
    on_damage: Callable[[], None]
    is_wanted: Callable[[ArtifactHash], bool]
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Survey:
    """The copies of a dataset that can be verified: how many, how old, how large."""

    copies: int = 0
    never_verified: int = 0
    total_bytes: int = 0
    oldest_s: float | None = None


class DatasetScrubber:
    """The scrub of one dataset; `mirrors` get the block digests that turn out to be missing."""

    def __init__(self, mirror: Mirror, mirrors: Collection[Mirror], context: ScrubContext) -> None:
        self.mirror = mirror
        self._mirrors = mirrors
        self._context = context
        self._current: ScrubPass | None = None
        self._last: ScrubPass | None = None
        self._kept = KeptPasses(mirror, context.records)
        self._throttle = Throttle(
            mirror,
            records=context.records,
            pace=context.pace,
            foreground=context.foreground,
            clock=context.clock,
        )
        self._going = asyncio.Lock()
        self._in_copy_bytes = 0
        self._verified_bytes = 0
        self._surveyed: tuple[int, Survey] = (-1, Survey())

    # What others ask for

    def request(self) -> None:
        """Have every copy verified from now on; joins a pass that was asked for already."""
        if self._current is None or not self._current.requested:
            now_s = self._context.clock()
            self._current = ScrubPass(started_at_s=now_s, since_s=now_s, requested=True)

    @property
    def last(self) -> ScrubPass | None:
        """The last pass that ended."""
        return self._last

    def status(self) -> DatasetScrub:
        """How it is, from memory."""
        survey, tally = self.survey(), self._context.records.tally(self.mirror)
        age_s = None
        if survey.oldest_s is not None:
            age_s = max(0.0, self._context.clock() - survey.oldest_s)
        return DatasetScrub(
            dataset=str(self.mirror.path),
            state=self._state(),
            rate_bytes_per_s=self._rate() if self._state() == "running" else 0.0,
            current=self._shown(),
            last=self._last,
            oldest_age_s=age_s,
            never_verified=survey.never_verified,
            copies=survey.copies,
            total_bytes=survey.total_bytes,
            verified_bytes=self._verified_bytes,
            bad_found=tally.found,
            healed=tally.healed,
            heal_s=tally.heal_s,
            last_heal_s=tally.last_heal_s,
            waiting=len(self._context.records.findings(self.mirror)),
        )

    def survey(self) -> Survey:
        """Look at all copies; kept until one changes."""
        revision = self.mirror.revision
        if self._surveyed[0] != revision:
            self._surveyed = (revision, self._survey())
        return self._surveyed[1]

    # The duty

    async def run(self) -> None:
        """Make a pass whenever it is time or one is asked for, until cancelled."""
        while True:
            if await self._has_turn():
                await self.go_on()
            else:
                until_resumed_s = self._context.pause.left_s or CHECK_S
                await self._context.wake.wait(min(self._throttle.check_s, until_resumed_s))

    async def go_on(self) -> None:
        """Go on with the pass, to its end or to whatever interrupts it."""
        async with self._going:
            await self._go_on()

    async def _go_on(self) -> None:
        await self._restore()
        scrub = self._current
        if scrub is None or not self._may_run():
            return
        dataset = self.mirror.dataset
        # In a thread: it goes through every copy.
        queue = await asyncio.to_thread(self._queue, scrub, self.mirror.artifacts.rows)
        await self._throttle.check()
        if not self._runs_on(dataset, scrub):
            return
        scrub = replace(scrub, copies_left=queue.count, bytes_left=queue.total_bytes)
        self._current = scrub
        self._throttle.start(requested=scrub.requested)
        for artifact, size_bytes in queue.copies:
            if not self._runs_on(dataset, scrub):
                return
            if not await self._judge(artifact, size_bytes):
                return
            await self._save(now=False)
        if self._runs_on(dataset, scrub):
            await self._finish()

    async def save(self) -> None:
        """Keep how far it is, for a restart."""
        await self._save(now=True)

    # The pacer of a verification

    async def may_read(self) -> bool:
        """Wait for the next step's turn; False when the pass is interrupted."""
        scrub = self._current
        while scrub is not None and self._is_running(scrub):
            await self._throttle.check()
            if await self._throttle.has_turn(requested=self._is_requested()):
                return True
        return False

    def has_read(self, count_bytes: int) -> None:
        """Count what was read."""
        self._throttle.count(count_bytes)
        self._in_copy_bytes += count_bytes
        self._verified_bytes += count_bytes

    # Turns

    def _state(self) -> DatasetScrubState:
        if not self.mirror.healthy:
            return "skipped"
        if self._context.pause.left_s:
            return "paused"
        return "idle" if self._current is None else "running"

    def _may_run(self) -> bool:
        return self.mirror.healthy and not self._context.pause.left_s

    def _is_current(self, scrub: ScrubPass) -> bool:
        # Another pass may have been asked for: it begins with the copies that this one has read.
        current = self._current
        if current is None or current.started_at_s != scrub.started_at_s:
            return False
        return current.requested == scrub.requested

    def _is_running(self, scrub: ScrubPass) -> bool:
        return self._is_current(scrub) and self._may_run()

    def _runs_on(self, dataset: Dataset, scrub: ScrubPass) -> bool:
        # Another one in its slot has a queue, and a pass, of its own.
        return self._is_running(scrub) and self.mirror.dataset is dataset

    async def _has_turn(self) -> bool:
        if not self._may_run():
            return False
        await self._restore()
        if self._current is None and await self._is_time():
            now_s = self._context.clock()
            since_s = self._context.pace.since_s(self._throttle.due_rate, now_s)
            self._current = ScrubPass(started_at_s=now_s, since_s=since_s)
        return self._current is not None

    async def _is_time(self) -> bool:
        pace, now_s = self._context.pace, self._context.clock()
        # The absolute distance: a clock that was set back must not put the next pass off.
        if self._last and abs(now_s - (self._last.finished_at_s or 0.0)) < pace.rest_s():
            return False
        survey = self.survey()
        if survey.oldest_s is None:
            return False
        await self._throttle.check()
        due_rate = self._throttle.due_rate
        return survey.never_verified > 0 or pace.begins(survey.oldest_s, due_rate, now_s)

    async def _restore(self) -> None:
        """Take up the pass of the process before, or of this dataset when it was here last."""
        kept = self._kept.take_up()
        if kept is None:
            return
        current, self._last = kept
        if self._current is None or not self._current.requested:
            self._current = current

    # A pass

    def _queue(self, scrub: ScrubPass, copies: Mapping[ArtifactHash, Copy]) -> PassQueue:
        ages = self._context.records.ages(self.mirror)
        return queue_of(scrub, copies, ages, self._context.clock())

    async def _judge(self, artifact: ArtifactHash, queued_bytes: int) -> bool:
        """Verify one copy of the queue; False when the pass was interrupted before its end."""
        scrub = self._current
        assert scrub is not None
        copy = self.mirror.artifacts.get(artifact)
        if copy is None or not is_part(copy, scrub, self._context.clock()):
            self._count(queued_bytes, Verdict.GONE)
            return True
        self._in_copy_bytes = 0
        verdict = await judge_copy(self.mirror, artifact, self, self._mirrors)
        if not self._is_current(scrub):
            return False
        if verdict is Verdict.UNKNOWN and not self._may_run():
            return False  # it is read again
        # A copy that nobody wants may be gone because it was just deleted.
        bad = verdict is Verdict.BAD or (
            verdict is Verdict.GONE and self._context.is_wanted(artifact)
        )
        self._count(queued_bytes, verdict, bad=bad)
        if bad:
            _log.warning(
                "scrub found a bad copy",
                sha256=str(artifact),
                dataset=str(self.mirror.path),
                found="damaged" if verdict is Verdict.BAD else "gone",
            )
            self._context.on_damage()
            await self._context.records.flush((self.mirror,))
        return True

    def _count(self, queued_bytes: int, verdict: Verdict, *, bad: bool = False) -> None:
        scrub = self._current
        assert scrub is not None
        judged = verdict in (Verdict.GOOD, Verdict.BAD)
        self._current = replace(
            scrub,
            copies=scrub.copies + judged,
            bytes_done=scrub.bytes_done + self._in_copy_bytes * judged,
            bad=scrub.bad + bad,
            copies_left=scrub.copies_left - 1,
            bytes_left=scrub.bytes_left - queued_bytes,
        )
        self._in_copy_bytes = 0

    async def _finish(self) -> None:
        scrub, self._current = self._current, None
        assert scrub is not None
        done = replace(scrub, finished_at_s=self._context.clock(), copies_left=0, bytes_left=0)
        self._last = done
        self._throttle.check_anew()  # what is due is another matter now
        self._context.on_event(
            "scrub_finished",
            {
                "dataset": str(self.mirror.path),
                "copies": done.copies,
                "bytes": done.bytes_done,
                "bad": done.bad,
                "seconds": round(done.seconds, 3),
                "requested": done.requested,
            },
        )
        await self._save(now=True)

    async def _save(self, *, now: bool) -> None:
        await self._kept.keep(self._current, self._last, now=now)

    def _shown(self) -> ScrubPass | None:
        scrub = self._current
        if scrub is None:
            return None
        in_copy = min(self._in_copy_bytes, scrub.bytes_left)
        return replace(
            scrub,
            bytes_done=scrub.bytes_done + in_copy,
            bytes_left=scrub.bytes_left - in_copy,
        )

    # The rate

    def _rate(self) -> float:
        return self._throttle.rate(requested=self._is_requested())

    def _is_requested(self) -> bool:
        return self._current is not None and self._current.requested

    def _survey(self) -> Survey:
        inventory = self.mirror.inventory
        copies = inventory.undamaged
        return Survey(
            copies=copies,
            never_verified=inventory.never_verified,
            total_bytes=inventory.undamaged_bytes,
            oldest_s=self._context.records.oldest_s(self.mirror) if copies else None,
        )
