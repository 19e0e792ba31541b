"""What the journal needs every so often: numbers, checkpoints, new shards, less of old ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.errors import JournalKeyMissing
from coordinator.journal.journal import Journal
from coordinator.journal.values import Shard, SignedCheckpoint

LOOK_S: Final = 1.0
UNSIGNED_S: Final = 600.0
"""For so long another coordinator may have the key, and be away."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """When a shard is sealed by itself, and how often one is signed meanwhile."""

    max_entries: int
    max_age_s: float
    checkpoint_s: float


class JournalKeeper:
    """Looks after the journal; several may, one on each coordinator."""

    def __init__(
        self, journal: Journal, limits: ShardLimits, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._limits = limits
        self._clock = clock

    async def look(self) -> None:
        """Do what is due, and last what nobody waits for.

        Raises:
            DatabaseUnavailable.
            JournalKeyMissing: nobody has signed for long, and it cannot be done here.
        """
        await self._journal.number()
        await self._sign_or_rotate()
        await self._journal.delete_dropped()

    async def _sign_or_rotate(self) -> None:
        active, signed = await self._journal.standing()
        if not active.size:
            return
        if self._is_full(active):
            await self._rotate(active)
        elif self._is_due(active, signed):
            await self._sign(active, signed)

    def _is_full(self, active: Shard) -> bool:
        age_s = self._clock() - active.created_s
        return active.size >= self._limits.max_entries or age_s >= self._limits.max_age_s

    def _is_due(self, active: Shard, signed: SignedCheckpoint | None) -> bool:
        if signed is None:
            return True
        due_s = signed.time_s + self._limits.checkpoint_s
        return signed.size < active.size and self._clock() >= due_s

    async def _rotate(self, active: Shard) -> None:
        try:
            await self._journal.rotate(active.id)
        except JournalKeyMissing:
            # It is sealed by whoever has the key; too large a shard is one all the same.
            _log.debug("shard not sealed here", shard=active.id)

    async def _sign(self, active: Shard, signed: SignedCheckpoint | None) -> None:
        try:
            await self._journal.sign(active.id)
        except JournalKeyMissing:
            since_s = active.created_s if signed is None else signed.time_s
            if self._clock() - since_s > UNSIGNED_S:
                raise
