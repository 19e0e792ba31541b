"""Noticing that another coordinator was told to leave a sled alone, or of a new one.

A pass goes by what the database said when it began, and can last as long as its period. Who
expunges a sled expects that all work with it ends, whichever coordinator was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator.database import sleds
from coordinator.database.database import Database

LOOK_S: Final = 5.0


class FleetWatch:
    """Looks which sleds are in service, and where; calls `on_change` when that is not as before."""

    def __init__(self, database: Database, on_change: Callable[[], None]) -> None:
        self._database = database
        self._on_change = on_change
        self._before: frozenset[tuple[str, str]] | None = None

    async def look(self) -> None:
        """Look now.

        Raises:
            DatabaseUnavailable.
        """
        places = await self._database.run(sleds.places)
        if self._before not in (None, places):
            self._on_change()
        self._before = places
