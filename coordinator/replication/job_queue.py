"""Which put or copy may begin next: what waits for what, and whose turn it is. Nothing waits here.

Rules kept here:
- No sled has more than its share under way at once, and sleds take turns: one that is slow keeps
  its own jobs waiting and nobody else's (F4).
- A copy begins when what it waits for has begun, or has succeeded. When that failed, it begins with
  those of its sources that have the artifact. Where none has, but this coordinator's staging, the
  artifact is put on one of those that wait, for the others (F4); else they are left to the next
  pass.
- A plan may have a million copies: only so many are looked at as can keep every sled busy, and a
  few at a time (`step`), so that nobody waits for that: not for many, nor for many that are lost.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from coordinator.replication.lanes import Job, Key, Lanes, key_of
from coordinator.replication.values import Copy, Inventory, Plan, Put, Spread, Start
from depot.artifact import ArtifactHash

PUTS_PER_SLED: Final = 2
COPIES_PER_SLED: Final = 4
OPEN_JOBS: Final = 10_000
LOST_IN_A_STEP: Final = 500
FAILURES_PER_SLED: Final = 5
"""In one pass; a sled where so much goes wrong is left to the next one."""
MAX_OTHER_PUTS: Final = 3
"""In place of puts of one artifact that failed. More of them fail because of something else."""


@dataclass(slots=True)
class _Wait:
    """Copies that wait for one put or copy."""

    begun: list[Copy]
    finished: list[Copy]


class JobQueue:
    """The jobs of one plan; `step` as long as it `is_behind`.

    Attributes:
        left_out: jobs that this pass gives up without having tried them.
    """

    def __init__(self, plan: Plan, inventory: Inventory, *, open_jobs: int = OPEN_JOBS) -> None:
        self._have: set[Key] = set()
        self._held = {sled.id: sled.held for sled in inventory.sleds}
        self._aside = {sled.id for sled in inventory.sleds if sled.set_aside is not None}
        self._puts, self._copies = Lanes(PUTS_PER_SLED), Lanes(COPIES_PER_SLED)
        self._spreads = deque(plan.spreads)
        self._open_jobs = open_jobs
        self._lost: deque[Job] = deque()
        self._unsettled: set[Key] = set()
        self._begun: set[Key] = set()
        self._waits: defaultdict[Key, _Wait] = defaultdict(lambda: _Wait([], []))
        self._failures: Counter[str] = Counter()
        self._staged = inventory.staged_here
        self._other_puts: Counter[ArtifactHash] = Counter()
        self.left_out = 0
        self._unsettled.update(map(key_of, plan.puts))
        for put in plan.puts:
            self._puts.add(put)

    @property
    def is_done(self) -> bool:
        """Every job has succeeded, failed or was left out."""
        return not (self._unsettled or self._spreads)

    @property
    def is_behind(self) -> bool:
        """There is something to `step` for."""
        return bool(self._lost) or self._has_room

    @property
    def _has_room(self) -> bool:
        return bool(self._spreads) and len(self._unsettled) < self._open_jobs

    def step(self) -> None:
        """Do some of what follows from what happened."""
        if self._lost:
            self._lose_some()
        elif self._has_room:
            self._open(self._spreads.popleft())

    def next_put(self) -> Job | None:
        """A put that may begin, from now on under way."""
        return self._puts.next()

    def next_copy(self) -> Job | None:
        """A copy that may be asked for, from now on under way."""
        return self._copies.next()

    def begun(self, job: Job) -> bool:
        """The artifact is arriving at the target: what only waits for that can begin.

        Returns whether that is new.
        """
        key = key_of(job)
        if key not in self._unsettled or key in self._begun:
            return False
        self._begun.add(key)
        if (waits := self._waits.get(key)) is not None:
            copies, waits.begun = waits.begun, []
            self._free(copies)
        return True

    def succeeded(self, job: Job) -> None:
        """The target has the artifact."""
        key = key_of(job)
        self._lanes(job).ended(job.target)
        self._have.add(key)
        self._settle(key)
        if (waits := self._waits.pop(key, None)) is not None:
            self._free((*waits.begun, *waits.finished))

    def failed(self, job: Job) -> None:
        """The target has not got it, and this pass does not try again."""
        self._failures[job.target] += 1
        self.leave_out(job)
        if self._failures[job.target] >= FAILURES_PER_SLED:
            self.set_aside(job.target)

    def leave_out(self, job: Job) -> None:
        """Give up a job that has its turn, for this pass; that is nobody's fault."""
        self._lanes(job).ended(job.target)
        self._lost.append(job)

    def put_off(self, job: Job) -> None:
        """The job is not under way any more; `again` brings it back.

        Until then no other of its kind begins on its sled, which is busy.
        """
        self._lanes(job).pause(job.target)
        self._lanes(job).ended(job.target)

    def again(self, job: Job) -> None:
        """Have a job that was put off begin again, in its turn."""
        self._lanes(job).resume(job.target)
        if job.target in self._aside:
            self._leave_out(job)
        else:
            self._lanes(job).add(job)

    def after_its_source(self, job: Copy) -> bool:
        """Have a copy for which its first source was too early wait until that has it whole.

        It begins anew when the source has got it by now. False: the source has had it all along,
        or will not get it. Otherwise the copy is not under way any more.
        """
        first = (job.artifact, job.sources[0])
        if job.start is not Start.BEGUN or not (first in self._unsettled or first in self._have):
            return False
        self._copies.ended(job.target)
        if first in self._have:
            self._free([replace(job, start=Start.NOW, after=None)])
        else:
            later = replace(job, start=Start.FINISHED, after=job.sources[0])
            self._waits[first].finished.append(later)
        return True

    def wait_no_more_for(self, sled_id: str) -> None:
        """Have what waits for a sled that stands still begin otherwise, where that is possible."""
        for key in [key for key in self._waits if key[1] == sled_id]:
            waits = self._waits.pop(key)
            if stranded := self._strand((*waits.begun, *waits.finished)):
                self._waits[key].begun = [copy for copy in stranded if copy.start is Start.BEGUN]
                self._waits[key].finished = [
                    copy for copy in stranded if copy.start is not Start.BEGUN
                ]

    def set_aside(self, sled_id: str) -> None:
        """Begin nothing on a sled any more, in this pass."""
        self._aside.add(sled_id)
        for job in (*self._puts.drop(sled_id), *self._copies.drop(sled_id)):
            self._leave_out(job)

    # ---- how jobs come and go

    def _lanes(self, job: Job) -> Lanes:
        return self._puts if isinstance(job, Put) else self._copies

    def _open(self, spread: Spread) -> None:
        """Look at the copies of one more artifact."""
        if self._aside.issuperset(spread.targets):
            self.left_out += len(spread)
            return
        copies = list(spread.copies())
        self._unsettled.update(map(key_of, copies))
        for copy in copies:
            self._place(copy)

    def _place(self, copy: Copy) -> None:
        if copy.after is None:
            self._free([copy])
            return
        after = (copy.artifact, copy.after)
        if after in self._have or (copy.start is Start.BEGUN and after in self._begun):
            self._free([copy])
        elif after not in self._unsettled:
            for stranded in self._strand([copy]):
                self._leave_out(stranded)
        elif copy.start is Start.BEGUN:
            self._waits[after].begun.append(copy)
        else:
            self._waits[after].finished.append(copy)

    def _free(self, copies: Iterable[Copy]) -> None:
        """Let copies begin."""
        for copy in copies:
            if copy.target in self._aside:
                self._leave_out(copy)
            else:
                self._copies.add(copy)

    def _begins_otherwise(self, copy: Copy) -> bool:
        """Let a copy begin, for which it was waited in vain, with the sources that are left."""
        sources = tuple(source for source in copy.sources if self._has(source, copy.artifact))
        if not sources or copy.target in self._aside:
            return False
        self._copies.add(replace(copy, sources=sources, start=Start.NOW, after=None))
        return True

    def _has(self, sled_id: str, artifact: ArtifactHash) -> bool:
        if sled_id in self._aside:
            return False
        return (artifact, sled_id) in self._have or artifact in self._held.get(sled_id, ())

    def _leave_out(self, job: Job) -> None:
        self.left_out += 1
        self._lost.append(job)

    def _lose_some(self) -> None:
        """Settle jobs that brought nothing. What waits for them may be chains of a thousand."""
        for _ in range(min(len(self._lost), LOST_IN_A_STEP)):
            key = key_of(self._lost.popleft())
            self._settle(key)
            waits = self._waits.pop(key, None)
            if waits is not None:
                for stranded in self._strand((*waits.begun, *waits.finished)):
                    self._leave_out(stranded)

    def _strand(self, copies: Iterable[Copy]) -> list[Copy]:
        """Find another way for copies that were waiting in vain; those for which there is none."""
        stranded = [copy for copy in copies if not self._begins_otherwise(copy)]
        put_to = next((copy for copy in stranded if self._can_be_put(copy)), None)
        if put_to is None:
            return stranded
        self._other_puts[put_to.artifact] += 1
        put = Put(put_to.artifact, put_to.target)
        self._puts.add(put)
        waits = self._waits[key_of(put)]
        for copy in stranded:
            if copy is not put_to:
                by_relay = copy.start is Start.BEGUN
                copy = replace(
                    copy,
                    sources=(put.target,),
                    start=Start.BEGUN if by_relay else Start.FINISHED,
                    after=put.target,
                )
                (waits.begun if by_relay else waits.finished).append(copy)
        return []

    def _can_be_put(self, copy: Copy) -> bool:
        few = self._other_puts[copy.artifact] < MAX_OTHER_PUTS
        return few and copy.artifact in self._staged and copy.target not in self._aside

    def _settle(self, key: Key) -> None:
        self._unsettled.discard(key)
        self._begun.discard(key)
