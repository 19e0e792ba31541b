"""Snapshots every so often: a duty of each coordinator, done by one of them at a time.

Rules kept here:
- What failed shows as a failing duty of every coordinator, until one of them succeeds.
- A retention that fails is reported apart: a snapshot that was published is not made again for it.
- After a failure it is tried again in a minute, and then later and later.
- The turn is kept while it takes, however long that is; a coordinator that stops gives it back.
- One that comes no further is told of meanwhile: an archive that hangs is silent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agent.snapshots.archive import Archive
from agent.snapshots.opening import open_archive
from coordinator.database import snapshot_turns
from coordinator.database.database import Database
from coordinator.errors import SnapshotFailed
from coordinator.snapshots.copying import Order
from coordinator.snapshots.publishing import Published, publish_database
from coordinator.uploads.threads import run_until_over
from coordinator.values import SnapshotMade
from depot.concurrency.threads import DaemonThreads
from depot.errors import DepotError

LOOK_S: Final = 15.0
RETRY_S: Final = 60.0
PROLONG_S: Final = snapshot_turns.HELD_S / 4
STILL_S: Final = 3600.0
"""A copy is one step, however large."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """What is published, where to, and how often.

    Attributes:
        order: what, and how.
        archive: its URL.
        endpoint: the server that speaks S3, if not the usual one.
        directory: to copy in.
        keep: how many versions stay.
        interval_s: between two snapshots.
    """

    order: Order
    archive: str
    endpoint: str | None
    directory: Path
    keep: int
    interval_s: float


class Schedule:
    """Publishes a snapshot when one is due, and no other coordinator is at it.

    Attributes:
        published_at_s: when a coordinator last did, Unix seconds; None until that is known.
    """

    def __init__(
        self,
        database: Database,
        coordinator_id: str,
        every: Every,
        *,
        clock: Callable[[], float] = time.time,
        steady_clock: Callable[[], float] = time.monotonic,
        open_archive: Callable[[str, str | None], Archive] = open_archive,
    ) -> None:
        self.published_at_s: float | None = None
        self._database = database
        self._id = coordinator_id
        self._every = every
        self._clock = clock
        self._steady_clock = steady_clock  # nobody sets it: for how long something takes
        self._open_archive = open_archive
        self._threads = DaemonThreads("snapshot", 1)
        self._not_left: str | None = None
        self._pause_s = 0.0
        self._step: tuple[str, float] | None = None
        """The last of the one that is being made here, and when that was."""

    async def look(self) -> None:
        """Publish one if it is due.

        Raises:
            SnapshotFailed: the last one that was due has failed, here or elsewhere.
            DatabaseUnavailable.
        """
        every = self._every
        turn = await self._database.run(
            snapshot_turns.take,
            every.order.name,
            self._id,
            self._clock(),
            interval_s=every.interval_s,
        )
        self.published_at_s = turn.published_at_s
        if turn.taken:
            await self._take_turn()
        elif turn.error is not None:
            raise SnapshotFailed(turn.error)
        if self._not_left is not None:
            raise SnapshotFailed(f"published, but older versions stay: {self._not_left}")

    async def watch(self) -> None:
        """Look whether the one that is being made here, if there is one, gets on.

        Raises:
            SnapshotFailed: it does not.
        """
        if self._step is None:
            return
        what, since_s = self._step
        still_s = self._steady_clock() - since_s
        if still_s >= STILL_S:
            raise SnapshotFailed(
                f"the one that is being made has come no further for {still_s / 60:.0f} min; "
                f"the last step was: {what}"
            )

    async def _take_turn(self) -> None:
        try:
            published = await self._kept(self._publish)
        except asyncio.CancelledError:
            await self._give_back()
            raise
        except Exception as error:  # Whatever it is, the others are to know, and it is raised.
            text = f"{type(error).__name__}: {error}"
            await self._failed(text)
            raise SnapshotFailed(text) from error
        await self._published(published)

    async def _kept(self, work: Callable[[threading.Event], Published]) -> Published:
        """Work in a thread, with the turn prolonged meanwhile."""
        stopped = threading.Event()
        prolonging = asyncio.create_task(self._prolong(), name="snapshot turn")
        try:
            return await run_until_over(self._threads, lambda: work(stopped), stopped.set)
        finally:
            self._step = None
            prolonging.cancel()
            await asyncio.gather(prolonging, return_exceptions=True)

    async def _prolong(self) -> None:
        while True:
            await asyncio.sleep(PROLONG_S)
            try:
                await self._database.run(
                    snapshot_turns.prolong, self._every.order.name, self._id, self._clock()
                )
            except DepotError as error:  # At worst another one is made beside this one.
                _log.warning("the turn to make a snapshot was not prolonged", error=str(error))

    def _publish(self, stopped: threading.Event) -> Published:
        def check() -> None:
            if stopped.is_set():
                raise SnapshotFailed("the coordinator stops")

        def progress(sent_bytes: int) -> None:
            check()
            self._step = f"sent {sent_bytes} bytes of the copy", self._steady_clock()

        every = self._every
        self._go_on("begun")
        archive = self._open_archive(every.archive, every.endpoint)
        try:
            return publish_database(
                archive,
                every.order,
                directory=every.directory,
                keep=every.keep,
                line=self._go_on,
                progress=progress,
                check=check,
            )
        finally:
            archive.close()

    def _go_on(self, step: str) -> None:
        _log.debug("snapshot", step=step)
        self._step = step, self._steady_clock()

    async def _published(self, published: Published) -> None:
        now_s, said = self._clock(), published.head.metadata
        made = SnapshotMade(str(published.head.version), str(said.checksum), said.size_bytes or 0)
        _log.info("snapshot published", version=made.version, left=len(published.left))
        await self._database.run(snapshot_turns.published, self._every.order.name, made, now_s)
        self.published_at_s, self._pause_s = now_s, 0.0
        why = published.not_left
        self._not_left = None if why is None else f"{type(why).__name__}: {why}"

    async def _failed(self, text: str) -> None:
        self._pause_s = min(max(RETRY_S, 2 * self._pause_s), self._every.interval_s)
        await self._database.run(
            snapshot_turns.failed,
            self._every.order.name,
            self._id,
            text,
            self._clock(),
            not_before_s=self._pause_s,
        )

    async def _give_back(self) -> None:
        try:
            await self._database.run(snapshot_turns.give_back, self._every.order.name, self._id)
        except DepotError as error:  # it ends by itself
            _log.warning("the turn to make a snapshot was not given back", error=str(error))
