"""What a store does by itself: look at its datasets, delete, heal, fetch, verify."""

from __future__ import annotations

import asyncio
import time

from depot.healing.healer import Peers
from depot.parts import Parts


class Duties:
    """Runs what the parts of a store have to do, when it is due or somebody found a reason."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._wanted = parts.wanted
        self._just_opened = True

    async def run(self, peers: Peers | None = None) -> None:
        """Do it all until cancelled; `peers` is where that comes from which nothing here has."""
        parts = self._parts
        self._wanted.reconcile.set()
        parts.heal_again()
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.watch.run(), name="watch")
            group.create_task(self._reconcile_for_ever(), name="reconcile")
            group.create_task(self._heal_for_ever(), name="heal")
            group.create_task(self._fetch_for_ever(peers), name="fetch")
            group.create_task(parts.scrubber.run(), name="scrub")
            group.create_task(parts.records.run(parts.mirrors.all), name="copy records")
            group.create_task(parts.had.run(), name="artifacts had")

    async def reconcile(self, *, rescan: bool = True) -> int:
        """Delete what no config wants, now; the number of artifacts deleted."""
        await self._parts.quarantine.refresh_all()
        deleted = await self._parts.reconciler.run_once(rescan=rescan)
        await self._parts.had.forget_unwanted()
        return deleted

    async def _reconcile_for_ever(self) -> None:
        while True:
            # What there is at the start was found out a moment ago.
            rescan, self._just_opened = not self._just_opened, False
            await self.reconcile(rescan=rescan)
            self._wanted.heal.set()  # what it found gone is to come back
            await _wait(self._wanted.reconcile, self._until_reconcile_s())

    async def _heal_for_ever(self) -> None:
        healer = self._parts.healer
        while True:
            await healer.heal_here(only_due=True)
            self._wanted.fetch.set()
            await _wait(self._wanted.heal, self._within_interval_s(healer.heal_due_in_s()))

    async def _fetch_for_ever(self, peers: Peers | None) -> None:
        # Apart from the rest: a peer that answers slowly must not keep the mirrors from healing.
        healer = self._parts.healer
        while True:
            await _wait(self._wanted.fetch, self._within_interval_s(healer.fetch_due_in_s()))
            await healer.fetch(peers, only_due=True)

    def _within_interval_s(self, due_in_s: float | None) -> float:
        interval_s = self._parts.options.reconcile_interval_s
        # At least a second: a pass looks at every artifact of the config.
        return interval_s if due_in_s is None else min(interval_s, max(1.0, due_in_s))

    def _until_reconcile_s(self) -> float:
        grace_s = self._parts.reconciler.next_grace_end_s() - time.time()
        interval_s = self._parts.options.reconcile_interval_s
        return min(interval_s, grace_s + 0.1) if grace_s > 0 else interval_s


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
    finally:
        event.clear()
