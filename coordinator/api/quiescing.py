"""Leaving in order: no more uploads, and what is only here goes to a sled first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from coordinator.api.fleet_view import FleetView
from coordinator.replication.cycle import Cycle
from coordinator.uploads.desk import UploadDesk
from depot.artifact import ArtifactHash
from depot.errors import DepotError

LOOK_AGAIN_S: Final = 0.5
LOOKS_FOR_A_PASS: Final = 20
# The last look has no more time to wait for the database than this.
LOOK_TIMEOUT_S: Final = 5.0
SHOWN: Final = 5
REASON: Final = "this coordinator is about to stop and takes no more uploads"

_log = structlog.get_logger(__name__)


class Quiesce:
    """Waits until a sled has all that is wanted of this coordinator's staging.

    Attributes:
        done: set once that was asked for and is so; then the coordinator is to end.
    """

    def __init__(self, desk: UploadDesk, cycle: Cycle, view: FleetView) -> None:
        self._desk = desk
        self._cycle = cycle
        self._view = view
        self._asked = asyncio.Event()
        self._after_pass: int | None = None
        self.done = asyncio.Event()

    def begin(self) -> None:
        """Take no more uploads, and have the rest brought to the sleds."""
        if not self._asked.is_set():
            _log.info("quiescing")
        self._have_a_pass_made()
        self._asked.set()

    async def run(self) -> None:
        """Set `done` when it was asked for and nothing is only here; then wait for ever."""
        await self._asked.wait()
        await self._settled()
        self.done.set()
        await asyncio.Event().wait()

    async def settle(self, timeout_s: float) -> None:
        """Take no more uploads, wait as long as this for the sleds, and say what stays here."""
        self._have_a_pass_made()
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled()
        except TimeoutError:
            await self._say_what_stays()

    def _have_a_pass_made(self) -> None:
        """What earlier passes found may be long ago, and sleds have lost it since (F5)."""
        self._desk.quiescing = REASON
        if self._after_pass is None:
            self._after_pass = self._cycle.reporting.current().passes
        self._cycle.activate()

    async def _only_here(self) -> Sequence[ArtifactHash]:
        return await self._view.only_here(after_pass=self._after_pass or 0)

    async def _settled(self) -> None:
        looks = 0
        while not await self._is_settled():
            await asyncio.sleep(LOOK_AGAIN_S)  # the sleds tell nobody
            looks += 1
            if looks % LOOKS_FOR_A_PASS == 0:
                self._cycle.go_on()  # where passes are made on demand, a failed one is the last

    async def _is_settled(self) -> bool:
        if self._desk.running:
            return False
        try:
            return not await self._only_here()
        except DepotError as error:  # nobody knows, so it may be
            _log.warning("cannot tell what is only staged here", error=str(error))
            return False

    async def _say_what_stays(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                left = await self._only_here()
        except (DepotError, TimeoutError):
            _log.warning("nobody knows what stays in the staging depot: the database is away")
            return
        if left:
            _log.warning(
                "artifacts stay in the staging depot, and on no sled that says so",
                artifacts=len(left),
                first=[str(sha256) for sha256 in left[:SHOWN]],
            )
