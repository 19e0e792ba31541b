"""Saying in the database, every so often, that this coordinator is there.

By that an operator knows which one is gone. A coordinator that was taken for gone and forgotten
says in the same transaction what it has staged, so that what is only there counts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from coordinator.database import coordinators, staged
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.staging.depot import StagingDepot
from depot.errors import DepotError

INTERVAL_S: Final = 30.0
GONE_AFTER_S: Final = 300.0
"""Who said nothing for so long can be forgotten without insisting on it."""

_log = structlog.get_logger(__name__)


class Presence:
    """Says that a coordinator is there.

    Args:
        database: of the fleet.
        staging: whose id is the coordinator's.
        host: the name of the machine.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        staging: StagingDepot,
        host: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._staging = staging
        self._host = host
        self._clock = clock

    async def tell(self) -> None:
        """Say it now.

        Raises:
            DatabaseUnavailable.
        """
        if await self._database.run(self._tell):
            _log.info("coordinator is new to the database", id=self._staging.id, host=self._host)

    async def _tell(self, tx: Transaction) -> bool:
        is_new = await coordinators.note(tx, self._staging.id, self._host, self._clock())
        if is_new:
            try:
                # Asked for in the transaction: an upload may just have been recorded.
                held = self._staging.held()
            except DepotError:  # its state says so; the first pass that can read it writes it down
                return True
            await staged.replace(tx, self._staging.id, held)
        return is_new
