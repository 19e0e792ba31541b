"""Noticing datasets that go and come, within `interval_s`, without anybody's request.

A missing one is attached as soon as its path leads to it again; a suspect one is used again once a
probe write succeeds and, when it failed in a way that puts its copies in doubt, those are verified;
a healthy one is checked through its path, and asked for syncs that failed after whoever waited for
them had given up. What a returned dataset says is read before it is written to: its ledger may be
the newer one (G4). A released one is left alone.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress

from depot.concurrency.keyed_lock import KeyedLock
from depot.dataset.dataset import Dataset
from depot.dataset.probing import probe
from depot.errors import DatasetBusy, DatasetUnusable
from depot.mirrors.condition import MirrorState
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.reverify import reverify
from depot.os_errors import SyncFailed


class Watch:
    """Looks after the state of every mirror.

    Args:
        on_return: awaited after a mirror came or recovered; reads what it says and lets it join.
        keep_doubted: keeps the UUIDs of the datasets in doubt for the next process. Blocks.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        *,
        interval_s: float,
        on_return: Callable[[], Awaitable[None]],
        keep_doubted: Callable[[frozenset[str]], None],
    ) -> None:
        self._mirrors = mirrors
        self._interval_s = interval_s
        self._on_return = on_return
        self._keep_doubted = keep_doubted
        self._sync_failures: dict[int, tuple[Dataset, int]] = {}
        self._looking: KeyedLock[int] = KeyedLock()
        self._keeping = asyncio.Lock()
        self._kept: frozenset[str] | None = None

    async def run(self) -> None:
        """Watch every mirror until cancelled; a hung one delays nobody else."""
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors.all:
                group.create_task(self._watch(mirror), name=f"watch-{mirror.index}")

    async def check(self, mirror: Mirror) -> None:
        """Look at one mirror now."""
        async with self._looking.hold(mirror.index):
            await self._note_doubts()
            await self._check(mirror)
            await self._note_doubts()

    async def _check(self, mirror: Mirror) -> None:
        if mirror.released or mirror.host.hangs():
            return  # where a call hangs, another would only hang with it
        before = mirror.state
        if before is MirrorState.MISSING:
            await self._attach(mirror)
        else:
            await self._probe(mirror)
        if mirror.joining or (mirror.readable and before is MirrorState.MISSING):
            await self._on_return()

    async def _watch(self, mirror: Mirror) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.check(mirror)

    async def _attach(self, mirror: Mirror) -> None:
        try:
            await self._mirrors.attach(mirror)
        except DatasetBusy:
            return  # recorded as the reason; the holder may let go later

    async def _probe(self, mirror: Mirror) -> None:
        try:
            await mirror.call(Dataset.check_identity)
            mirror.space = await mirror.call(Dataset.space)
            await self._count_sync_failures(mirror)
            if mirror.state is MirrorState.SUSPECT:
                await self._recover(mirror)
                return
            await mirror.call(Dataset.refill_reserve)
            if mirror.full and mirror.room_for(1 << 20):
                mirror.recovered()  # it may have missed a ledger for want of room (G3)
        except (OSError, DatasetUnusable):
            return  # the call has moved the state

    async def _recover(self, mirror: Mirror) -> None:
        await mirror.call(probe)
        if mirror.doubtful:
            await self._note_doubts()  # this may take long, and the process may end meanwhile
            if not await reverify(mirror, look_every_s=self._interval_s):
                return
        mirror.recovered()

    async def _count_sync_failures(self, mirror: Mirror) -> None:
        dataset = mirror.dataset
        count = await mirror.call(Dataset.sync_failures)
        known, before = self._sync_failures.get(mirror.index, (None, 0))
        self._sync_failures[mirror.index] = (dataset, count)
        if count > (before if known is dataset else 0) and not mirror.doubtful:
            mirror.failed(SyncFailed(errno.EIO, "a sync failed"), dataset)

    async def _note_doubts(self) -> None:
        if self._kept is None:
            self._kept = self._mirrors.doubted  # as the process before kept it
        self._mirrors.note_doubts()
        async with self._keeping:  # or what was known first may be written last
            doubted = self._mirrors.doubted
            if doubted != self._kept:
                # Tried again at the next look; the scrub comes by in any case.
                with suppress(OSError):
                    await asyncio.to_thread(self._keep_doubted, doubted)
                    self._kept = doubted
