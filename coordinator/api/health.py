"""Whether the coordinator can do its work, for probes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from coordinator.staging.depot import StagingDepot
from depot.errors import DepotError

_TIMEOUT_S: Final = 5.0


class Health:
    """Looks whether the coordinator can do its work."""

    def __init__(
        self, ask_database: Callable[[], Awaitable[object]], staging: StagingDepot
    ) -> None:
        self._ask_database = ask_database
        self._staging = staging

    async def reasons_not_ready(self) -> list[str]:
        """Each reason why not; empty when it can."""
        return [*await self._of_database(), *self._of_staging()]

    async def _of_database(self) -> list[str]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._ask_database()
        except TimeoutError:
            return ["the database does not answer"]
        except DepotError as error:
            return [str(error)]
        return []

    def _of_staging(self) -> list[str]:
        status = self._staging.status()
        if status.state == "healthy":
            return []
        # No path of this machine: whoever asks may be anyone.
        return [f"the staging depot is {status.state}"]
