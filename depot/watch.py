"""Noticing datasets that go and come, within `interval_s`, without anybody's request.

A missing one is attached as soon as its path leads to it again; a suspect one is used again once a
probe write succeeds; a healthy one is checked through its path. What a returned dataset says is
read before it is written to: its ledger may be the newer one (G4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from depot.dataset import Dataset
from depot.errors import DatasetBusy, DatasetUnusable
from depot.keyed_lock import KeyedLock
from depot.mirror import Mirror, MirrorState
from depot.mirrors import MirrorSet


class Watch:
    """Looks after the state of every mirror.

    Args:
        on_return: awaited after a mirror came or recovered; reads what it says and lets it join.
    """

    def __init__(
        self, mirrors: MirrorSet, *, interval_s: float, on_return: Callable[[], Awaitable[None]]
    ) -> None:
        self._mirrors = mirrors
        self._interval_s = interval_s
        self._on_return = on_return
        self._looking: KeyedLock[int] = KeyedLock()

    async def run(self) -> None:
        """Watch every mirror until cancelled; a hung one delays nobody else."""
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors.all:
                group.create_task(self._watch(mirror), name=f"watch-{mirror.index}")

    async def check(self, mirror: Mirror) -> None:
        """Look at one mirror now."""
        async with self._looking.hold(mirror.index):
            await self._check(mirror)

    async def _check(self, mirror: Mirror) -> None:
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
            if mirror.state is MirrorState.SUSPECT:
                await mirror.call(Dataset.probe)
                mirror.recovered()
                return
            await mirror.call(Dataset.refill_reserve)
            if mirror.full and mirror.room_for(1 << 20):
                mirror.recovered()  # it may have missed a ledger for want of room (G3)
        except (OSError, DatasetUnusable):
            return  # the call has moved the state
