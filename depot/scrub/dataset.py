"""Verifying the copies of one dataset, pass after pass, the one not verified for longest first.

That order is the cursor: what was verified is in the records, so a pass that a restart, a pause or
an absence of the dataset interrupts goes on where it was. One copy is read at a time, at the rate
that `depot.scrub.pace` allows; a copy that is being read when the pass is interrupted is read
again from its start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import merge
from typing import Final

import structlog

from depot.artifact import ArtifactHash
from depot.concurrency.foreground import Foreground, Signal
from depot.concurrency.unhurried import leisurely
from depot.errors import DatasetUnusable
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.verify import Verdict, judge_copy
from depot.scrub.copy_records import CopyRecords
from depot.scrub.pace import ScrubPace, condensed
from depot.scrub.pause import Pause
from depot.scrub.report import (
    DatasetScrub,
    DatasetScrubState,
    ScrubPass,
    decode_passes,
    encode_passes,
)
from depot.streams.blocks import BLOCK_SIZE_BYTES

CHECK_S: Final = 60.0
"""How often it is asked whether it is time for a pass, and what rate is due."""
_SAVE_S: Final = 5.0
_WAIT_S: Final = 0.5
# Waiting for less costs more than it brings.
_SHORTEST_WAIT_S: Final = 0.002

_log = structlog.get_logger("depot.scrub")
EventSink = Callable[[str, Mapping[str, object]], None]
_Queued = tuple[float, ArtifactHash, int]
"""A copy that a pass is to verify: its age as a time, its artifact, its size in bytes."""


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
        self._about: str | None = None
        self._meter = _Meter()
        self._going = asyncio.Lock()
        self._in_copy_bytes = 0
        self._verified_bytes = 0
        self._due_rate = 0.0
        self._checked_s = self._saved_s = float("-inf")
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
                await self._context.wake.wait(min(self._check_s(), until_resumed_s))

    async def go_on(self) -> None:
        """Go on with the pass, to its end or to whatever interrupts it."""
        async with self._going:
            await self._go_on()

    async def _go_on(self) -> None:
        await self._restore()
        scrub = self._current
        if scrub is None or not self._may_run():
            return
        # In a thread: it goes through every copy.
        copies = self.mirror.artifacts.rows
        queue, count, left_bytes = await asyncio.to_thread(self._queue, scrub, copies)
        await self._check_due_rate()
        if not self._is_running(scrub):
            return
        self._current = scrub = replace(scrub, copies_left=count, bytes_left=left_bytes)
        self._meter.start(self._rate())
        for _, artifact, size_bytes in queue:
            if not self._is_running(scrub):
                return
            if not await self._judge(artifact, size_bytes):
                return
            await self._save(now=False)
        if self._is_running(scrub):
            await self._finish()

    async def save(self) -> None:
        """Keep how far it is, for a restart."""
        await self._save(now=True)

    # The pacer of a verification

    async def may_read(self) -> bool:
        """Wait for the next step's turn; False when the pass is interrupted."""
        scrub = self._current
        while scrub is not None and self._is_running(scrub):
            await self._check_due_rate()
            wait_s = self._meter.wait_s(self._rate())
            if wait_s < _SHORTEST_WAIT_S:
                return True
            await self._context.foreground.changed.wait(min(wait_s, _WAIT_S))
        return False

    def has_read(self, count_bytes: int) -> None:
        """Count what was read."""
        self._meter.count(count_bytes)
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

    async def _has_turn(self) -> bool:
        if not self._may_run():
            return False
        await self._restore()
        if self._current is None and await self._is_time():
            now_s = self._context.clock()
            since_s = self._context.pace.since_s(self._due_rate, now_s)
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
        await self._check_due_rate()
        return survey.never_verified > 0 or pace.begins(survey.oldest_s, self._due_rate, now_s)

    async def _restore(self) -> None:
        """Take up the pass of the process before, or of this dataset when it was here last."""
        dataset_id = self._dataset_id()
        if dataset_id is None or dataset_id == self._about:
            return
        self._about = dataset_id
        current, self._last = decode_passes(self._context.records.read_note(_note(dataset_id)))
        if self._current is None or not self._current.requested:
            self._current = current

    def _dataset_id(self) -> str | None:
        with suppress(DatasetUnusable):
            return self.mirror.dataset.marker.dataset_id
        return None

    # A pass

    def _queue(
        self, scrub: ScrubPass, copies: Mapping[ArtifactHash, Copy]
    ) -> tuple[Iterator[_Queued], int, int]:
        """The copies that are part of a pass, the oldest first: how many, how many bytes they are.

        Sorted in parts, which are merged as the pass goes on: to sort them all at once would keep
        every thread waiting.
        """
        ages = self._context.records.ages(self.mirror)
        parts = list[list[_Queued]]()
        for some in leisurely(copies.items()):
            part = [
                (ages.get(artifact, 0.0), artifact, copy.size_bytes)
                for artifact, copy in some
                if self._is_part(copy, scrub)
            ]
            parts.append(sorted(part))
        left_bytes = sum(size_bytes for part in parts for _, _, size_bytes in part)
        return merge(*parts), sum(map(len, parts)), left_bytes

    def _is_part(self, copy: Copy, scrub: ScrubPass) -> bool:
        verified_at_s = copy.verified_at_s
        if copy.damaged or verified_at_s is None:
            return not copy.damaged
        return not scrub.since_s <= verified_at_s <= self._context.clock()

    async def _judge(self, artifact: ArtifactHash, queued_bytes: int) -> bool:
        """Verify one copy of the queue; False when the pass was interrupted before its end."""
        scrub = self._current
        assert scrub is not None
        copy = self.mirror.artifacts.get(artifact)
        if copy is None or not self._is_part(copy, scrub):
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
                "scrub found no good copy",
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
        self._checked_s = float("-inf")  # what is due is another matter now
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
        if self._about is None or (not now and time.monotonic() - self._saved_s < _SAVE_S):
            return
        self._saved_s = time.monotonic()
        passes = encode_passes(self._current, self._last)
        await self._context.records.keep_note(_note(self._about), passes)

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
        return self._context.pace.rate(
            self._due_rate,
            requested=self._current is not None and self._current.requested,
            busy=self._context.foreground.busy,
        )

    async def _check_due_rate(self) -> None:
        # All copies are looked at for it, so not at every step, and in a thread.
        if time.monotonic() - self._checked_s < self._check_s():
            return
        self._checked_s = time.monotonic()
        copies = self.mirror.artifacts.rows
        self._due_rate = await asyncio.to_thread(self._due_rate_of, copies)

    def _due_rate_of(self, copies: Mapping[ArtifactHash, Copy]) -> float:
        ages = self._context.records.ages(self.mirror)
        bases_s, sizes_bytes = list[float](), list[int]()
        for some in leisurely(copies.items()):
            sound = [(a, copy.size_bytes) for a, copy in some if not copy.damaged]
            bases_s += [ages.get(artifact, 0.0) for artifact, _ in sound]
            sizes_bytes += [size_bytes for _, size_bytes in sound]
        rate = self._context.pace.due_rate
        return rate(condensed(bases_s, sizes_bytes), self._context.clock())

    def _check_s(self) -> float:
        return min(CHECK_S, self._context.pace.interval_s / 20)

    def _survey(self) -> Survey:
        inventory = self.mirror.inventory
        copies = inventory.undamaged
        return Survey(
            copies=copies,
            never_verified=inventory.never_verified,
            total_bytes=inventory.undamaged_bytes,
            oldest_s=self._context.records.oldest_s(self.mirror) if copies else None,
        )


class _Meter:
    """How many bytes too many were read for the rate, which may change at any time."""

    def __init__(self) -> None:
        self._ahead_bytes = 0.0
        self._looked_s = 0.0

    def start(self, rate: float) -> None:
        """Begin a pass, with a wait for a first block: a busy node may not have a byte to spare."""
        self._ahead_bytes = max(self._ahead_bytes, float(BLOCK_SIZE_BYTES)) if rate else 0.0
        self._looked_s = time.monotonic()

    def count(self, count_bytes: int) -> None:
        """Count bytes that were read."""
        self._ahead_bytes += count_bytes

    def wait_s(self, rate: float) -> float:
        """Return how long to wait at this rate, seen from now."""
        now_s = time.monotonic()
        self._ahead_bytes -= rate * (now_s - self._looked_s)
        # A short burst makes up for waits that took longer than they should have.
        self._ahead_bytes = max(self._ahead_bytes, -rate * 0.05)
        self._looked_s = now_s
        return self._ahead_bytes / rate if rate else float("inf")


def _note(dataset_id: str) -> str:
    return f"scrub {dataset_id}"
