"""What went wrong before, and what follows for what is tried next. Pure but for the loop's clock.

Rules kept here:
- What failed is tried again later each time; so is what a sled says it has got and then does not
  list. Another way to the same sled can be tried at once; a full sled has none.
- Who says after how long it wants to be asked again is not asked about that artifact before.
- A sled where nothing has moved for a while, or that did not answer in the middle of something, is
  slow, and stays so for a while.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from coordinator.replication.lanes import Job, Key, key_of
from coordinator.replication.request_log import STAGING
from coordinator.replication.values import Inventory, Put
from depot.artifact import ArtifactHash
from depot.concurrency.backoff import Backoff

FULL_S: Final = 60.0
STANDS_STILL_S: Final = 10.0
SLOW_FOR_S: Final = 600.0
Way = tuple[ArtifactHash, str, str]
"""An artifact, where it is to go, and where it comes from."""


class Setbacks:
    """Remembers them across passes."""

    def __init__(self) -> None:
        self._later: Backoff[Way] = Backoff()
        self._full: Backoff[Key] = Backoff(first_s=FULL_S)
        self._no_room: dict[Key, str] = {}
        self._wait_until_s: dict[Key, float] = {}
        self._tried: set[Way] = set()
        self._moved_at_s: dict[str, float] = {}
        self._slow_until_s: dict[str, float] = {}

    def forget(self) -> None:
        """Have everything tried again at once."""
        self._later.clear()
        self._full.clear()
        self._wait_until_s.clear()
        self._slow_until_s.clear()

    def see(self, inventory: Inventory) -> None:
        """Forget what has come to where it was to go, or is not wanted there any more."""
        now_s = _now_s()
        self._wait_until_s = {
            key: until_s for key, until_s in self._wait_until_s.items() if until_s > now_s
        }
        held = {sled.id: sled.held for sled in inventory.sleds}
        for way in list(self._tried):
            artifact, sled_id, _ = way
            if artifact not in inventory.sizes or artifact in held.get(sled_id, (artifact,)):
                self._tried.discard(way)
                self._later.forget(way)
                self._full.forget((artifact, sled_id))
                self._no_room.pop((artifact, sled_id), None)

    def due(self, job: Job) -> Job | None:
        """What of a job can be tried now."""
        now_s = _now_s()
        if not self._full.is_due(key_of(job), now_s):
            return None
        if self._wait_until_s.get(key_of(job), now_s) > now_s:
            return None
        if isinstance(job, Put):
            return job if self._later.is_due(_way(job), now_s) else None
        ways = {source: (job.artifact, job.target, source) for source in job.sources}
        sources = tuple(source for source in ways if self._later.is_due(ways[source], now_s))
        return replace(job, sources=sources) if sources else None

    def tried(self, job: Job) -> None:
        """A job failed; or it went well, which the next list will show."""
        self._no_room.pop(key_of(job), None)
        self._tried.add(_way(job))
        self._later.failed(_way(job), _now_s())

    def full(self, job: Job, why: str) -> None:
        """There was no room for a job's artifact, as the sled put it."""
        self._tried.add(_way(job))
        self._no_room[key_of(job)] = why
        self._full.failed(key_of(job), _now_s())

    def wait(self, job: Job, wait_s: float) -> None:
        """The sled wants to be asked about it again after so long."""
        self._wait_until_s[key_of(job)] = _now_s() + wait_s

    def unanswered(self, job: Job) -> None:
        """A sled did not see a job through in time: it would be the first in line again."""
        self._slow_until_s[job.target] = _now_s() + SLOW_FOR_S

    def moved(self, sled_id: str) -> None:
        """Something began on a sled, or more of it has come."""
        self._moved_at_s[sled_id] = _now_s()

    def standing_still(self, busy: Iterable[str]) -> list[str]:
        """Those of the sleds that are to receive something and do not."""
        now_s = _now_s()
        still = [
            sled_id
            for sled_id in sorted(set(busy))
            if now_s - self._moved_at_s.get(sled_id, now_s) >= STANDS_STILL_S
        ]
        self._slow_until_s.update(dict.fromkeys(still, now_s + SLOW_FOR_S))
        return still

    def no_room(self) -> Mapping[str, Mapping[ArtifactHash, str]]:
        """By sled, what there was no room for when that was last tried, and why."""
        found: defaultdict[str, dict[ArtifactHash, str]] = defaultdict(dict)
        for (artifact, sled_id), why in self._no_room.items():
            found[sled_id][artifact] = why
        return found

    def slow(self) -> frozenset[str]:
        """Sleds where something stood still not long ago."""
        now_s = _now_s()
        return frozenset(id_ for id_, until_s in self._slow_until_s.items() if until_s > now_s)


def _way(job: Job) -> Way:
    return job.artifact, job.target, STAGING if isinstance(job, Put) else job.sources[0]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
